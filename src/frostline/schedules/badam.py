"""BAdam: one block trains at a time, each once in an epoch of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from frostline.schedules.arguments import blocks, choice, whole
from frostline.schedules.order import shuffled
from frostline.schedules.phase import Phase, all_but
from frostline.schedules.schedule import Schedule

ORDERS = ("random", "ascending", "descending")


@final
@dataclass(frozen=True, repr=False)
class BAdam(Schedule):
    """Block coordinate descent: one block trains for a period, then the next; each has one turn in an epoch of blocks.

    Source: Luo, Yu and Li, "BAdam: A Memory Efficient Full Parameter Optimization Method for Large Language Models",
    https://arxiv.org/abs/2404.02827. The schedule takes the order of the blocks from the paper. There the optimizer
    state of a block is dropped when its turn ends and starts from zero in its next turn; here the driver decides about
    that. A random order is drawn again for each epoch of blocks, from the seed and the number of the epoch alone.

    Parameters outside of all blocks are always frozen, except for `always`, which the authors' code has and the paper
    does not.

    Args:
        blocks: selectors, in order from input to output.
        period: the number of steps that a block trains; K in the paper.
        order: "random" (reshuffled each epoch), "ascending" (from input to output) or "descending".
        always: selectors of parameters that always train.
        seed: the seed of the random orders.

    Raises:
        ScheduleError: there is no block, the period is below 1, or the order is unknown.

    Example:
        >>> schedule = BAdam(["a", "b", "c"], period=50, order="descending")
        >>> [(step, phase.name) for step, phase in schedule.changes(200)]
        [(0, 'c'), (50, 'b'), (100, 'a'), (150, 'c')]
    """

    blocks: Sequence[str]
    period: int
    order: str = "random"
    always: Sequence[str] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", blocks("BAdam", "blocks", self.blocks))
        object.__setattr__(self, "period", whole("BAdam", "period", self.period, least=1))
        choice("BAdam", "order", self.order, ORDERS)
        object.__setattr__(self, "always", blocks("BAdam", "always", self.always, least=0))
        object.__setattr__(self, "seed", whole("BAdam", "seed", self.seed, least=None))

    @property
    def parts(self) -> Sequence[str]:
        """The parts that always train, then the blocks."""
        return (*self.always, *self.blocks)

    def _at(self, step: int) -> Phase:
        epoch, turn = divmod(step // self.period, len(self.blocks))
        block = self.blocks[self._order(epoch)[turn]]
        return Phase(all_but([*self.always, block]), name=block)

    def _order(self, epoch: int) -> Sequence[int]:
        count = len(self.blocks)
        if self.order == "random":
            return shuffled(count, self.seed, epoch)
        return range(count) if self.order == "ascending" else range(count - 1, -1, -1)

    def _boundary(self, step: int) -> int | None:
        return None if len(self.blocks) == 1 else (step // self.period + 1) * self.period
