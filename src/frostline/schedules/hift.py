"""One group of blocks a step, in an order that stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from frostline.schedules.arguments import any_whole, blocks, choice, whole
from frostline.schedules.order import shuffled
from frostline.schedules.phase import Phase, all_but
from frostline.schedules.schedule import Schedule

ORDERS = ("bottom2up", "top2down", "random")


@final
@dataclass(frozen=True, repr=False)
class HiFT(Schedule):
    """Groups of blocks take turns; when each has had one, a cycle is over, and only then the learning rate changes.

    Source: Liu et al., "HiFT: A Hierarchical Full Parameter Fine-Tuning Strategy", https://arxiv.org/abs/2401.15207.
    As there, a random order is drawn once and kept, and the learning rate is held within a cycle, so that all groups
    get the same one. There any scheduler of the learning rate is advanced once a cycle; here the rate may stay, or fall
    linearly over a number of cycles. With a scheduler of your own leave `cycles` out, and read it at `cycle(step)`.

    The blocks are put in order first and then cut into groups, so the last group may be smaller. What no block names is
    frozen all the time.

    Args:
        blocks: selectors, in order from input to output.
        size: how many blocks a group has; m in the paper.
        order: "bottom2up" (from input to output), "top2down" or "random".
        period: how many steps a turn takes; 1 in the paper.
        cycles: over how many cycles the learning rate falls to 0; without it the rate stays.
        seed: another one gives another random order.

    Raises:
        ScheduleError: no block, a size, a period or cycles below 1, or an order that there is not.

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
        object.__setattr__(self, "seed", any_whole("HiFT", "seed", self.seed))

    @property
    def parts(self) -> Sequence[str]:
        """The blocks."""
        return self.blocks

    @property
    def groups(self) -> int:
        """How many groups there are, and turns in a cycle; k in the paper."""
        return -(-len(self.blocks) // self.size)

    def cycle(self, step: int) -> int:
        """How many cycles are over at a step: what a scheduler of the learning rate should take for its step."""
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
