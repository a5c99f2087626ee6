"""Plateau: the next phase starts when an observed number stops improving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from frostline._core.errors import ScheduleError
from frostline.schedules.arguments import choice, number, whole
from frostline.schedules.phase import Phase
from frostline.schedules.policy import Policy, State, observed

MODES = ("min", "max")
_FIX = 'Write Plateau([Phase(["**", "!head"]), Phase()], patience=3).'


@final
@dataclass(frozen=True, repr=False)
class Plateau(Policy):
    """Phases in order; each ends after `patience` observations in which the watched number has not improved.

    Source: the rule of early stopping, as in Prechelt, "Early Stopping - But When?", 1998; here it starts the next
    phase instead of stopping the run. The best weights are not restored, and each phase has its own best number.

    Args:
        phases: the phases; the last one has no end.
        patience: the number of observations without improvement after which a phase ends.
        delta: how far a number must be below the best one, or above it, to count as an improvement.
        watch: the name of the watched number.
        mode: "min" if a lower number is better, as of a loss, and "max" if a higher one is, as of an accuracy.
        longest: the number of observations after which a phase ends even if the number still improves; None for no
            such end.

    Raises:
        ScheduleError: there is no phase, the patience or `longest` is below 1, or the mode is unknown.

    Example:
        >>> policy = Plateau([Phase(["**", "!head"], name="probe"), Phase(name="all")], patience=2)
        >>> state = policy.init()
        >>> for loss in (1.0, 0.5, 0.6, 0.5):
        ...     state, phase = policy.update(state, {"loss": loss})
        ...     print(phase.name, state)
        probe {'place': 0, 'best': 1.0, 'waited': 0}
        probe {'place': 0, 'best': 0.5, 'waited': 0}
        probe {'place': 0, 'best': 0.5, 'waited': 1}
        all {'place': 1, 'best': None, 'waited': 0}
    """

    phases: Sequence[Phase]
    patience: int
    delta: float = 0.0
    watch: str = "loss"
    mode: str = "min"
    longest: int | None = None

    def __post_init__(self) -> None:
        phases = self.phases
        if not isinstance(phases, Sequence) or not all(isinstance(phase, Phase) for phase in phases):
            raise ScheduleError(f"Plateau({phases!r})", "is not a list of phases.", (), _FIX)
        if not phases:
            raise ScheduleError("Plateau([])", "has 0 phases, and needs 1 or more.", (), _FIX)
        object.__setattr__(self, "phases", tuple(phases))
        object.__setattr__(self, "patience", whole("Plateau", "patience", self.patience, least=1))
        object.__setattr__(self, "delta", number("Plateau", "delta", self.delta))
        if not isinstance(self.watch, str):
            fix = 'Write Plateau(..., watch="loss").'
            raise ScheduleError(f"Plateau(watch={self.watch!r})", "must be the name of a number.", (), fix)
        choice("Plateau", "mode", self.mode, MODES)
        if self.longest is not None:
            object.__setattr__(self, "longest", whole("Plateau", "longest", self.longest, least=1))

    @property
    def foreseen(self) -> Sequence[Phase]:
        """The phases."""
        return self.phases

    def init(self) -> State:
        """Returns the state of the first phase, without a best number."""
        first: State = {"place": 0, "best": None, "waited": 0}
        return first if self.longest is None else first | {"seen": 0}

    def _phase(self, state: Mapping[str, Any]) -> Phase:
        place: int = state["place"]
        if place < 0:
            raise IndexError(place)
        return self.phases[place]

    def _next(self, state: State, observation: Mapping[str, float]) -> State:
        value = observed(observation, self.watch)
        if state["place"] == len(self.phases) - 1:
            return state
        better = state["best"] is None or self._gain(value, state["best"]) > self.delta
        after = state | ({"best": value, "waited": 0} if better else {"waited": state["waited"] + 1})
        if self.longest is not None:
            after["seen"] += 1
        if after["waited"] < self.patience and (self.longest is None or after["seen"] < self.longest):
            return after
        return self.init() | {"place": state["place"] + 1}

    def _gain(self, value: float, best: float) -> float:
        return best - value if self.mode == "min" else value - best

    @classmethod
    def _parsed(cls, content: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(content["phases"], list):
            raise ScheduleError(f"Plateau(phases={content['phases']!r})", "is not a list of phases.", (), _FIX)
        return content | {"phases": [Phase.from_dict(phase) for phase in content["phases"]]}
