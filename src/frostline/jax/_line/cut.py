"""The values that cross the line: the fewest bytes a sample from which everything above can be computed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import prod
from typing import Any

from frostline._core.errors import LineError
from frostline._core.errors.base import counted
from frostline.features.boundary import Boundary
from frostline.features.cut import CutValue, least
from frostline.jax._jaxpr.dependence import VARIES
from frostline.jax._jaxpr.equations import variables
from frostline.jax._jaxpr.purity import is_cheap
from frostline.jax._line.model import CALL
from frostline.jax._line.trace import CrossingValue, ModelTrace

# Two numbers of samples without a common divisor: a dimension that follows both is one of samples.
FEW, MORE = 2, 3


def cut(
    few: ModelTrace, more: ModelTrace, input_names: tuple[str, ...]
) -> tuple[tuple[CrossingValue, ...], tuple[Boundary, ...]]:
    """The values that cross, and their descriptions, from traces with `FEW` and with `MORE` samples.

    Raises:
        LineError: a value would have to cross that has no dimension for the samples.
    """
    found = {atom: _crossing(place, few, more) for place, atom in enumerate(few.values) if few.bits[atom] == VARIES}
    by_name = {str(few.places[atom]): crossing for atom, crossing in found.items()}
    needed = list(few.needed_above())
    values = [_value(few, atom, crossing) for atom, crossing in found.items()]
    kept = least(values, [str(few.places[atom]) for atom in needed])
    if kept is None:
        raise mixed([_name(few, few.places[atom], input_names) for atom in needed if found[atom] is None])
    crossings = tuple(crossing for name in kept if (crossing := by_name[name]) is not None)
    boundary: list[Boundary] = []
    names = Counter[str]()
    for crossing in crossings:
        aval, axis = few.values[crossing.place].aval, crossing.axis
        rows = (crossing.rows,) if crossing.rows > 1 else ()
        shape = (*aval.shape[:axis], *rows, *aval.shape[axis + 1 :])
        name = _name(few, crossing.place, input_names)
        names[name] += 1
        # The second value of a name is numbered.
        numbered = name if names[name] == 1 else f"{name}_{names[name]}"
        boundary.append(Boundary(numbered, shape, str(aval.dtype), prod(shape) * aval.dtype.itemsize))
    return crossings, tuple(boundary)


def mixed(names: Sequence[str]) -> LineError:
    """The error for values below the line that depend on more than one sample."""
    problem = f"mixes samples below its line, in {counted(len(names), 'value')}."
    fix = "Use stored statistics, as in evaluation, or move the part that mixes above: tree = thaw(tree, ...)."
    return LineError(CALL, problem, tuple(names), fix)


def _crossing(place: int, few: ModelTrace, more: ModelTrace) -> CrossingValue | None:
    one, other = few.values[place].aval.shape, more.values[place].aval.shape
    axes = [axis for axis, sizes in enumerate(zip(one, other, strict=True)) if sizes[0] != sizes[1]]
    if len(axes) != 1 or one[axes[0]] * MORE != other[axes[0]] * FEW:
        return None
    return CrossingValue(place, axes[0], one[axes[0]] // FEW)


def _value(trace: ModelTrace, atom: Any, crossing: CrossingValue | None) -> CutValue:
    equation = trace.maker.get(atom)
    size = None if crossing is None else atom.aval.size * atom.aval.dtype.itemsize // FEW
    if equation is None:
        return CutValue(str(trace.places[atom]), size)
    reads = (str(trace.places[each]) for each in variables(equation.invars) if trace.bits[each] == VARIES)
    return CutValue(str(trace.places[atom]), size, tuple(dict.fromkeys(reads)), is_cheap(equation))


def _name(trace: ModelTrace, place: int, input_names: tuple[str, ...]) -> str:
    """The scopes and the primitive that compute a value, or the name of an input."""
    equation = trace.maker.get(trace.values[place])
    if equation is None:
        return input_names[place - trace.arrays]
    # Without the transformations around a scope: ``vmap(block)`` is ``block``.
    scopes = [re.sub(r"\w+\(|\)", "", scope) for scope in str(equation.source_info.name_stack).split("/")]
    return ".".join([*filter(None, scopes), str(equation.params.get("name", equation.primitive.name))])
