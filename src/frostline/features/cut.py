"""Where to cut below the frost line: the values of fewest bytes from which the part above can be computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final


@final
@dataclass(frozen=True, slots=True)
class CutValue:
    """One value that depends on the sample and on nothing that trains.

    Attributes:
        name: a name of its own.
        bytes: how many a sample takes, or None where it cannot be kept: it has no dimension that is the sample's.
        reads: the names of the values that it is computed from.
        cheap: whether it may be computed again above; what is given from outside is not computed.
    """

    name: str
    bytes: int | None
    reads: tuple[str, ...] = ()
    cheap: bool = False


def least(values: Sequence[CutValue], needed: Iterable[str]) -> tuple[str, ...] | None:
    """The values to keep, so that `needed` can be computed from them by cheap steps alone.

    A minimum cut: each value is an edge that costs its bytes, reading one is free, and what is not cheap lies behind
    the cut. Of two cuts with the same bytes the one with fewer values wins, then the one nearer to what is needed.

    Args:
        values: in an order in which they can be computed.
        needed: the names that must be there above.

    Returns:
        The names to keep, in the order of `values`; None where a value would have to be kept that cannot be.

    Source: the partitioner of AOTAutograd, which cuts a backward from its forward in this way:
    https://dev-discuss.pytorch.org/t/min-cut-optimal-recomputation-i-e-activation-checkpointing-with-aotautograd/467

    Example:
        >>> picture = CutValue("picture", 300)
        >>> stem = CutValue("stem", 400, ("picture",))
        >>> wide = CutValue("wide", 1600, ("stem",), cheap=True)
        >>> least([picture, stem, wide], ["wide"])
        ('stem',)
    """
    from networkx import NetworkXUnbounded, minimum_cut

    wanted = list(dict.fromkeys(needed))
    if not wanted:
        return ()
    behind = _behind(values, wanted)
    graph = _network(behind, wanted)
    try:
        _, (_, above) = minimum_cut(graph, "source", "sink")
    except NetworkXUnbounded:
        return None
    return tuple(value.name for value in behind if ("in", value.name) not in above and ("out", value.name) in above)


def raw(values: Sequence[CutValue], needed: Iterable[str]) -> int:
    """The bytes a sample of keeping just what is needed, which a cut is held against."""
    wanted = set(needed)
    return sum(value.bytes or 0 for value in values if value.name in wanted)


def _behind(values: Sequence[CutValue], wanted: Iterable[str]) -> list[CutValue]:
    """What the wanted values are computed from, themselves included."""
    reached = set(wanted)
    found = []
    for value in reversed(values):
        if value.name in reached:
            reached.update(value.reads)
            found.append(value)
    return found[::-1]


def _network(values: list[CutValue], wanted: list[str]) -> Any:
    from networkx import DiGraph

    # An edge without a capacity is one that no cut goes through.
    graph = DiGraph()
    # One more than there are values: a byte outweighs any number of them.
    weight = len(values) + 1
    for value in values:
        entry, leaving = ("in", value.name), ("out", value.name)
        if value.bytes is None:
            graph.add_edge(entry, leaving)
        else:
            graph.add_edge(entry, leaving, capacity=value.bytes * weight + 1)
        if not value.cheap:
            graph.add_edge("source", entry)
        for read in value.reads:
            graph.add_edge(("out", read), entry)
    for name in wanted:
        graph.add_edge(("out", name), "sink")
    return graph
