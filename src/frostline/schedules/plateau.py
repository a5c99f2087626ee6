"""On to the next phase when a number stops getting smaller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from frostline._core.errors import ScheduleError
from frostline.schedules.arguments import number, whole
from frostline.schedules.phase import Phase
from frostline.schedules.policy import Policy, State, observed

_FIX = 'Write Plateau([Phase(["**", "!head"]), Phase()], patience=3).'


@final
@dataclass(frozen=True, repr=False)
class Plateau(Policy):
    """Phases one after another, each until the watched number has not become smaller for `patience` observations.

    Source: the rule of early stopping, as in Prechelt, "Early Stopping - But When?", 1998, used to go on instead of to
    stop. The weights are not set back to the best ones, and each phase judges by its own best number.

    Args:
        phases: what to go through; the last one stays.
        patience: how many observations without a new best number a phase endures.
        delta: by how much a number must be below the best one to count.
        watch: the name of the number.

    Raises:
        ScheduleError: no phase, or a patience below 1.

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

    def __post_init__(self) -> None:
        phases = self.phases
        if not isinstance(phases, Sequence) or not all(isinstance(phase, Phase) for phase in phases):
            raise ScheduleError(f"Plateau({phases!r})", "is not made of a list of phases.", (), _FIX)
        if not phases:
            raise ScheduleError("Plateau([])", "has 0 phases, and needs 1 or more.", (), _FIX)
        object.__setattr__(self, "phases", tuple(phases))
        object.__setattr__(self, "patience", whole("Plateau", "patience", self.patience, least=1))
        object.__setattr__(self, "delta", number("Plateau", "delta", self.delta))
        if not isinstance(self.watch, str):
            fix = 'Write Plateau(..., watch="loss").'
            raise ScheduleError(f"Plateau(watch={self.watch!r})", "is not the name of a number.", (), fix)

    @property
    def foreseen(self) -> Sequence[Phase]:
        """The phases."""
        return self.phases

    def init(self) -> State:
        """The first phase, and no number yet."""
        return {"place": 0, "best": None, "waited": 0}

    def _phase(self, state: Mapping[str, Any]) -> Phase:
        place: int = state["place"]
        if place < 0:
            raise IndexError(place)
        return self.phases[place]

    def _next(self, state: State, observation: Mapping[str, float]) -> State:
        value = observed(observation, self.watch)
        if state["place"] == len(self.phases) - 1:
            return state
        if state["best"] is None or value < state["best"] - self.delta:
            return state | {"best": value, "waited": 0}
        if state["waited"] + 1 < self.patience:
            return state | {"waited": state["waited"] + 1}
        return {"place": state["place"] + 1, "best": None, "waited": 0}

    @classmethod
    def _parsed(cls, content: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(content["phases"], list):
            raise ScheduleError(f"Plateau(phases={content['phases']!r})", "is not made of a list of phases.", (), _FIX)
        return content | {"phases": [Phase.from_dict(phase) for phase in content["phases"]]}
