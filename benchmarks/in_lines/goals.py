"""What is to be reached, and what is missed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.in_lines.outcome import Cached, Found, Race

# By name: an epoch from the cache over a live one, and ten in all.
EPOCH = {"resnet50": 0.55, "bert": 0.65, "resnet50 probe": 0.02, "bert probe": 0.02, "jax": 0.65}
TOTAL = {"resnet50": 0.60, "bert": 0.60, "jax": 0.60}
# What is below in the runtime that was picked, over the same as it is.
BELOW = {"resnet18": 0.80, "vit": 0.75, "bert": 0.75}


def missed(found: Sequence[Found], cached: dict[str, Cached], raced: dict[str, Race]) -> Iterator[str]:
    """In words."""
    for line in found:
        if line.refused:
            yield f"{line.title}: no line, {line.refused}"
    for name, one in cached.items():
        yield from above(f"{one.title}, an epoch from the cache", one.epoch.median, EPOCH.get(name))
        yield from above(f"{one.title}, ten epochs", one.total, TOTAL.get(name))
        if not one.same:
            yield f"{one.title}: other losses from the cache"
    for name, race in raced.items():
        yield from above(f"{race.title}, below as {race.picked}", race.pick.below.median, BELOW.get(name))


def above(what: str, ratio: float, goal: float | None) -> Iterator[str]:
    """A ratio that is above its goal."""
    if goal is not None and ratio > goal:
        yield f"{what}: {ratio:.3f} of {goal:.2f}"
