"""Finding a line: a model is traced, cut, and looked at for what must not be below."""

from __future__ import annotations

import jax

from frostline.features.boundary import Boundary
from frostline.jax._jaxpr.model import Model
from frostline.jax._jaxpr.partial_random import keyed, restless
from frostline.jax._jaxpr.purity import is_cheap
from frostline.jax._jaxpr.split import MOVES, RANDOM, VARIES, part, variables
from frostline.jax._line import refusals
from frostline.jax._line.apart import check_apart
from frostline.jax._line.cut import FEW, MORE, boundaries, cut, without_samples
from frostline.jax._line.trace import Crossing, Halves, Trace


def drawn(model: Model) -> tuple[tuple[Crossing, ...], tuple[Boundary, ...], Halves]:
    """What crosses the line of a model, as a place and as what is said of it, and the model in two for `FEW` samples.

    Raises:
        LineError: as :func:`frostline` says.
    """
    _check_example(model)
    few, more = _traced(model)
    _check_sides(few, model)
    _check_still(few)
    crossings = cut(few, more)
    if crossings is None:
        raise refusals.mixed(without_samples(few, more))
    halves = Halves(few, crossings)
    if all(map(is_cheap, halves.below_jaxpr.jaxpr.eqns)):
        raise refusals.nothing_below(_lowest(few, model))
    found = boundaries(few, crossings, model.input_names)
    check_apart(model, halves, Halves(more, crossings), [each.name for each in found])
    return crossings, found, halves


def _check_example(model: Model) -> None:
    arrays = model.inputs.values
    if any(isinstance(array, jax.core.Tracer) for array in [*model.tree.values, *arrays]):
        raise refusals.traced()
    if not arrays:
        raise refusals.no_arrays()
    if len(numbers := {array.shape[:1] for array in arrays}) != 1 or numbers & {(), (0,)}:
        raise refusals.no_samples(_shapes(model))


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    return {name: each.shape for name, each in zip(model.input_names, model.inputs.values, strict=True)}


def _traced(model: Model) -> tuple[Trace, Trace]:
    samples = len(model.inputs.values[0])
    traces: dict[int, Trace] = {}
    try:
        traces[samples] = Trace.of(model, samples)
    except (TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError) as error:
        raise refusals.untraceable(error, _shapes(model)) from error
    try:
        few, more = (traces.get(number) or Trace.of(model, number) for number in (FEW, MORE))
    except (TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError) as error:
        raise refusals.fixed_batch(error, samples, FEW) from error
    if few.steps != more.steps or len(few.values) != len(more.values):
        raise refusals.fixed_batch(None, FEW, MORE)
    return few, more


def _check_sides(trace: Trace, model: Model) -> None:
    outputs = variables(trace.closed.jaxpr.outvars)
    if not any(trace.bits[atom] & MOVES for atom in outputs):
        raise refusals.nothing_above(name for name, moves in zip(model.names, model.moves, strict=True) if moves)


def _lowest(trace: Trace, model: Model) -> list[str]:
    """What trains and has a part in the first step in which an input meets it."""
    meeting = next((each for each in trace.closed.jaxpr.eqns if trace.bits[each.outvars[0]] == MOVES | VARIES), None)
    if meeting is None:
        return []
    wanted = set(variables(meeting.invars))
    for equation in reversed(trace.closed.jaxpr.eqns):
        if wanted.intersection(equation.outvars) and trace.bits[equation.outvars[0]] & MOVES:
            wanted |= set(variables(equation.invars))
    leaves = zip(trace.closed.jaxpr.invars, model.names, model.moves, strict=False)
    return [name for atom, name, moves in leaves if moves and atom in wanted]


def _check_still(trace: Trace) -> None:
    """What is random right at the line is above, and computed in each step; work behind it would be, too."""
    is_input = [number >= trace.arrays for number in range(len(trace.closed.jaxpr.invars))]
    if found := keyed(trace.closed, is_input):
        raise refusals.keyed(found)
    for equation in trace.closed.jaxpr.eqns:
        bits = trace.bits[equation.outvars[0]] if equation.outvars else 0
        if bits == RANDOM | VARIES and not is_cheap(equation) and not any(restless(equation)):
            before = part(trace.closed, trace.closed.jaxpr.invars, equation.outvars).jaxpr.eqns
            raise refusals.random(dict.fromkeys(name for each in before for name in restless(each)))
