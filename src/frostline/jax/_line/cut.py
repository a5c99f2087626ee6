"""The values that cross the line: the fewest bytes a sample from which everything above can be computed."""

from __future__ import annotations

import re
from math import prod
from typing import Any

from frostline.features.boundary import Boundary
from frostline.features.cut import Value, least
from frostline.jax._jaxpr.dependence import VARIES
from frostline.jax._jaxpr.equations import variables
from frostline.jax._jaxpr.purity import is_cheap
from frostline.jax._line.trace import CrossingValue, ModelTrace

# Two numbers of samples without a common divisor: a dimension that follows both is one of samples.
FEW, MORE = 2, 3


def cut(few: ModelTrace, more: ModelTrace) -> tuple[CrossingValue, ...] | list[str]:
    """The values that cross, from traces with `FEW` and with `MORE` samples.

    Returns:
        The names of values instead, if they would have to cross and have no dimension for the samples.
    """
    found = {atom: _crossing(place, few, more) for place, atom in enumerate(few.values) if few.bits[atom] == VARIES}
    by_name = {str(few.places[atom]): crossing for atom, crossing in found.items()}
    needed = list(few.needed_above())
    kept = least(
        [_value(few, atom, crossing) for atom, crossing in found.items()], [str(few.places[a]) for a in needed]
    )
    if kept is None:
        return [name_of(few, few.places[atom]) for atom in needed if found[atom] is None]
    return tuple(crossing for name in kept if (crossing := by_name[name]) is not None)


def _crossing(place: int, few: ModelTrace, more: ModelTrace) -> CrossingValue | None:
    one, other = few.values[place].aval.shape, more.values[place].aval.shape
    axes = [axis for axis, sizes in enumerate(zip(one, other, strict=True)) if sizes[0] != sizes[1]]
    if len(axes) != 1 or one[axes[0]] * MORE != other[axes[0]] * FEW:
        return None
    return CrossingValue(place, axes[0], one[axes[0]] // FEW)


def _value(trace: ModelTrace, atom: Any, crossing: CrossingValue | None) -> Value:
    equation = trace.maker.get(atom)
    size = None if crossing is None else atom.aval.size * atom.aval.dtype.itemsize // FEW
    if equation is None:
        return Value(str(trace.places[atom]), size)
    reads = (str(trace.places[each]) for each in variables(equation.invars) if trace.bits[each] == VARIES)
    return Value(str(trace.places[atom]), size, tuple(dict.fromkeys(reads)), is_cheap(equation))


def boundaries(
    trace: ModelTrace, crossings: tuple[CrossingValue, ...], inputs: tuple[str, ...]
) -> tuple[Boundary, ...]:
    """Name, shape, dtype and bytes of each value that crosses, for one sample."""
    found: list[Boundary] = []
    names: dict[str, int] = {}
    for crossing in crossings:
        aval, axis = trace.values[crossing.place].aval, crossing.axis
        rows = (crossing.rows,) if crossing.rows > 1 else ()
        shape = (*aval.shape[:axis], *rows, *aval.shape[axis + 1 :])
        name = name_of(trace, crossing.place, inputs)
        # The second value of a name is numbered.
        again = names[name] = names.get(name, 0) + 1
        called = name if again == 1 else f"{name}_{again}"
        found.append(Boundary(called, shape, str(aval.dtype), prod(shape) * aval.dtype.itemsize))
    return tuple(found)


def name_of(trace: ModelTrace, place: int, inputs: tuple[str, ...] = ()) -> str:
    """The scopes and the primitive that compute a value, or the name of an input."""
    equation = trace.maker.get(trace.values[place])
    if equation is None:
        number = place - trace.arrays
        return inputs[number] if number < len(inputs) else f"inputs[{number}]"
    # Without the transformations around a scope: ``vmap(block)`` is ``block``.
    scopes = [re.sub(r"\w+\(|\)", "", scope) for scope in str(equation.source_info.name_stack).split("/")]
    return ".".join([*filter(None, scopes), str(equation.params.get("name", equation.primitive.name))])
