"""ULMFiT: blocks thaw one by one, from the last to the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from frostline.schedules.arguments import RESTS, blocks, choice, number, whole
from frostline.schedules.phase import Phase, frozen_beside
from frostline.schedules.schedule import Schedule


@final
@dataclass(frozen=True, repr=False)
class ULMFiT(Schedule):
    """The last block trains first; after each period the block below it thaws as well, until all blocks train.

    Source: Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification",
    https://arxiv.org/abs/1801.06146: gradual unfreezing by one layer an epoch, and discriminative fine-tuning, in which
    the rate of a layer is the rate of the layer above it divided by 2.6. The slanted triangular learning rate of the
    paper is not part of this schedule, because it is the same for all layers: use a learning rate scheduler.

    Args:
        blocks: selectors, in order from input to output.
        period: the number of steps until the next block thaws; an epoch in the paper.
        decay: the ratio between the rate of a block and the rate of the block below it; 1 gives all the same rate.
        rest: what happens to parameters that no block names: "frozen" or "train", at the full rate. If it is left out,
            a driver refuses a model that has such parameters.

    Raises:
        ScheduleError: there is no block, the period is below 1, the decay is below 1, or `rest` is unknown.

    Example:
        >>> schedule = ULMFiT(["embed", "lstm", "head"], period=100, decay=2)
        >>> [(step, phase.frozen) for step, phase in schedule.changes(1000)]
        [(0, ('embed', 'lstm')), (100, ('embed',)), (200, ())]
        >>> schedule.at(200).rates
        (('embed', 0.25), ('lstm', 0.5))
    """

    blocks: Sequence[str]
    period: int
    decay: float = 2.6
    rest: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", blocks("ULMFiT", "blocks", self.blocks))
        object.__setattr__(self, "period", whole("ULMFiT", "period", self.period, least=1))
        object.__setattr__(self, "decay", number("ULMFiT", "decay", self.decay, least=1.0))
        if self.rest is not None:
            choice("ULMFiT", "rest", self.rest, RESTS)

    @property
    def parts(self) -> Sequence[str]:
        """The blocks."""
        return self.blocks

    @property
    def rest_unsaid(self) -> bool:
        """Whether `rest` was left out."""
        return self.rest is None

    def _at(self, step: int) -> Phase:
        count = len(self.blocks)
        frozen = max(0, count - 1 - step // self.period)
        factors = [(self.blocks[place], self.decay ** (place + 1 - count)) for place in range(frozen, count)]
        rates = tuple((block, factor) for block, factor in factors if factor != 1.0)
        still = frozen_beside(self.blocks[:frozen], self.blocks[frozen:], self.rest)
        return Phase(still, name=f"{count - frozen} of {count} blocks", rates=rates)

    def _boundary(self, step: int) -> int | None:
        turn = step // self.period + 1
        return turn * self.period if turn < len(self.blocks) else None
