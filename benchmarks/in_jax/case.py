"""The measurements in JAX, and the targets that they miss. Nothing here imports it."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.timing import Ratio

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
"""The most FLOPs that ours may have over those of the best other way."""
ROOM_OF_A_NORM = 1.01
"""The most FLOPs that ours may have in a loop that logs the norm over those in the plain one."""


@dataclass(frozen=True)
class Step:
    """A step, frozen in one way, in one loop.

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
        frozen: how many arrays are frozen.
        steps: loop -> way -> a step; `AGAIN` is the step by hand timed twice, which shows the noise.
    """

    title: str
    frozen: int
    steps: dict[str, dict[str, Step]]

    def misses(self) -> list[str]:
        """The missed targets, in words."""
        found = []
        for loop, steps in self.steps.items():
            best = min(PEERS, key=lambda way, steps=steps: steps[way].flops)
            for way in OURS:
                ours, flops, plain = steps[way], steps[best].flops, self.steps["plain"][way].flops
                where = f"{self.title}: {way}, {loop}"
                if ours.flops > ROOM * flops:
                    found.append(f"{where}: {ours.flops / flops:.4f} x the FLOPs of {best}")
                if loop == "norm" and ours.flops > ROOM_OF_A_NORM * plain:
                    found.append(f"{where}: {ours.flops / plain:.4f} x the FLOPs of its plain step")
                if ours.moved:
                    found.append(f"{where}: {ours.moved} of {self.frozen} frozen arrays moved")
        return found
