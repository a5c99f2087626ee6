"""Policies: they choose the next phase from signals of the run, such as the loss."""

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
    """A pure function of a state and an observation: the same observations always give the same phases.

    The state is plain data for JSON and belongs in the checkpoint. The caller of `update` decides how often to observe.
    Every rank must pass the same numbers. A driver in PyTorch passes their mean over the ranks; elsewhere average them
    first.

    To write your own policy, define a frozen dataclass with `init`, which returns the first state, `_phase`, which
    returns the phase of a state, and `_next`, which returns the next state.

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
        """Returns the state before the first observation."""

    @abstractmethod
    def _phase(self, state: Mapping[str, Any]) -> Phase: ...

    @abstractmethod
    def _next(self, state: State, observation: Mapping[str, float]) -> State: ...

    @property
    def foreseen(self) -> Sequence[Phase]:
        """The phases that a run may reach, as far as is known; a model must have all parameters that they name."""
        return (self._phase(self.init()),)

    def phase(self, state: Mapping[str, Any]) -> Phase:
        """Returns the phase of a state, with which a run starts or continues after a restart.

        Raises:
            ScheduleError: the state does not belong to this policy.
        """
        if not _fits(state, self.init()):
            raise self._refused(state)
        try:
            return self._phase(state)
        except LookupError as error:
            raise self._refused(state) from error

    def update(self, state: Mapping[str, Any], observation: Mapping[str, float]) -> tuple[State, Phase]:
        """Returns the state after an observation, and its phase; it does not change `state`.

        Args:
            state: the state that `init` or the last `update` returned, also after a trip through JSON.
            observation: numbers by name. The policy ignores names that it does not know.

        Raises:
            ScheduleError: the state does not belong to this policy, or a number is missing or not finite.
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
        fix = f"Start with {name}(...).init(), or load the state that was saved with this policy."
        return ScheduleError(f"{name}(...)", "got a state of another policy.", found, fix)


def _fits(state: object, example: State) -> bool:
    if not isinstance(state, Mapping) or set(state) != set(example):
        return False
    return all(example[name] is None or _is_like(state[name], example[name]) for name in example)


def _is_like(value: object, example: object) -> bool:
    # JSON may have written 0.0 as 0.
    return isinstance(value, int if isinstance(example, float) else type(example)) or type(value) is type(example)


def observed(observation: Mapping[str, float], name: str) -> float:
    """Returns a number of an observation.

    Raises:
        ScheduleError: it is missing, or not a finite number.
    """
    if name not in observation:
        names = sorted(map(str, observation))
        near = closest(name, names) or names[:5]
        found = ("Observed:", *(f"  {each}" for each in near)) if near else ()
        fix = f"Pass it: policy.update(state, {{{name!r}: ...}})."
        raise ScheduleError(f"observation[{name!r}]", f"is missing among {len(observation)} numbers.", found, fix)
    value = observation[name]
    if not isinstance(value, Real) or not isfinite(value):
        fix = "Skip steps whose loss is not finite, and pass plain numbers: loss.item()."
        raise ScheduleError(f"observation[{name!r}]", f"is {value!r}, and must be a finite number.", (), fix)
    return float(value)


def front(blocks: Sequence[str], frozen: int) -> Phase:
    """Returns the phase in which the first `frozen` blocks are frozen; at least one block must train.

    Raises:
        LookupError: `frozen` is negative, or not below the number of blocks.
    """
    if not 0 <= frozen < len(blocks):
        raise IndexError(frozen)
    return Phase(blocks[:frozen], name=f"{frozen} of {len(blocks)} blocks frozen")
