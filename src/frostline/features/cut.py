"""The cut below the frost line: the values of fewest bytes from which the part above can be computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final


@final
@dataclass(frozen=True, slots=True)
class CutValue:
    """One value that depends on the sample and on no trainable parameter.

    Attributes:
        name: its unique name.
        bytes: the bytes of one sample; None if it cannot be stored, because no dimension belongs to the samples.
        reads: the names of the values from which it is computed.
        cheap: whether the part above may compute it again; False for an input.
    """

    name: str
    bytes: int | None
    reads: tuple[str, ...] = ()
    cheap: bool = False


def least(values: Sequence[CutValue], needed: Iterable[str]) -> tuple[str, ...] | None:
    """Returns the values to store, so that `needed` can be computed from them by cheap operations.

    This is a minimum cut: each value is an edge that costs its bytes, reading a value is free, and every value that is
    not cheap lies below the cut. Of two cuts with equal bytes the one with fewer values is chosen, then the one closer
    to the needed values.

    Args:
        values: the values, in an order in which they can be computed.
        needed: the names of the values that the part above reads.

    Returns:
        The names to store, in the order of `values`; None if every cut contains a value that cannot be stored.

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
    """Returns the bytes of one sample if the needed values themselves were stored, for comparison with a cut."""
    wanted = set(needed)
    return sum(value.bytes or 0 for value in values if value.name in wanted)


def _behind(values: Sequence[CutValue], wanted: Iterable[str]) -> list[CutValue]:
    """Returns the wanted values and all values from which they are computed."""
    reached = set(wanted)
    found = []
    for value in reversed(values):
        if value.name in reached:
            reached.update(value.reads)
            found.append(value)
    return found[::-1]


def _network(values: list[CutValue], wanted: list[str]) -> Any:
    from networkx import DiGraph

    # No cut goes through an edge without a capacity.
    graph = DiGraph()
    # With this weight, one byte outweighs any number of values.
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
