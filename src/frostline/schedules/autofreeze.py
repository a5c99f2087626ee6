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
    """Blocks freeze from the input on while their gradient norms change less than those of later blocks.

    Source: Liu, Agarwal and Venkataraman, "AutoFreeze: Automatically Freezing Model Blocks to Accelerate Fine-tuning",
    https://arxiv.org/abs/2102.01386, the gradient norm test. From one observation to the next, the norm n of a block
    changes by ``abs(n - before) / before``. From the input on, the trainable blocks freeze up to the first one whose
    change reaches the percentile of all changes; that one stays trainable. A frozen block never thaws, and the last
    block never freezes.

    The paper observes the norm of the gradient accumulated over an interval, with twenty intervals in a run. Here an
    observation holds one number for each trainable block, by the name of the block: that norm, or the distance that the
    weights of the block have moved since the last observation. The policy does not cache activations of frozen blocks.

    Args:
        blocks: selectors, in order from input to output.
        percentile: the percentile of the changes, interpolated linearly; 50 is the median, as in the paper.

    Raises:
        ScheduleError: there is no block, or the percentile is not between 0 and 100.

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
        """A phase for each number of frozen blocks, and one that names the last block."""
        return (*(front(self.blocks, frozen) for frozen in range(len(self.blocks))), Phase(self.blocks[-1:]))

    def init(self) -> State:
        """Returns the state in which all blocks train and nothing has been observed."""
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
    # The difference of two infinities is not a number.
    return low if low == high or not rest else low + (high - low) * rest
