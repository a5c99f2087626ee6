"""The numbers as tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.in_lines.goals import BELOW, EPOCH, TOTAL
from benchmarks.in_lines.outcome import Cached, Found, Race
from benchmarks.markdown import table


def lines(found: Iterable[Found]) -> str:
    """A row for each line."""
    headings = ("frost line", "seconds to find", "KiB a sample", "KiB of the input", "MFLOP below", "boundary")
    return table(headings, map(line, found))


def line(one: Found) -> Sequence[str]:
    seconds = f"{one.seconds:.1f}"
    if one.refused:
        return one.title, seconds, "–", "–", "–", "refused"
    numbers = (one.bytes / 1024, one.input_bytes / 1024, one.flops / 1e6)
    return one.title, seconds, *(f"{number:,.1f}" for number in numbers), ", ".join(one.boundary)


def caches(cached: dict[str, Cached]) -> str:
    """A row for each model."""
    headings = ("from the cache", "live step, ms", "epoch / live", "goal", "filling / live epoch", "ten epochs", "goal")
    rows = [
        (
            one.title,
            f"{one.live_ms:.0f}",
            str(one.epoch),
            goal(EPOCH.get(name)),
            f"{one.fill:.2f}",
            f"{one.total:.3f}",
            goal(TOTAL.get(name)),
        )
        for name, one in cached.items()
    ]
    return table(headings, rows)


def runtimes(raced: dict[str, Race]) -> str:
    """A row for each runtime of each model."""
    headings = ("runtime of what is below", "below / plain", "goal", "step / plain", "error", "")
    return table(headings, [row for name, race in raced.items() for row in of_race(name, race)])


def of_race(name: str, race: Race) -> Iterable[Sequence[str]]:
    yield f"{race.title}: plain, {race.below_ms:.0f} of {race.step_ms:.0f} ms", "1", goal(BELOW.get(name)), "1", "0", ""
    for one in race.raced[1:]:
        note = "picked" if one.name == race.picked else ""
        yield one.name, str(one.below), "", str(one.step), f"{one.error:.1e}", note
    for left, reason in race.left_out.items():
        yield left, "–", "–", "", "–", reason


def goal(number: float | None) -> str:
    return "" if number is None else f"≤ {number:.2f}"
