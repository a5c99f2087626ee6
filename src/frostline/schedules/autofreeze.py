"""Blocks freeze from the input on when their gradients stop changing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, final

from frostline.schedules.arguments import blocks, number
from frostline.schedules.phase import Phase
from frostline.schedules.policy import Policy, State, front, observed


@final
@dataclass(frozen=True, repr=False)
class AutoFreeze(Policy):
    """The first blocks freeze whose gradient norms change less than those of the others, and never thaw again.

    Source: Liu, Agarwal and Venkataraman, "AutoFreeze: Automatically Freezing Model Blocks to Accelerate Fine-tuning",
    https://arxiv.org/abs/2102.01386, the gradient norm test. From one observation to the next a norm n of a block
    changes by the share |n - before| / before; of the blocks that still train those freeze, from the input on, that
    come before the first one whose change is not below the percentile of all changes. The last block never freezes.

    The paper observes the norm of the gradient accumulated over an interval, twenty intervals a run. Here an
    observation is a number for each block that still trains, by the name of the block: that norm, or how far the
    weights of the block went since the last observation. It does not store activations of frozen blocks.

    Args:
        blocks: selectors, in order from input to output.
        percentile: of the changes, interpolated linearly; 50 is the median, as in the paper.

    Raises:
        ScheduleError: no block, or a percentile that is not from 0 to 100.

    Example:
        >>> policy = AutoFreeze(["a", "b", "c"])
        >>> state, phase = policy.update(policy.init(), {"a": 1.0, "b": 1.0, "c": 1.0})
        >>> state, phase = policy.update(state, {"a": 0.9, "b": 0.5, "c": 0.1})
        >>> phase.frozen, state
        (('a',), {'frozen': 1, 'norms': {'b': 0.5, 'c': 0.1}})
    """

    blocks: Sequence[str]
    percentile: float = 50.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", blocks("AutoFreeze", "blocks", self.blocks))
        object.__setattr__(self, "percentile", number("AutoFreeze", "percentile", self.percentile, most=100.0))

    @property
    def foreseen(self) -> Sequence[Phase]:
        """Each number of frozen blocks, and the last block."""
        return (*(front(self.blocks, frozen) for frozen in range(len(self.blocks))), Phase(self.blocks[-1:]))

    def init(self) -> State:
        """All blocks train, and nothing was observed."""
        return {"frozen": 0, "norms": {}}

    def _phase(self, state: Mapping[str, Any]) -> Phase:
        return front(self.blocks, state["frozen"])

    def _next(self, state: State, observation: Mapping[str, float]) -> State:
        norms = {block: observed(observation, block) for block in self.blocks[state["frozen"] :]}
        if not state["norms"]:
            return state | {"norms": norms}
        changes = [_change(state["norms"][block], norm) for block, norm in norms.items()]
        bar = _percentile(changes, self.percentile)
        count = next(place for place, change in enumerate(changes) if change >= bar)
        moving = dict(list(norms.items())[count:])
        return {"frozen": state["frozen"] + count, "norms": moving}


def _change(before: float, now: float) -> float:
    if not before:
        return inf if now else 0.0
    return abs(now - before) / abs(before)


def _percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    place, rest = divmod((len(ordered) - 1) * percent / 100, 1)
    low, high = ordered[int(place)], ordered[min(int(place) + 1, len(ordered) - 1)]
    # Two infinities have no difference.
    return low if low == high or not rest else low + (high - low) * rest
