"""LISA: a few random blocks train, drawn again in each period."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from frostline._core.errors import ScheduleError
from frostline.schedules.arguments import blocks, whole
from frostline.schedules.order import shuffled
from frostline.schedules.phase import Phase, all_but
from frostline.schedules.schedule import Schedule


@final
@dataclass(frozen=True, repr=False)
class LISA(Schedule):
    """In each period a new random sample of blocks trains, and some parts always train; the rest is frozen.

    Source: Pan et al., "LISA: Layerwise Importance Sampling for Memory-Efficient Large Language Model Fine-Tuning",
    https://arxiv.org/abs/2403.17919, algorithm 1: the embedding and the head always train, and every K steps gamma of
    the layers between them are drawn with equal probability. Here a draw depends only on the seed and the number of the
    period, and not on earlier draws.

    Args:
        blocks: selectors of the blocks to draw from, in order from input to output.
        sampled: the number of blocks that train at a time; gamma in the paper.
        period: the number of steps until the next draw; K in the paper.
        always: selectors of parameters that always train; the embedding and the head in the paper. Parameters outside
            of `always` and `blocks`, a last norm for example, are always frozen.
        seed: the seed of the draws.

    Raises:
        ScheduleError: there is no block, `sampled` exceeds the number of blocks, or the period is below 1.

    Example:
        >>> schedule = LISA([f"layers[{i}]" for i in range(8)], sampled=2, period=20, always=["embed", "head"])
        >>> schedule.at(0).frozen
        ('**', '!embed', '!head', '!layers[0]', '!layers[5]')
        >>> [(step, phase.name) for step, phase in schedule.changes(60)]
        [(0, 'layers[0], layers[5]'), (20, 'layers[0], layers[4]'), (40, 'layers[0], layers[1]')]
    """

    blocks: Sequence[str]
    sampled: int
    period: int
    always: Sequence[str] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", blocks("LISA", "blocks", self.blocks))
        object.__setattr__(self, "sampled", whole("LISA", "sampled", self.sampled, least=1))
        object.__setattr__(self, "period", whole("LISA", "period", self.period, least=1))
        object.__setattr__(self, "always", blocks("LISA", "always", self.always, least=0))
        object.__setattr__(self, "seed", whole("LISA", "seed", self.seed, least=None))
        if self.sampled > len(self.blocks):
            problem = f"draws {self.sampled} of {len(self.blocks)} blocks."
            found = tuple(f"  {block}" for block in self.blocks[:5])
            fix = f"Write LISA(..., sampled={len(self.blocks)}) or less."
            raise ScheduleError(f"LISA(sampled={self.sampled})", problem, found, fix)

    @property
    def parts(self) -> Sequence[str]:
        """The parts that always train, then the blocks."""
        return (*self.always, *self.blocks)

    def _at(self, step: int) -> Phase:
        order = shuffled(len(self.blocks), self.seed, step // self.period)
        drawn = [self.blocks[place] for place in sorted(order[: self.sampled])]
        return Phase(all_but([*self.always, *drawn]), name=", ".join(drawn))

    def _boundary(self, step: int) -> int | None:
        return None if self.sampled == len(self.blocks) else (step // self.period + 1) * self.period
