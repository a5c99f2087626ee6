"""What the measurements come to, as they are written by one process and read by another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.ratios import Ratio

STEPS, EPOCHS = 4, 10
"""Steps in an epoch, and epochs in all."""

PLAIN = "plain"


@dataclass(frozen=True)
class Found:
    """What is at a line.

    Attributes:
        title: of the model.
        seconds: of the process, to draw it; two traces and the proof are in it.
        boundary: names and shapes.
        bytes: of a sample at the line.
        input_bytes: of a sample at the input.
        flops: of a sample below.
        refused: why there is none, if there is none.
    """

    title: str
    seconds: float
    boundary: list[str] = field(default_factory=list)
    bytes: int = 0
    input_bytes: int = 0
    flops: int = 0
    refused: str = ""


@dataclass(frozen=True)
class Cached:
    """Epochs from the cache over live ones.

    Attributes:
        title: of the model.
        live_ms: of a live step, in the median.
        epoch: from the second epoch on, steps and loading.
        fill: filling the cache over a live epoch.
        total: filling it and ten epochs from it over ten live epochs.
        same: whether the losses of the first epoch are those of the live one: in PyTorch all of them, bitwise; in JAX,
            whose two steps are compiled, the first within a millionth.
    """

    title: str
    live_ms: float
    epoch: Ratio
    fill: float
    total: float
    same: bool

    @classmethod
    def of(cls, read: dict[str, Any]) -> Cached:
        """From what was written."""
        return cls(**{**read, "epoch": Ratio(**read["epoch"])})


@dataclass(frozen=True)
class Raced:
    """One runtime.

    Attributes:
        name: of the runtime.
        below: the time of what is below the line over that of plain.
        step: the time of a whole training step over that with plain below.
        error: at the boundary, as a part of the largest value there.
    """

    name: str
    below: Ratio
    step: Ratio
    error: float

    @classmethod
    def of(cls, read: dict[str, Any]) -> Raced:
        """From what was written."""
        return cls(**{**read, "below": Ratio(**read["below"]), "step": Ratio(**read["step"])})


@dataclass(frozen=True)
class Race:
    """All runtimes of one model.

    Attributes:
        title: of the model.
        below_ms: of what is below, plain, in the median.
        step_ms: of a training step with it.
        raced: all that ran within the bound.
        left_out: the others, with the reason.
        picked: by ``"auto"``.
    """

    title: str
    below_ms: float
    step_ms: float
    raced: list[Raced]
    left_out: dict[str, str]
    picked: str

    @classmethod
    def of(cls, read: dict[str, Any]) -> Race:
        """From what was written."""
        return cls(**{**read, "raced": [Raced.of(one) for one in read["raced"]]})

    @property
    def pick(self) -> Raced:
        """What was picked."""
        return next(one for one in self.raced if one.name == self.picked)
