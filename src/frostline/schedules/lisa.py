"""A few blocks at random, others each period."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from frostline._core.errors import ScheduleError
from frostline.schedules.arguments import any_whole, blocks, whole
from frostline.schedules.order import shuffled
from frostline.schedules.phase import Phase, all_but
from frostline.schedules.schedule import Schedule


@final
@dataclass(frozen=True, repr=False)
class LISA(Schedule):
    """In each period `sampled` blocks train, drawn again, and some always; the rest is frozen.

    Source: Pan et al., "LISA: Layerwise Importance Sampling for Memory-Efficient Large Language Model Fine-Tuning",
    https://arxiv.org/abs/2403.17919, algorithm 1: the embedding and the head always train, and of the layers between
    them gamma are drawn, each with the same chance, every K steps. The draw here depends on the seed and the number of
    the period alone, not on a generator that goes on from draw to draw.

    Args:
        blocks: selectors of what is drawn from, in order from input to output.
        sampled: how many train at a time; gamma in the paper.
        period: how many steps until the next draw; K in the paper.
        always: selectors of what trains all the time; the embedding and the head in the paper. What is named neither
            here nor in `blocks`, a last norm for example, is frozen all the time.
        seed: another one gives other draws.

    Raises:
        ScheduleError: no block, more to draw than there are, or a period below 1.

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
        object.__setattr__(self, "seed", any_whole("LISA", "seed", self.seed))
        if self.sampled > len(self.blocks):
            problem = f"draws {self.sampled} of {len(self.blocks)} blocks."
            found = tuple(f"  {block}" for block in self.blocks[:5])
            fix = f"Write LISA(..., sampled={len(self.blocks)}) or less."
            raise ScheduleError(f"LISA(sampled={self.sampled})", problem, found, fix)

    @property
    def parts(self) -> Sequence[str]:
        """What always trains, then the blocks."""
        return (*self.always, *self.blocks)

    def _at(self, step: int) -> Phase:
        order = shuffled(len(self.blocks), self.seed, step // self.period)
        drawn = [self.blocks[place] for place in sorted(order[: self.sampled])]
        return Phase(all_but([*self.always, *drawn]), name=", ".join(drawn))

    def _boundary(self, step: int) -> int | None:
        return None if self.sampled == len(self.blocks) else (step // self.period + 1) * self.period
