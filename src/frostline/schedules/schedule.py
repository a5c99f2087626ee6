"""What is frozen at each step of a run, known before it starts."""

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
    """A pure function of the step: equal by value, and the same on every rank and after every restart.

    A schedule of your own is a frozen dataclass with the phase `_at` a step, the next `_boundary` at which that phase
    may change, and the `parts` of a model that it treats differently. Its fields are written to a file.

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
        """Selectors of the parts that the schedule treats differently, from the input of the model to its output."""

    @abstractmethod
    def _at(self, step: int) -> Phase: ...

    @abstractmethod
    def _boundary(self, step: int) -> int | None:
        """The first step after `step` at which the phase may be another one; none if it stays for good."""

    def at(self, step: int) -> Phase:
        """The phase of a training step; the first step is 0.

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
        """Each step below `stop` whose phase is another one than before, the first step included, with its phase.

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
        """Phases that a run will come to, each once, and each part by itself: what is named in them, a model must have.

        All that there are where they are few; else the first ones, and some along the whole `horizon`.
        """
        first = (phase for _, phase in islice(self.changes(self.horizon + 1), _MOST_SHOWN))
        later = (self._at(step) for step in range(0, self.horizon + 1, self.horizon // _MOST_SHOWN + 1))
        return tuple(dict.fromkeys([*(Phase([part]) for part in self.parts), *first, *later]))

    @property
    def horizon(self) -> int:
        """How many steps it takes to see what the schedule does: for drawing it."""
        steps = [0]
        while len(steps) <= _MOST_SHOWN and (step := self.next_change(steps[-1])) is not None:
            steps.append(step)
        if len(steps) > _MOST_SHOWN:
            return steps[-1]
        return steps[-1] + (steps[-1] - steps[-2] if len(steps) > 1 else 1)
