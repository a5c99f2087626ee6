"""Which values cross the line: the fewest bytes a sample from which the rest can be computed again."""

from __future__ import annotations

import re
from math import prod
from typing import Any

from frostline.features.boundary import Boundary
from frostline.features.cut import Value, least
from frostline.jax._jaxpr.purity import is_cheap
from frostline.jax._jaxpr.split import VARIES, variables
from frostline.jax._line.trace import Crossing, Trace

# Two numbers of samples without a common divisor: a dimension that follows both is one of samples.
FEW, MORE = 2, 3


def cut(few: Trace, more: Trace) -> tuple[Crossing, ...] | None:
    """The values that cross, found from traces with `FEW` and with `MORE` samples.

    Returns:
        None, where a value crosses that has no dimension for the samples.
    """
    along = {atom: _along(place, few, more) for place, atom in enumerate(few.values) if few.bits[atom] == VARIES}
    values = [_value(few, atom, crossing) for atom, crossing in along.items()]
    kept = least(values, [str(few.places[atom]) for atom in few.crossing()])
    if kept is None:
        return None
    by_name = {str(few.places[atom]): crossing for atom, crossing in along.items()}
    return tuple(crossing for name in kept if (crossing := by_name[name]) is not None)


def without_samples(few: Trace, more: Trace) -> list[str]:
    """The names of values that would have to cross, and have no dimension for the samples."""
    atoms = ((few.places[atom], atom) for atom in few.crossing())
    return [name_of(few, place) for place, atom in atoms if _along(place, few, more) is None]


def _along(place: int, few: Trace, more: Trace) -> Crossing | None:
    one, other = few.values[place].aval.shape, more.values[place].aval.shape
    axes = [axis for axis, sizes in enumerate(zip(one, other, strict=True)) if sizes[0] != sizes[1]]
    if len(axes) != 1 or one[axes[0]] * MORE != other[axes[0]] * FEW:
        return None
    return Crossing(place, axes[0], one[axes[0]] // FEW)


def _value(trace: Trace, atom: Any, crossing: Crossing | None) -> Value:
    equation = trace.maker.get(atom)
    size = None if crossing is None else atom.aval.size * atom.aval.dtype.itemsize // FEW
    if equation is None:
        return Value(str(trace.places[atom]), size)
    reads = (str(trace.places[each]) for each in variables(equation.invars) if trace.bits[each] == VARIES)
    return Value(str(trace.places[atom]), size, tuple(dict.fromkeys(reads)), is_cheap(equation))


def boundaries(trace: Trace, crossings: tuple[Crossing, ...], inputs: tuple[str, ...]) -> tuple[Boundary, ...]:
    """What is said of the values that cross."""
    found: list[Boundary] = []
    names: dict[str, int] = {}
    for crossing in crossings:
        aval = trace.values[crossing.place].aval
        shape = (*aval.shape[: crossing.axis], *aval.shape[crossing.axis + 1 :])
        shape = (*shape[: crossing.axis], crossing.rows, *shape[crossing.axis :]) if crossing.rows > 1 else shape
        name = name_of(trace, crossing.place, inputs)
        # What has the name of another one is numbered.
        again = names[name] = names.get(name, 0) + 1
        called = name if again == 1 else f"{name}_{again}"
        found.append(Boundary(called, shape, str(aval.dtype), prod(shape) * aval.dtype.itemsize))
    return tuple(found)


def name_of(trace: Trace, place: int, inputs: tuple[str, ...] = ()) -> str:
    """What computes a value: the scopes around it and the primitive; or which input it is."""
    equation = trace.maker.get(trace.values[place])
    if equation is None:
        number = place - trace.arrays
        return inputs[number] if number < len(inputs) else f"inputs[{number}]"
    scopes = [_bare(scope) for scope in str(equation.source_info.name_stack).split("/")]
    return ".".join([*filter(None, scopes), str(equation.params.get("name", equation.primitive.name))])


def _bare(scope: str) -> str:
    """A scope without the transformations around it: ``vmap(block)`` is ``block``."""
    return re.sub(r"\w+\(|\)", "", scope)
