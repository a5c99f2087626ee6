"""Egeria: the first trainable block freezes when its plasticity has become flat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from frostline.schedules.arguments import blocks, number, whole
from frostline.schedules.phase import Phase
from frostline.schedules.policy import Policy, State, front, observed


@final
@dataclass(frozen=True, repr=False)
class Egeria(Policy):
    """Blocks freeze one by one from the input on when their plasticity is flat; a much lower rate thaws them all.

    Source: Wang et al., "Egeria: Efficient DNN Training with Knowledge-Guided Layer Freezing", EuroSys 2023,
    https://arxiv.org/abs/2201.06227. The plasticity of a block is the similarity-preserving loss between its
    activations and those of a reference model, a quantized snapshot. A moving average smooths it, and the slope of a
    line through the last averages is compared with a tolerance. When the learning rate has fallen to a tenth of its
    value at the first freezing, all blocks train again.

    An observation holds the plasticity of the first trainable block, by the name of the block; the policy ignores the
    values of other blocks, as the paper does. The caller computes the plasticity and keeps the reference model. The
    tolerance is relative here, a share of the steepest slope that the block has had, so it does not depend on the scale
    of the plasticity. The last block never freezes. The policy does not cache activations of frozen blocks.

    Args:
        blocks: selectors, in order from input to output.
        window: the number of observations in an average, and of averages in a slope.
        patience: the number of consecutive flat slopes after which a block freezes.
        tolerance: the share of its steepest slope up to which the slope of a block counts as flat.
        rate: the name of the learning rate in an observation; without it, nothing ever thaws.

    Raises:
        ScheduleError: there is no block, the window is below 2, the patience is below 1, or the tolerance is not
            between 0 and 1.

    Example:
        >>> policy = Egeria(["a", "b"], window=2, patience=1)
        >>> state = policy.init()
        >>> for plasticity in (8.0, 4.0, 2.0, 2.0, 2.0):
        ...     state, phase = policy.update(state, {"a": plasticity, "learning_rate": 0.1})
        ...     print(phase.frozen, state["averages"], state["steepest"])
        () [8.0] 0.0
        () [8.0, 6.0] 2.0
        () [6.0, 3.0] 3.0
        () [3.0, 2.0] 3.0
        ('a',) [] 0.0
        >>> policy.update(state, {"b": 1.0, "learning_rate": 0.01})[1].frozen
        ()
    """

    blocks: Sequence[str]
    window: int = 10
    patience: int = 3
    tolerance: float = 0.2
    rate: str = "learning_rate"

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", blocks("Egeria", "blocks", self.blocks))
        object.__setattr__(self, "window", whole("Egeria", "window", self.window, least=2))
        object.__setattr__(self, "patience", whole("Egeria", "patience", self.patience, least=1))
        object.__setattr__(self, "tolerance", number("Egeria", "tolerance", self.tolerance, most=1.0))

    @property
    def foreseen(self) -> Sequence[Phase]:
        """A phase for each number of frozen blocks, and one that names the last block."""
        return (*(front(self.blocks, frozen) for frozen in range(len(self.blocks))), Phase(self.blocks[-1:]))

    def init(self) -> State:
        """Returns the state in which all blocks train and nothing has been observed."""
        return {"frozen": 0, "rate": None, **_fresh()}

    def _phase(self, state: Mapping[str, Any]) -> Phase:
        return front(self.blocks, state["frozen"])

    def _next(self, state: State, observation: Mapping[str, float]) -> State:
        rate = observed(observation, self.rate) if self.rate in observation else None
        if rate is not None and state["rate"] is not None and _is_tenth(rate, state["rate"]):
            return self.init()
        if state["frozen"] == len(self.blocks) - 1:
            return state
        state = self._judged(state, observed(observation, self.blocks[state["frozen"]]))
        if state["flat"] < self.patience:
            return state
        first = rate if state["rate"] is None else state["rate"]
        return {"frozen": state["frozen"] + 1, "rate": first, **_fresh()}

    def _judged(self, state: State, plasticity: float) -> State:
        recent = [*state["recent"], plasticity][-self.window :]
        averages = [*state["averages"], sum(recent) / len(recent)][-self.window :]
        if len(averages) < self.window:
            return state | {"recent": recent, "averages": averages}
        slope = abs(_slope(averages))
        steepest = max(state["steepest"], slope)
        flat = state["flat"] + 1 if slope <= self.tolerance * steepest else 0
        return state | {"recent": recent, "averages": averages, "steepest": steepest, "flat": flat}


def _fresh() -> State:
    return {"recent": [], "averages": [], "steepest": 0.0, "flat": 0}


def _is_tenth(rate: float, first: float) -> bool:
    # In floating point 0.1 * 0.1 is slightly more than a tenth of 0.1.
    return rate <= first / 10 * (1 + 1e-9)


def _slope(values: Sequence[float]) -> float:
    """Returns the slope of the least-squares line through `values`, which are one step from each other."""
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    rise = sum((place - middle) * (value - mean) for place, value in enumerate(values))
    return rise / sum((place - middle) ** 2 for place in range(len(values)))
