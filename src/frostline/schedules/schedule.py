"""Schedules: the phase of every step of a run, known before the run starts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import ClassVar

from frostline._core.errors import ScheduleError
from frostline.schedules.arguments import whole
from frostline.schedules.phase import Phase
from frostline.schedules.record import Record

_MOST_SHOWN = 24
# How many boundaries are looked at for another phase: a schedule may have one at each step, and never change again.
_MOST_ASKED = 10_000


class Schedule(Record):
    """A pure function from a step to a phase, so it gives the same phases on every rank and after every restart.

    To write your own schedule, define a frozen dataclass with `_at`, which returns the phase of a step, `_boundary`,
    which returns the next step at which the phase may change, and `parts`, the selectors of the parts of a model that
    it treats differently. Its fields are saved.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True, repr=False)
        ... class EveryOther(Schedule):
        ...     part: str
        ...
        ...     @property
        ...     def parts(self):
        ...         return (self.part,)
        ...
        ...     def _at(self, step):
        ...         return Phase([self.part] if step % 2 else [])
        ...
        ...     def _boundary(self, step):
        ...         return step + 1
        >>> schedule = EveryOther("body")
        >>> [(step, phase.frozen) for step, phase in schedule.changes(3)]
        [(0, ()), (1, ('body',)), (2, ())]
        >>> Schedule.from_json(schedule.to_json())
        EveryOther(part='body')
    """

    noun: ClassVar[str] = "schedule"

    @property
    @abstractmethod
    def parts(self) -> Sequence[str]:
        """The selectors of the parts that the schedule treats differently, from the input of a model to its output."""

    @property
    def rest_unsaid(self) -> bool:
        """Whether the schedule does not say what happens to parameters that none of its parts names."""
        return False

    @abstractmethod
    def _at(self, step: int) -> Phase: ...

    @abstractmethod
    def _boundary(self, step: int) -> int | None:
        """Returns the first step after `step` at which the phase may change, or None if it cannot."""

    def at(self, step: int) -> Phase:
        """Returns the phase of a training step; the first step is 0.

        Raises:
            ScheduleError: `step` is not an integer, or is below 0.
        """
        return self._at(whole(f"{type(self).__name__}.at", "step", step))

    def next_change(self, step: int) -> int | None:
        """The first step after `step` with another phase; None if the next 10,000 boundaries bring none.

        Raises:
            ScheduleError: `step` is not an integer, or is below 0.
        """
        now = self.at(step)
        later = self.boundary(step)
        for _ in range(_MOST_ASKED):
            if later is None or self._at(later) != now:
                return later
            later = self.boundary(later)
        return None

    def boundary(self, step: int) -> int | None:
        """The first step after `step` at which the phase may be another one; None if it stays for good.

        Raises:
            ScheduleError: a schedule of your own names a step that is not a later one.
        """
        later = self._boundary(step)
        if later is not None and later <= step:
            problem = f"gave step {later}, and must give a step after {step}, or None."
            fix = "Return the next step at which the phase may change: return step + 1."
            raise ScheduleError(f"{type(self).__name__}._boundary({step})", problem, (), fix)
        return later

    def changes(self, stop: int) -> Iterator[tuple[int, Phase]]:
        """Yields each step below `stop` at which a new phase starts, with the phase; the first step is 0.

        Raises:
            ScheduleError: `stop` is not an integer, or is below 0.
        """
        whole(f"{type(self).__name__}.changes", "stop", stop)
        step: int | None = 0
        before: Phase | None = None
        while step is not None and step < stop:
            phase = self._at(step)
            if phase != before:
                yield step, phase
            step, before = self.boundary(step), phase

    @property
    def foreseen(self) -> Sequence[Phase]:
        """The phases of a run, each once, and a phase for each part; a model must have all parameters that they name.

        If a run has many phases, these are the first ones and a sample over the whole `horizon`.
        """
        first = (phase for _, phase in islice(self.changes(self.horizon + 1), _MOST_SHOWN))
        later = (self._at(step) for step in range(0, self.horizon + 1, self.horizon // _MOST_SHOWN + 1))
        return tuple(dict.fromkeys([*(Phase([part]) for part in self.parts), *first, *later]))

    @property
    def horizon(self) -> int:
        """The number of steps that a chart shows by default: enough to see the pattern of the schedule."""
        steps = [0]
        while len(steps) <= _MOST_SHOWN and (step := self.next_change(steps[-1])) is not None:
            steps.append(step)
        if len(steps) > _MOST_SHOWN:
            return steps[-1]
        return steps[-1] + (steps[-1] - steps[-2] if len(steps) > 1 else 1)
