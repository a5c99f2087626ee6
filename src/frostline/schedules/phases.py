"""A schedule written as explicit ranges of steps, each with a phase."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

from frostline._core.errors import ScheduleError
from frostline.schedules.arguments import mapping, whole
from frostline.schedules.phase import Phase
from frostline.schedules.schedule import Schedule
from frostline.schedules.source import source

_FIX = 'Write Phases([Span(0, 1000, Phase(["**", "!head"])), Span(1000, None, Phase())]).'


@final
@dataclass(frozen=True, repr=False)
class Span:
    """One phase for the steps from `start` to `stop`, exclusive; if `stop` is None, the span has no end.

    Raises:
        ScheduleError: the range is empty, or `start` or `stop` is not a step.

    Example:
        >>> Span(0, 1000, Phase(["**", "!head"], name="probe"))
        Span(start=0, stop=1000, phase=Phase(frozen=('**', '!head'), name='probe'))
    """

    start: int
    stop: int | None
    phase: Phase

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", whole("Span", "start", self.start))
        if self.stop is not None:
            object.__setattr__(self, "stop", whole("Span", "stop", self.stop, least=self.start + 1))
        if not isinstance(self.phase, Phase):
            problem = f"is of type {type(self.phase).__name__}, and must be a phase."
            fix = 'Write Span(0, 1000, Phase(["**", "!head"])).'
            raise ScheduleError(f"Span(phase={self.phase!r})", problem, (), fix)

    def __repr__(self) -> str:
        return source(self)

    def to_dict(self) -> dict[str, object]:
        """Returns the span as data for JSON, with the fields of its phase beside its own."""
        ends = {"start": self.start} if self.stop is None else {"start": self.start, "stop": self.stop}
        return ends | self.phase.to_dict()

    @classmethod
    def from_dict(cls, data: object) -> Span:
        """Reads the data that `to_dict` returned.

        Raises:
            ScheduleError: the data is not a span.
        """
        found = mapping("Span.from_dict(data)", data, {"start", "frozen"}, {"stop", "name", "rates"})
        start, stop = found.pop("start"), found.pop("stop", None)
        return cls(start, stop, Phase.from_dict(found))  # type: ignore[arg-type]


@final
@dataclass(frozen=True, repr=False)
class Phases(Schedule):
    """Phases by ranges of steps: the spans follow each other without a gap, and the last one has no end.

    Args:
        spans: the ranges with their phases, in order.

    Raises:
        ScheduleError: there is no span, two spans overlap or leave a gap, or the last span has an end.

    Example:
        >>> schedule = Phases([Span(0, 1000, Phase(["**", "!head"])), Span(1000, None, Phase())])
        >>> schedule.at(999).frozen, schedule.at(1000).frozen
        (('**', '!head'), ())
        >>> print(schedule.to_toml(), end="")
        format = "frostline.schedule"
        version = 1
        schedule = "Phases"
        <BLANKLINE>
        [[spans]]
        start = 0
        stop = 1000
        frozen = [
            "**",
            "!head",
        ]
        <BLANKLINE>
        [[spans]]
        start = 1000
        frozen = []
    """

    spans: Sequence[Span]

    def __post_init__(self) -> None:
        spans = self.spans
        if not isinstance(spans, Sequence) or not all(isinstance(span, Span) for span in spans):
            raise ScheduleError(f"Phases({spans!r})", "is not a list of spans.", (), _FIX)
        if not spans:
            raise ScheduleError("Phases([])", "has 0 spans, and needs 1 or more.", (), _FIX)
        object.__setattr__(self, "spans", tuple(spans))
        _check_follow(tuple(spans))

    @property
    def parts(self) -> tuple[str, ...]:
        """The selectors of all spans, in the order of their first appearance."""
        found = (word.removeprefix("!") for span in self.spans for word in _words(span.phase))
        return tuple(dict.fromkeys(word for word in found if word != "**"))

    def _at(self, step: int) -> Phase:
        return self.spans[bisect_right(self.spans, step, key=lambda span: span.start) - 1].phase

    def _boundary(self, step: int) -> int | None:
        return self.spans[bisect_right(self.spans, step, key=lambda span: span.start) - 1].stop

    @classmethod
    def _parsed(cls, content: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(content["spans"], list):
            raise ScheduleError(f"Phases(spans={content['spans']!r})", "is not a list of spans.", (), _FIX)
        return {"spans": [Span.from_dict(span) for span in content["spans"]]}


def _words(phase: Phase) -> list[str]:
    return [*phase.frozen, *(selector for selector, _ in phase.rates)]


def _check_follow(spans: tuple[Span, ...]) -> None:
    if spans[0].start:
        raise _broken(f"leaves a gap of {spans[0].start} steps.", (0, spans[0].start), "Begin with Span(0, ...).")
    for before, after in pairwise(spans):
        if before.stop is None:
            fix = f"Give it an end: Span({before.start}, {after.start}, ...)."
            raise _broken("has another span after a span without an end.", (before.start, None), fix)
        if before.stop != after.start:
            low, high = sorted((before.stop, after.start))
            problem = "has an overlap" if before.stop > after.start else "leaves a gap"
            fix = f"Start each span where the one before it ends: Span({before.stop}, ...)."
            raise _broken(f"{problem} of {high - low} steps.", (low, high), fix)
    if spans[-1].stop is not None:
        problem = f"has no span from step {spans[-1].stop} on."
        raise _broken(problem, (spans[-1].stop, None), f"Leave the last end open: Span({spans[-1].start}, None, ...).")


def _broken(problem: str, ends: tuple[int, int | None], fix: str) -> ScheduleError:
    where = f"  from step {ends[0]} on" if ends[1] is None else f"  from step {ends[0]} to step {ends[1]}"
    return ScheduleError("Phases(...)", problem, (where,), fix)
