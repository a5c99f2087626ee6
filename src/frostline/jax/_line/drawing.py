"""Drawing a line: a model is traced and cut, and the part below must compute each sample by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from frostline._core.errors import LineError
from frostline._core.errors.base import counted, first_line
from frostline.features.boundary import Boundary
from frostline.jax._arrays import bytes_of, plain
from frostline.jax._jaxpr.dependence import MOVES, RANDOM, VARIES
from frostline.jax._jaxpr.equations import part, variables
from frostline.jax._jaxpr.purity import is_cheap, keyed_steps, random_steps
from frostline.jax._line.cut import FEW, MORE, cut, mixed
from frostline.jax._line.identity import constants
from frostline.jax._line.model import CALL, Model
from frostline.jax._line.trace import CrossingValue, DividedTrace, ModelTrace

_FAILURES = (TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError)
_BATCH = "Pass a batch, samples first, as fn takes it after the tree: frostline(fn, tree, x)."


def drawn(model: Model) -> tuple[tuple[CrossingValue, ...], tuple[Boundary, ...], DividedTrace]:
    """The values that cross the line of a model, their descriptions, and the two sides for `FEW` samples.

    Raises:
        LineError: as :func:`frostline` says.
    """
    _check_example(model)
    few, more = _traces(model)
    jaxpr = few.closed.jaxpr
    if not any(few.bits[atom] & MOVES for atom in variables(jaxpr.outvars)):
        trained = tuple(name for name, moves in zip(model.names, model.moves, strict=True) if moves)
        problem = f"returns nothing that depends on its {counted(len(trained), 'trainable parameter')}."
        raise LineError(CALL, problem, trained, 'Train a part that it uses: tree = thaw(tree, "head").')
    _check_random(few)
    crossings, boundary = cut(few, more, model.input_names)
    sides = DividedTrace(few, crossings)
    if all(map(is_cheap, sides.below_jaxpr.jaxpr.eqns)):
        first = tuple(_met_first(few, model))
        problem = f"has nothing below its line: the input first meets {counted(len(first), 'trainable parameter')}."
        fix = f'Freeze what comes first: tree = freeze(tree, "{first[0] if first else "embed"}").'
        raise LineError(CALL, problem, first, fix)
    _check_independent(model, sides, DividedTrace(more, crossings), [each.name for each in boundary])
    return crossings, boundary, sides


def _check_example(model: Model) -> None:
    arrays = model.inputs.values
    if any(isinstance(array, jax.core.Tracer) for array in [*model.tree.values, *arrays]):
        problem = "is called inside a trace, but needs the values of the tree and of the example."
        fix = f"Draw the line outside of jit, once: line = {CALL}; then jit the functions that use it."
        raise LineError(CALL, problem, (), fix)
    if not arrays:
        raise LineError(CALL, "has 0 arrays in its example, but needs at least 1.", (), _BATCH)
    if len(numbers := {array.shape[:1] for array in arrays}) != 1 or numbers & {(), (0,)}:
        spelled = ", ".join(sorted(str(shape[0]) if shape else "no" for shape in numbers))
        problem = f"has arrays with {spelled} samples in its example, but all need the same number, at least 1, first."
        fix = "Close over an array that has no samples: frostline(lambda tree, x: fn(tree, x, mask), tree, x)."
        raise LineError(CALL, problem, _shapes(model), fix)


def _shapes(model: Model) -> tuple[str, ...]:
    pairs = zip(model.input_names, model.inputs.values, strict=True)
    return tuple(f"{name}: shape {array.shape}" for name, array in pairs)


def _traces(model: Model) -> tuple[ModelTrace, ModelTrace]:
    samples = len(model.inputs.values[0])
    try:
        own = ModelTrace.of(model, samples)
    except _FAILURES as error:
        found = (first_line(error), *_shapes(model))
        raise LineError(CALL, "cannot be traced with this example.", found, _BATCH) from error
    try:
        few, more = (own if number == samples else ModelTrace.of(model, number) for number in (FEW, MORE))
    except _FAILURES as error:
        raise _fixed_batch(samples, FEW, first_line(error)) from error
    few_steps, more_steps = ([each.primitive for each in trace.closed.jaxpr.eqns] for trace in (few, more))
    if few_steps != more_steps or len(few.values) != len(more.values):
        raise _fixed_batch(FEW, MORE)
    return few, more


def _fixed_batch(samples: int, others: int, *found: str) -> LineError:
    problem = f"can be traced with {counted(samples, 'sample')}, but is another function for {others}."
    return LineError(CALL, problem, found, "Keep the number of samples free: write x.shape[0] instead of a number.")


def _check_random(trace: ModelTrace) -> None:
    # Random steps right at the line are above, and run in each step. Work behind them would have to run again, too.
    is_input = [number >= trace.arrays for number in range(len(trace.closed.jaxpr.invars))]
    if keyed := tuple(keyed_steps(trace.closed, is_input)):
        steps = counted(len(keyed), "random step")
        problem = f"takes a random key as an input, for {steps}, which would be the same in each epoch."
        fix = 'Put the key into the tree, a new one for each step: fn({"net": net, "key": key}, x).'
        raise LineError(CALL, problem, keyed, fix)
    for equation in trace.closed.jaxpr.eqns:
        bits = trace.bits[equation.outvars[0]] if equation.outvars else 0
        if bits == RANDOM | VARIES and not is_cheap(equation) and not any(random_steps(equation)):
            before = part(trace.closed, trace.closed.jaxpr.invars, equation.outvars).jaxpr.eqns
            names = tuple(dict.fromkeys(name for each in before for name in random_steps(each)))
            problem = f"may change from call to call below its line, in {counted(len(names), 'step')}."
            fix = "Switch it off there, as in evaluation, or thaw the part after it."
            raise LineError(CALL, problem, names, fix)


def _met_first(trace: ModelTrace, model: Model) -> Iterable[str]:
    """The trainable parameters in the first equation that an input and one of them enter."""
    equations = trace.closed.jaxpr.eqns
    meeting = next((each for each in equations if trace.bits[each.outvars[0]] == MOVES | VARIES), None)
    wanted = set(variables(meeting.invars)) if meeting is not None else set()
    for equation in reversed(equations):
        if wanted.intersection(equation.outvars) and trace.bits[equation.outvars[0]] & MOVES:
            wanted |= set(variables(equation.invars))
    leaves = zip(trace.closed.jaxpr.invars, model.names, model.moves, strict=False)
    return (name for atom, name, moves in leaves if moves and atom in wanted)


def _check_independent(model: Model, few: DividedTrace, more: DividedTrace, names: Sequence[str]) -> None:
    """Computes one sample beside itself, then beside another one: neither that one nor the place may matter."""
    one = [_on_all_devices(each)[:1] for each in model.inputs.values]
    # Zeros and ones are valid tokens and valid numbers, and each differs from the number in the sample.
    other = [jnp.where(each == 0, 1, 0).astype(each.dtype) for each in one]

    def found(sides: DividedTrace, *samples: list[jax.Array]) -> tuple[Any, ...]:
        return sides.compiled(model.tree.values, [jnp.concatenate(each) for each in zip(*samples, strict=True)])

    beside_itself, before, behind = found(few, one, one), found(few, one, other), found(few, other, one)
    pairs = list(zip(names, beside_itself, before, behind, strict=True))
    if changed := [name for name, itself, first, _ in pairs if bytes_of(itself[0]) != bytes_of(first[0])]:
        raise mixed(changed)
    if changed := [name for name, _, first, second in pairs if not _are_close(first, second[::-1])]:
        problem = f"computes a sample by its place in the batch, in {counted(len(changed), 'value')}."
        fix = "Give each sample its number as an input, or move the part that counts samples above the line."
        raise LineError(CALL, problem, tuple(changed), fix)
    # A constant can hold the number of samples. That is rare, and compiling takes long.
    if list(constants(few.below_jaxpr)) != list(constants(more.below_jaxpr)):
        among_many = found(more, one, other, other)
        many = zip(names, before, among_many, strict=True)
        if changed := [name for name, first, second in many if not _are_close(first, second[:2])]:
            problem = f"computes a sample by the size of the batch, in {counted(len(changed), 'value')}."
            fix = "Take the number of samples, x.shape[0], out of the part below the line."
            raise LineError(CALL, problem, tuple(changed), fix)


def _are_close(one: Any, other: Any) -> bool:
    """Whether rows are the same up to rounding, which can depend on the place in a batch."""
    if not jnp.issubdtype(one.dtype, jnp.inexact):
        return bytes_of(one) == bytes_of(other)
    wide = np.complex128 if jnp.issubdtype(one.dtype, jnp.complexfloating) else np.float64
    a, b = plain(one).astype(wide), plain(other).astype(wide)
    largest = np.abs(a[np.isfinite(a)]).max(initial=0.0)
    return np.allclose(a, b, rtol=0.0, atol=float(jnp.finfo(one.dtype).eps) ** 0.5 * largest, equal_nan=True)


def _on_all_devices(array: jax.Array) -> jax.Array:
    """The array on every device of its mesh: one sample of a divided array may be on none."""
    sharding = getattr(array, "sharding", None)
    if not isinstance(sharding, NamedSharding):
        return array
    return jax.device_put(array, NamedSharding(sharding.mesh, PartitionSpec()))
