"""The first block that trains freezes when its plasticity has become flat."""

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
    """Blocks freeze one by one from the input on, each when its plasticity is flat; a much lower rate thaws them all.

    Source: Wang et al., "Egeria: Efficient DNN Training with Knowledge-Guided Layer Freezing", EuroSys 2023,
    https://arxiv.org/abs/2201.06227. The plasticity of a block is the similarity-preserving loss between its
    activations and those of a reference model, a quantized snapshot; it is smoothed by a moving average, and the slope
    of a line through the last averages is compared with a tolerance. When the learning rate has fallen to a tenth of
    what it was at the first freezing, all blocks train again.

    Observed is the plasticity of the first block that trains, by the name of the block; those of others may be there
    and are not looked at, as in the paper. Computing it, and keeping the reference model, is up to the caller. The
    tolerance here is relative: a share of the steepest slope that this block has had, so that it needs no unit. The
    last block never freezes. It does not store activations of frozen blocks.

    Args:
        blocks: selectors, in order from input to output.
        window: how many observations are averaged, and how many averages a line is laid through.
        patience: how many flat slopes one after another it takes.
        tolerance: up to which share of its steepest slope a block's slope is flat.
        rate: the name under which the learning rate is observed; where it is not, nothing ever thaws.

    Raises:
        ScheduleError: no block, a window below 2, a patience below 1, or a tolerance that is not from 0 to 1.

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
        """Each number of frozen blocks, and the last block."""
        return (*(front(self.blocks, frozen) for frozen in range(len(self.blocks))), Phase(self.blocks[-1:]))

    def init(self) -> State:
        """All blocks train, and nothing was observed."""
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
    # 0.1 * 0.1 is a little more than a tenth of 0.1.
    return rate <= first / 10 * (1 + 1e-9)


def _slope(values: Sequence[float]) -> float:
    """The slope of the line that is closest to `values`, one step apart, by least squares."""
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    rise = sum((place - middle) * (value - mean) for place, value in enumerate(values))
    return rise / sum((place - middle) ** 2 for place in range(len(values)))
