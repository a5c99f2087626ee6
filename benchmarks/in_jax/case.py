"""What is measured in JAX, and what is to be reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.ratios import Ratio

LAYERS = 12
PLACES = {"bottom": slice(0, 9), "middle": slice(1, 10), "top": slice(3, 12)}
"""Where the frozen layers are."""
LOOPS = ("plain", "norm", "clip")
"""A step as it is; with the norm of the gradients logged; with clipping by that norm."""

ALL, BASE, AGAIN = "train all", "eqx.partition by hand", "by hand again"
PEERS = (
    "chain(adamw, optax.freeze)",
    "chain(optax.freeze, adamw)",
    "optax.partition",
    "paramax.non_trainable",
    "paramax, partition by hand",
    BASE,
)
OURS = ("fj.value_and_grad", "fj.optimizer")

ROOM = 1.005
"""Our FLOPs over those of the best other way."""
ROOM_OF_A_NORM = 1.01
"""Our FLOPs in a loop that logs the norm over those in the plain one."""


@dataclass(frozen=True)
class Step:
    """What was measured of a step, frozen in one way, in one loop.

    Attributes:
        flops: of one step, by XLA's analysis of what it compiled.
        temporary: bytes that the compiled step needs while it runs, beside arguments and outputs.
        arguments: bytes that it takes: parameters, optimizer state, batch.
        outputs: bytes that it returns.
        state: bytes of the optimizer state.
        moved: how many frozen arrays have other bytes after three steps.
        norm: the norm of the gradients at the first step over that of the frozen step by hand; in the loop "norm".
        ms: median time.
        time: over the time of the frozen step by hand.
    """

    flops: float
    temporary: int
    arguments: int
    outputs: int
    state: int
    moved: int
    norm: float | None
    ms: float
    time: Ratio


@dataclass(frozen=True)
class Case:
    """One model with its frozen layers in one place.

    Attributes:
        steps: loop -> way -> what was measured.
        again: loop -> the time of the step by hand, taken twice: how far the machine can be trusted.
    """

    model: str
    place: str
    rounds: int
    frozen: int
    steps: dict[str, dict[str, Step]]
    again: dict[str, Ratio]

    @property
    def title(self) -> str:
        """The model, and what of it is frozen."""
        return f"{self.model}, {self.place}"

    @classmethod
    def of(cls, read: dict[str, Any]) -> Case:
        """A case from its JSON."""
        steps = {loop: {way: _step(s) for way, s in ways.items()} for loop, ways in read["steps"].items()}
        again = {loop: Ratio(**ratio) for loop, ratio in read["again"].items()}
        return cls(**{**read, "steps": steps, "again": again})

    def best(self, loop: str) -> tuple[str, float]:
        """The other way with the fewest FLOPs, and how many these are."""
        flops = {way: self.steps[loop][way].flops for way in PEERS}
        way = min(flops, key=flops.__getitem__)
        return way, flops[way]

    def misses(self) -> list[str]:
        """The targets that are missed, in words."""
        return [miss for way in OURS for loop in LOOPS for miss in self._misses(way, loop)]

    def _misses(self, way: str, loop: str) -> list[str]:
        ours, plain = self.steps[loop][way], self.steps["plain"][way]
        best, flops = self.best(loop)
        found = []
        if ours.flops > ROOM * flops:
            found.append(f"{way}, {loop}: {ours.flops / flops:.4f} x the FLOPs of {best}")
        if loop == "norm" and ours.flops > ROOM_OF_A_NORM * plain.flops:
            found.append(f"{way}, {loop}: {ours.flops / plain.flops:.4f} x the FLOPs of its plain step")
        if ours.moved:
            found.append(f"{way}, {loop}: {ours.moved} of {self.frozen} frozen arrays moved")
        return found


def _step(read: dict[str, Any]) -> Step:
    return Step(**{**read, "time": Ratio(**read["time"])})
