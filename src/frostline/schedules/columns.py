"""The steps of a run in columns, with the number of steps of each phase in each column."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from math import gcd

from frostline.schedules.phase import Phase
from frostline.schedules.schedule import Schedule

_MOST_CHANGES = 4096
_SAMPLES = 64


def columns(schedule: Schedule, steps: int, most: int) -> tuple[int, list[Counter[Phase]]]:
    """Returns the number of steps in a column, and for each column how many of its steps each phase has.

    If the phase changes more than 4096 times, the numbers come from 64 steps of each column.

    Example:
        >>> from frostline.schedules.linear_probe import LinearProbe
        >>> width, found = columns(LinearProbe(["head"], steps=5), steps=20, most=5)
        >>> width, [{phase.name: count for phase, count in column.items()} for column in found]
        (5, [{'probe': 5}, {'fine-tune': 5}, {'fine-tune': 5}, {'fine-tune': 5}])
    """
    least = -(-steps // most)
    changes = list(islice(schedule.changes(steps), _MOST_CHANGES + 1))
    if len(changes) > _MOST_CHANGES:
        return least, _sampled(schedule, steps, least)
    width = _width(least, [step for step, _ in changes])
    return width, _counted(changes, steps, width)


def _width(least: int, changes: list[int]) -> int:
    """Returns a width of at least `least` steps, at which changes fall between columns if such a width is near."""
    period = gcd(*changes)
    if least >= period > 0:
        return -(-least // period) * period
    parts = (count for count in range(period // least, 0, -1) if period % count == 0)
    return next((period // count for count in parts if period // count <= 2 * least), least)


def _counted(changes: list[tuple[int, Phase]], steps: int, width: int) -> list[Counter[Phase]]:
    found: list[Counter[Phase]] = [Counter() for _ in range(0, steps, width)]
    stops = [step for step, _ in changes[1:]] + [steps]
    for (start, phase), stop in zip(changes, stops, strict=True):
        for place in range(start // width, -(-stop // width)):
            found[place][phase] += min(stop, (place + 1) * width) - max(start, place * width)
    return found


def _sampled(schedule: Schedule, steps: int, width: int) -> list[Counter[Phase]]:
    # Multiples of the golden section spread evenly, and match no period of the schedule.
    spread = [place * 0.6180339887498949 % 1.0 for place in range(_SAMPLES)]
    starts = range(0, steps, width)
    return [Counter(schedule.at(start + int(part * min(width, steps - start))) for part in spread) for start in starts]
