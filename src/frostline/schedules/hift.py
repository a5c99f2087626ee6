"""HiFT: groups of blocks take turns in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from frostline.schedules.arguments import blocks, choice, whole
from frostline.schedules.order import shuffled
from frostline.schedules.phase import Phase, all_but
from frostline.schedules.schedule import Schedule

ORDERS = ("bottom2up", "top2down", "random")


@final
@dataclass(frozen=True, repr=False)
class HiFT(Schedule):
    """Groups of blocks take turns; the learning rate changes only after a cycle, in which each group has one turn.

    Source: Liu et al., "HiFT: A Hierarchical Full Parameter Fine-Tuning Strategy", https://arxiv.org/abs/2401.15207.
    As in the paper, a random order is drawn once, and the learning rate is constant within a cycle, so that all groups
    get the same rate. The paper advances any learning rate scheduler once a cycle. Here the rate is constant, or falls
    linearly over a number of cycles. With a scheduler of your own, leave `cycles` out and read it at `cycle(step)`.

    The blocks are sorted first and then divided into groups, so the last group may be smaller. Parameters outside of
    all blocks are always frozen.

    Args:
        blocks: selectors, in order from input to output.
        size: the number of blocks in a group; m in the paper.
        order: "bottom2up" (from input to output), "top2down" or "random".
        period: the number of steps in a turn; 1 in the paper.
        cycles: the number of cycles over which the learning rate falls to 0; by default the rate is constant.
        seed: the seed of the random order.

    Raises:
        ScheduleError: there is no block; the size, the period or the cycles are below 1; or the order is unknown.

    Example:
        >>> schedule = HiFT(["embed", "a", "b", "head"], size=2, order="top2down", cycles=4)
        >>> [(phase.frozen, phase.rates) for _, phase in schedule.changes(3)]
        [(('**', '!head', '!b'), ()), (('**', '!a', '!embed'), ()), (('**', '!head', '!b'), (('**', 0.75),))]
    """

    blocks: Sequence[str]
    size: int = 1
    order: str = "bottom2up"
    period: int = 1
    cycles: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", blocks("HiFT", "blocks", self.blocks))
        object.__setattr__(self, "size", whole("HiFT", "size", self.size, least=1))
        choice("HiFT", "order", self.order, ORDERS)
        object.__setattr__(self, "period", whole("HiFT", "period", self.period, least=1))
        if self.cycles is not None:
            object.__setattr__(self, "cycles", whole("HiFT", "cycles", self.cycles, least=1))
        object.__setattr__(self, "seed", whole("HiFT", "seed", self.seed, least=None))

    @property
    def parts(self) -> Sequence[str]:
        """The blocks."""
        return self.blocks

    @property
    def groups(self) -> int:
        """The number of groups, and of turns in a cycle; k in the paper."""
        return -(-len(self.blocks) // self.size)

    def cycle(self, step: int) -> int:
        """Returns the number of completed cycles at a step; a learning rate scheduler takes it as its step."""
        return whole("HiFT.cycle", "step", step) // (self.period * self.groups)

    def _at(self, step: int) -> Phase:
        place = step // self.period % self.groups
        group = self._ordered()[place * self.size : (place + 1) * self.size]
        return Phase(all_but(group), name=f"group {place + 1} of {self.groups}", rates=self._rates(step))

    def _ordered(self) -> list[str]:
        if self.order == "random":
            return [self.blocks[place] for place in shuffled(len(self.blocks), self.seed, 0)]
        return list(self.blocks if self.order == "bottom2up" else reversed(self.blocks))

    def _rates(self, step: int) -> tuple[tuple[str, float], ...]:
        if self.cycles is None or not self.cycle(step):
            return ()
        return (("**", max(0, self.cycles - self.cycle(step)) / self.cycles),)

    def _boundary(self, step: int) -> int | None:
        if self.groups > 1 or (self.cycles is not None and self.cycle(step) < self.cycles):
            return (step // self.period + 1) * self.period
        return None
