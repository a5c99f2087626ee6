"""The minimum cut: never dearer than keeping what is needed, and no way around it."""

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frostline.features import cut
from frostline.features.cut import CutValue, least, raw

PICTURE = CutValue("picture", 300)
STEM = CutValue("stem", 400, ("picture",))


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[CutValue], list[str]]:
    """Values in an order in which they can be computed, and the names of some that are needed."""
    inputs = draw(st.integers(1, 2))
    values: list[CutValue] = []
    for place in range(draw(st.integers(inputs, 9))):
        names = [value.name for value in values]
        reads = () if place < inputs else tuple(draw(st.lists(st.sampled_from(names), min_size=1, unique=True)))
        # What is needed can be kept, so that there is a cut.
        values.append(CutValue(f"v{place}", draw(st.integers(0, 20)), reads, bool(reads) and draw(st.booleans())))
    needed = draw(st.lists(st.sampled_from([value.name for value in values]), min_size=1, unique=True))
    return values, needed


def computed(values: Sequence[CutValue], kept: Iterable[str]) -> set[str]:
    """What there is above: what is kept, and what cheap steps make of it."""
    there = set(kept)
    for value in values:
        if value.cheap and value.reads and there.issuperset(value.reads):
            there.add(value.name)
    return there


def reached(values: Sequence[CutValue], kept: Iterable[str]) -> set[str]:
    """What can be reached from what is given, or dear, without going through what is kept."""
    there = {value.name for value in values if not value.cheap and value.name not in set(kept)}
    for value in values:
        if there.intersection(value.reads) and value.name not in set(kept):
            there.add(value.name)
    return there


def cost(values: Sequence[CutValue], kept: Iterable[str]) -> int:
    return raw(values, kept)


@given(graphs())
def test_a_cut_never_costs_more_than_keeping_what_is_needed(graph: tuple[list[CutValue], list[str]]) -> None:
    values, needed = graph
    kept = least(values, needed)
    assert kept is not None
    assert cost(values, kept) <= raw(values, needed)


@given(graphs())
def test_what_is_needed_can_be_computed_from_it_and_no_path_goes_around(
    graph: tuple[list[CutValue], list[str]],
) -> None:
    values, needed = graph
    kept = least(values, needed)
    assert kept is not None
    assert computed(values, kept) >= set(needed)
    assert not reached(values, kept) & set(needed)


@given(graphs())
def test_no_set_of_values_costs_less(graph: tuple[list[CutValue], list[str]]) -> None:
    values, needed = graph
    kept = least(values, needed)
    assert kept is not None
    sets = [[v.name for bit, v in enumerate(values) if number >> bit & 1] for number in range(1 << len(values))]
    assert cost(values, kept) == min(cost(values, s) for s in sets if computed(values, s) >= set(needed))


def broken(values: Sequence[CutValue], needed: Iterable[str]) -> tuple[str, ...]:
    """A cut that leaves out its dearest value."""
    return tuple(sorted(least(values, needed) or (), key=lambda name: raw(values, [name])))[:-1]


def test_the_properties_see_a_broken_cut() -> None:
    """The negative control."""
    values = [PICTURE, STEM, CutValue("wide", 1600, ("stem",), cheap=True)]
    assert computed(values, least(values, ["wide"]) or ()) >= {"wide"}
    assert not computed(values, broken(values, ["wide"])) >= {"wide"}
    assert "wide" in reached(values, broken(values, ["wide"]))


ROWS = [
    ("what is dear is not computed again, though its input is smaller", [PICTURE, STEM], ["stem"], ("stem",)),
    (
        "a cast is",
        [PICTURE, STEM, CutValue("wide", 1600, ("stem",), cheap=True)],
        ["wide"],
        ("stem",),
    ),
    (
        "three views of one value are one value",
        [STEM, *(CutValue(name, 100, ("stem",), cheap=True) for name in "abcd")],
        ["a", "b", "c", "d"],
        ("stem",),
    ),
    (
        "a mask costs its words and not their product",
        [CutValue("mask", 80), CutValue("square", 6400, ("mask",), cheap=True), STEM],
        ["square", "stem"],
        ("mask", "stem"),
    ),
    (
        "of equals the nearest to what is needed",
        [STEM, CutValue("relu", 400, ("stem",), cheap=True)],
        ["relu"],
        ("relu",),
    ),
    ("what has no sample is gone around", [STEM, CutValue("mixed", None, ("stem",), cheap=True)], ["mixed"], ("stem",)),
    ("or there is no cut", [STEM, CutValue("mixed", None, ("stem",))], ["mixed"], None),
    ("what nobody needs is not kept", [PICTURE, STEM], ["picture"], ("picture",)),
    ("nothing is needed", [PICTURE, STEM], [], ()),
]


@pytest.mark.parametrize(("values", "needed", "kept"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_the_cut(values: list[CutValue], needed: list[str], kept: tuple[str, ...] | None) -> None:
    assert least(values, needed) == kept


def test_the_raw_boundary_is_what_is_needed() -> None:
    assert cut.raw([PICTURE, STEM], ["stem", "stem", "picture"]) == 700
