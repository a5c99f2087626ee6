"""The measurements of frost lines, caches and runtimes: their rows in a table, and the goals that they miss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.timing import Ratio

STEPS, EPOCHS = 4, 10
"""Steps in an epoch, and epochs in all."""
PLAIN = "plain"

# By name: an epoch from the cache over a live one, and ten in all.
EPOCH = {"resnet50": 0.55, "bert": 0.65, "resnet50 probe": 0.02, "bert probe": 0.02, "jax": 0.65}
TOTAL = {"resnet50": 0.60, "bert": 0.60, "jax": 0.60}
# The time below the line in the runtime that was picked, over the time in the plain one.
BELOW = {"resnet18": 0.80, "vit": 0.75, "bert": 0.75}


def _goal(number: float | None) -> str:
    return "" if number is None else f"≤ {number:.2f}"


def _above(what: str, ratio: float, goal: float | None) -> Iterator[str]:
    if goal is not None and ratio > goal:
        yield f"{what}: {ratio:.3f} of {goal:.2f}"


@dataclass(frozen=True)
class Found:
    """One frost line.

    Attributes:
        seconds: of the process, to draw it; two traces and the proof are in it.
        boundary: names and shapes.
        bytes: of a sample at the line.
        input_bytes: of a sample at the input.
        flops: of a sample below.
        refused: why there is none, if there is none.
    """

    HEADINGS = ("frost line", "seconds to find", "KiB a sample", "KiB of the input", "MFLOP below", "boundary")

    title: str
    seconds: float
    boundary: list[str] = field(default_factory=list)
    bytes: int = 0
    input_bytes: int = 0
    flops: int = 0
    refused: str = ""

    def rows(self, name: str) -> Iterator[tuple[str, ...]]:
        """One row."""
        numbers = (self.bytes / 1024, self.input_bytes / 1024, self.flops / 1e6)
        shown = (f"{number:,.1f}" for number in numbers)
        rest = ("–", "–", "–", "refused") if self.refused else (*shown, ", ".join(self.boundary))
        yield self.title, f"{self.seconds:.1f}", *rest

    def misses(self, name: str) -> Iterator[str]:
        """In words."""
        if self.refused:
            yield f"{self.title}: no line, {self.refused}"


@dataclass(frozen=True)
class Cached:
    """Epochs from the cache over live ones.

    Attributes:
        live_ms: of a live step, in the median.
        epoch: from the second epoch on, steps and loading.
        fill: filling the cache over a live epoch.
        total: filling it and ten epochs from it over ten live epochs.
        same: whether the losses of the first epoch are those of the live one: in PyTorch all of them, bitwise; in JAX,
            whose two steps are compiled, the first within a millionth.
    """

    HEADINGS = (
        "from the cache",
        "live step, ms",
        "epoch / live",
        "goal",
        "filling / live epoch",
        "ten epochs",
        "goal",
    )

    title: str
    live_ms: float
    epoch: Ratio
    fill: float
    total: float
    same: bool

    def rows(self, name: str) -> Iterator[tuple[str, ...]]:
        """One row."""
        epoch, total = _goal(EPOCH.get(name)), _goal(TOTAL.get(name))
        yield self.title, f"{self.live_ms:.0f}", str(self.epoch), epoch, f"{self.fill:.2f}", f"{self.total:.3f}", total

    def misses(self, name: str) -> Iterator[str]:
        """In words."""
        yield from _above(f"{self.title}, an epoch from the cache", self.epoch.median, EPOCH.get(name))
        yield from _above(f"{self.title}, ten epochs", self.total, TOTAL.get(name))
        if not self.same:
            yield f"{self.title}: other losses from the cache"


@dataclass(frozen=True)
class Runtime:
    """One runtime.

    Attributes:
        below: the time below the line over that of plain.
        step: the time of a whole training step over that with plain below.
        error: at the boundary, as a part of the largest value there.
    """

    below: Ratio
    step: Ratio
    error: float


@dataclass(frozen=True)
class Runtimes:
    """All runtimes of one model.

    Attributes:
        below_ms: below the line, plain, in the median.
        step_ms: of a training step with it.
        measured: all that ran within the bound, by name, plain first.
        left_out: the others, with the reason.
        picked: by ``"auto"``.
    """

    HEADINGS = ("runtime below the line", "below / plain", "goal", "step / plain", "error", "")

    title: str
    below_ms: float
    step_ms: float
    measured: dict[str, Runtime]
    left_out: dict[str, str]
    picked: str

    def rows(self, name: str) -> Iterator[tuple[str, ...]]:
        """A row for each runtime."""
        title = f"{self.title}: plain, {self.below_ms:.0f} of {self.step_ms:.0f} ms"
        yield title, "1", _goal(BELOW.get(name)), "1", "0", ""
        for each, one in self.measured.items():
            if each != PLAIN:
                note = "picked" if each == self.picked else ""
                yield each, str(one.below), "", str(one.step), f"{one.error:.1e}", note
        for each, reason in self.left_out.items():
            yield each, "–", "–", "", "–", reason

    def misses(self, name: str) -> Iterator[str]:
        """In words."""
        what = f"{self.title}, below as {self.picked}"
        yield from _above(what, self.measured[self.picked].below.median, BELOW.get(name))
