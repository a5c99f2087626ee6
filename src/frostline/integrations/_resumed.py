"""The state of a callback of a trainer, which another run goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from frostline._core.errors import ScheduleError


def check_same(expression: str, saved: Mapping[str, Any], unit: str, still: frozenset[str]) -> None:
    """Checks that a state is of a run with the same unit, in which the same parameters stand still throughout.

    Args:
        expression: the call that resumes, for errors.
        saved: the state.
        unit: what the schedule counts.
        still: the parameters.

    Raises:
        ScheduleError: it is not.
    """
    differ = sorted(still.symmetric_difference(saved["frozen"]))
    if saved["unit"] == unit and not differ:
        return
    runs = [f"by {by} with {len(paths)} parameters" for by, paths in ((saved["unit"], saved["frozen"]), (unit, still))]
    problem = f"got the state of a run {runs[0]} frozen throughout, for a run {runs[1]}."
    found = ("These differ:", *(f"  {path}" for path in differ)) if differ else ()
    fix = "Resume with the same selectors and unit, or start a new run from the weights of the checkpoint."
    raise ScheduleError(expression, problem, found, fix)
