"""FreezeOut: the learning rates of blocks fall to zero one after another, and then the blocks freeze."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi
from typing import final

from frostline._core.errors import ScheduleError
from frostline.schedules.arguments import RESTS, blocks, choice, number, whole
from frostline.schedules.phase import Phase, frozen_beside
from frostline.schedules.schedule import Schedule

SPACINGS = ("cubic", "linear")


@final
@dataclass(frozen=True, repr=False)
class FreezeOut(Schedule):
    """The learning rate of each block falls to zero along half a cosine, earliest in the first block; then it freezes.

    Source: Brock et al., "FreezeOut: Accelerate Training by Progressively Freezing Layers",
    https://arxiv.org/abs/1706.04983. Block i of n freezes after the share t_i of the run, where
    t_i = t_0 + (1 - t_0) i / (n - 1), cubed if the spacing is cubic, so that the last block trains to the end. At the
    share t its rate is (1 + cos(pi t / t_i)) / 2, divided by t_i if rates are scaled: blocks that freeze early learn
    faster, and the learning rates of all blocks have the same sum. As in the paper, `t0` is given before it is cubed.

    The factors multiply the learning rate of the optimizer, which should stay constant. At the end of the run all
    blocks are frozen.

    Args:
        blocks: selectors, in order from input to output.
        steps: the number of steps of the run.
        t0: the share of the run after which the first block freezes.
        spacing: "cubic" or "linear".
        scaled: whether blocks that freeze early learn faster.
        rest: what happens to parameters that no block names: "frozen" or "train", at the full rate. If it is left out,
            a driver refuses a model that has such parameters.

    Raises:
        ScheduleError: there is no block or no step, the share is not above 0 and at most 1, or the spacing or `rest`
            is unknown.

    Example:
        >>> schedule = FreezeOut(["a", "b", "c"], steps=100, t0=0.5, spacing="linear")
        >>> schedule.at(25).rates[0], schedule.at(0).rates
        (('a', 1.0), (('a', 2.0), ('b', 1.3333333333333333), ('c', 1.0)))
        >>> [schedule.at(step).frozen for step in (49, 50, 75, 100)]
        [(), ('a',), ('a', 'b'), ('a', 'b', 'c')]
    """

    blocks: Sequence[str]
    steps: int
    t0: float = 0.8
    spacing: str = "cubic"
    scaled: bool = True
    rest: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", blocks("FreezeOut", "blocks", self.blocks))
        object.__setattr__(self, "steps", whole("FreezeOut", "steps", self.steps, least=1))
        object.__setattr__(self, "t0", number("FreezeOut", "t0", self.t0, above=0.0, most=1.0))
        choice("FreezeOut", "spacing", self.spacing, SPACINGS)
        if not isinstance(self.scaled, bool):
            problem = f"is of type {type(self.scaled).__name__}, and must be true or false."
            raise ScheduleError(f"FreezeOut(scaled={self.scaled!r})", problem, (), "Write FreezeOut(..., scaled=True).")
        if self.rest is not None:
            choice("FreezeOut", "rest", self.rest, RESTS)

    @property
    def parts(self) -> Sequence[str]:
        """The blocks."""
        return self.blocks

    @property
    def rest_unsaid(self) -> bool:
        """Whether `rest` was left out."""
        return self.rest is None

    @property
    def horizon(self) -> int:
        """The length of the run."""
        return self.steps

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of the run after which each block freezes; t_i in the paper."""
        last = len(self.blocks) - 1
        # In this form the last share is exactly 1.
        linear = [1 - (1 - self.t0) * (last - place) / max(last, 1) for place in range(len(self.blocks))]
        return tuple(share**3 if self.spacing == "cubic" else share for share in linear)

    def _at(self, step: int) -> Phase:
        # Rounded, because 0.07 * 100 is slightly more than 7 in floating point.
        pairs = zip(self.blocks, self.shares, strict=True)
        ends = [(block, share, round(share * self.steps, 6)) for block, share in pairs]
        frozen = [block for block, _, end in ends if step >= end]
        rates = [(block, self._factor(step, share, end)) for block, share, end in ends if step < end]
        still = frozen_beside(frozen, self.blocks[len(frozen) :], self.rest)
        return Phase(still, name=f"{len(frozen)} of {len(ends)} blocks frozen", rates=rates)

    def _factor(self, step: int, share: float, end: float) -> float:
        return (1 + cos(pi * step / end)) / 2 / (share if self.scaled else 1.0)

    def _boundary(self, step: int) -> int | None:
        return step + 1 if step < self.steps else None
