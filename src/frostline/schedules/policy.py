"""What is frozen next, judged by what a run shows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from copy import deepcopy
from math import isfinite
from numbers import Real
from typing import Any, ClassVar

from frostline._core.errors import ScheduleError
from frostline._core.selecting.nearby import closest
from frostline.schedules.phase import Phase
from frostline.schedules.record import Record

State = dict[str, Any]


class Policy(Record):
    """Pure functions of a state and an observation: the same observations always lead down the same path.

    The state is JSON-able and belongs into the checkpoint. Who calls `update` decides how often; every rank must hand
    it the same numbers, so average them over the ranks first.

    A policy of your own is a frozen dataclass that says with what state it begins, which `_phase` a state means, and
    which state comes `_next`.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True, repr=False)
        ... class UntilGood(Policy):
        ...     loss: float
        ...
        ...     def init(self):
        ...         return {"good": False}
        ...
        ...     def _phase(self, state):
        ...         return Phase(["body"] if state["good"] else [])
        ...
        ...     def _next(self, state, observation):
        ...         return {"good": state["good"] or observed(observation, "loss") < self.loss}
        >>> policy = UntilGood(0.5)
        >>> policy.update(policy.init(), {"loss": 0.4})
        ({'good': True}, Phase(frozen=('body',)))
    """

    noun: ClassVar[str] = "policy"

    @abstractmethod
    def init(self) -> State:
        """The state before anything was observed."""

    @abstractmethod
    def _phase(self, state: Mapping[str, Any]) -> Phase: ...

    @abstractmethod
    def _next(self, state: State, observation: Mapping[str, float]) -> State: ...

    @property
    def foreseen(self) -> Sequence[Phase]:
        """Phases that a run may come to, as far as is known: what is named in them, a model must have."""
        return (self._phase(self.init()),)

    def phase(self, state: Mapping[str, Any]) -> Phase:
        """The phase that a state means: what a run begins with, or goes on with after a restart.

        Raises:
            ScheduleError: the state is not one of this policy.
        """
        if not _fits(state, self.init()):
            raise self._refused(state)
        try:
            return self._phase(state)
        except LookupError as error:
            raise self._refused(state) from error

    def update(self, state: Mapping[str, Any], observation: Mapping[str, float]) -> tuple[State, Phase]:
        """The state after an observation, and its phase; `state` itself stays what it is.

        Args:
            state: what `init` or the last `update` returned, as it is or through JSON.
            observation: numbers by name. Names that the policy does not look at may be there.

        Raises:
            ScheduleError: the state is not one of this policy, or a number is missing or not finite.
        """
        self.phase(state)
        try:
            after = self._next(deepcopy(dict(state)), observation)
        except LookupError as error:
            raise self._refused(state) from error
        return after, self._phase(after)

    def _refused(self, state: object) -> ScheduleError:
        name = type(self).__name__
        found = (f"  given: {state!r}", f"  for example: {self.init()!r}")
        fix = f"Begin with {name}(...).init(), or load the state that was saved with this policy."
        return ScheduleError(f"{name}(...)", "got a state of another policy.", found, fix)


def _fits(state: object, example: State) -> bool:
    if not isinstance(state, Mapping) or set(state) != set(example):
        return False
    return all(example[name] is None or _is_like(state[name], example[name]) for name in example)


def _is_like(value: object, example: object) -> bool:
    # JSON may have written 0.0 as 0.
    return isinstance(value, int if isinstance(example, float) else type(example)) or type(value) is type(example)


def observed(observation: Mapping[str, float], name: str) -> float:
    """A number of an observation.

    Raises:
        ScheduleError: it is missing, no number, or not finite.
    """
    if name not in observation:
        names = sorted(map(str, observation))
        near = closest(name, names) or names[:5]
        found = ("Observed:", *(f"  {each}" for each in near)) if near else ()
        fix = f"Pass it: policy.update(state, {{{name!r}: ...}})."
        raise ScheduleError(f"observation[{name!r}]", f"is missing among {len(observation)} numbers.", found, fix)
    value = observation[name]
    if not isinstance(value, Real) or not isfinite(value):
        fix = "Leave out steps that went wrong, and hand over plain numbers: loss.item()."
        raise ScheduleError(f"observation[{name!r}]", f"is {value!r}, and must be a finite number.", (), fix)
    return float(value)


def front(blocks: Sequence[str], frozen: int) -> Phase:
    """The phase in which the first `frozen` of some blocks are frozen; not all of them.

    Raises:
        LookupError: there are not that many.
    """
    if not 0 <= frozen < len(blocks):
        raise IndexError(frozen)
    return Phase(blocks[:frozen], name=f"{frozen} of {len(blocks)} blocks frozen")
