"""From the last block to the first, one more at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from frostline.schedules.arguments import blocks, number, whole
from frostline.schedules.phase import Phase
from frostline.schedules.schedule import Schedule


@final
@dataclass(frozen=True, repr=False)
class ULMFiT(Schedule):
    """The last block trains first; then, period by period, the next one below it as well, until all train.

    Source: Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification",
    https://arxiv.org/abs/1801.06146: gradual thawing by one layer an epoch, and discriminative fine-tuning, in which a
    layer learns at the rate of the one above it divided by 2.6. The slanted triangular learning rate of the paper is
    not part of this schedule: it is one for all layers, and a scheduler of the optimizer's.

    What no block names trains from the beginning, at the full rate.

    Args:
        blocks: selectors, in order from input to output.
        period: how many steps until the next block thaws; an epoch in the paper.
        decay: how many times slower a block learns than the one above it; 1 for one rate.

    Raises:
        ScheduleError: no block, a period below 1, or a decay below 1.

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

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", blocks("ULMFiT", "blocks", self.blocks))
        object.__setattr__(self, "period", whole("ULMFiT", "period", self.period, least=1))
        object.__setattr__(self, "decay", number("ULMFiT", "decay", self.decay, least=1.0))

    @property
    def parts(self) -> Sequence[str]:
        """The blocks."""
        return self.blocks

    def _at(self, step: int) -> Phase:
        count = len(self.blocks)
        frozen = max(0, count - 1 - step // self.period)
        factors = [(self.blocks[place], self.decay ** (place + 1 - count)) for place in range(frozen, count)]
        rates = tuple((block, factor) for block, factor in factors if factor != 1.0)
        return Phase(self.blocks[:frozen], name=f"{count - frozen} of {count} blocks", rates=rates)

    def _boundary(self, step: int) -> int | None:
        turn = step // self.period + 1
        return turn * self.period if turn < len(self.blocks) else None
