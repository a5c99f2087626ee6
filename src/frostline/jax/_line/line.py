"""The frost line of a function over a tree: behind it nothing depends on a trainable parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, final

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from frostline._core.errors import LineError, NothingTrainableError
from frostline._core.errors.base import counted
from frostline._core.plan import Plan
from frostline.features.boundary import Boundary
from frostline.jax._arrays import is_param
from frostline.jax._freezing.parts import beside
from frostline.jax._freezing.survey import survey
from frostline.jax._jaxpr.equations import variables
from frostline.jax._jaxpr.flops import flops_of
from frostline.jax._jaxpr.leaves import Leaves
from frostline.jax._line.cut import FEW
from frostline.jax._line.drawing import drawn
from frostline.jax._line.identity import identity
from frostline.jax._line.model import ABOVE, BELOW, CALL, Model
from frostline.jax._line.trace import CrossingValue, DividedTrace, ModelTrace


def frostline(fn: Callable[..., Any], tree: Any, /, *example: Any, frozen: Plan | None = None) -> FrostLine:
    """The frost line of ``fn(tree, *inputs)``: the boundary behind which nothing depends on a trainable parameter.

    A trace finds it, also inside ``jit``, ``checkpoint`` and ``scan``: a loop that carries a known value beside one
    that trains becomes two loops. A ``cond``, a ``while`` or a function with a rule of its own (``custom_jvp``,
    ``custom_vjp``) that reads a trainable value is above as a whole. The line is drawn where the values that cross it
    take the fewest bytes a sample: casts, masks and copies in other shapes are computed again above, and values that
    do not depend on a sample are computed there. So are random values right at the line, from a key in the tree; work
    behind them must not be frozen.

    Args:
        fn: ``fn(tree, *inputs)``; it gets the tree as in :func:`value_and_grad`. For a tree that is called,
            ``lambda model, x: model(x)``.
        tree: a tree with a frozen and a trainable part.
        example: the inputs of `fn` beside the tree: arrays with the samples in their first dimension, any number of
            them, in any nesting. Other leaves are settings, and stay.
        frozen: a plan beside an unmarked tree.

    Raises:
        LineError: nothing is below the line or above it; `fn` cannot be traced with the example, or for one number of
            samples only; below the line something is random, or one sample changes another, or depends on its place in
            a batch or on the size of it.
        NothingTrainableError: the tree has nothing to train.
        SamePathError: two leaves of the tree have one name.

    Example:
        >>> params = freeze({"body": jnp.ones((3, 4)), "head": jnp.ones((4, 2))}, "body")
        >>> line = frostline(lambda p, x: jnp.tanh(x @ p["body"]) @ p["head"], params, jnp.ones((5, 3)))
        >>> line.boundary
        (Boundary(name='tanh', shape=(4,), dtype='float32', bytes=16),)
        >>> (features,) = line.below(jnp.ones((7, 3)))
        >>> features.shape, line.above(params, features).shape
        ((7, 4), (7, 2))
    """
    tree = beside(tree, frozen)
    read = survey(tree)
    if not read.trainable:
        raise NothingTrainableError(CALL, len(read.places), len(read.pinned), len(read.leaves))
    if not read.plan.frozen:
        problem = f"has nothing below its line: 0 of {counted(len(read.places), 'parameter')} are frozen."
        raise LineError(CALL, problem, (), 'Freeze what is to be below: tree = freeze(tree, "encoder").')
    model = Model.of(fn, tree, example)
    return FrostLine(model, *drawn(model))


@final
class FrostLine:
    """A function over a tree in two parts; made by :func:`frostline`.

    ``above(tree, *below(x))`` is bitwise ``fn(tree, x)`` outside of ``jit``: the steps are the same, one by one. XLA
    may round the last bits otherwise where it compiles several steps as one:

    - inside ``jit``, because ``jit(above)`` and ``jit(below)`` are other programs than ``jit(fn)``;
    - in a ``jit``, ``checkpoint`` or ``scan`` of `fn` that the line goes through;
    - in the few functions of ``jax.numpy`` that do several steps in one (a float times a bool).

    Attributes:
        boundary: the values that cross the line, in the order in which `below` returns them.
        flops: the floating-point operations of one sample below, of matrix products and convolutions.
    """

    def __init__(
        self, model: Model, crossings: tuple[CrossingValue, ...], boundary: tuple[Boundary, ...], few: DividedTrace
    ) -> None:
        self._model, self._crossings, self.boundary = model, crossings, boundary
        self._sides = {FEW: few}
        self.flops: int = flops_of(few.below_jaxpr) // FEW

    def __repr__(self) -> str:
        names = ", ".join(each.name for each in self.boundary)
        size = sum(each.bytes for each in self.boundary)
        return f"<FrostLine at {names}: {size} bytes and {self.flops} FLOPs a sample>"

    def below(self, *inputs: Any) -> tuple[jax.Array, ...]:
        """Computes the values that cross the line, samples first; ``jax.jit(line.below)`` is faster.

        The frozen arrays are those of the tree that the line was drawn for.

        Args:
            inputs: as in the example, with any number of samples.

        Raises:
            LineError: the inputs have other shapes, dtypes or settings than the example, or the tree was donated.
        """
        values = self.checked(*inputs)
        return self._sides_for(values).below(self._frozen(), values)

    def computed(self, *inputs: Any) -> tuple[jax.Array, ...]:
        """Computes the same, compiled, with the frozen arrays as arguments instead of constants of the program."""
        values = self.checked(*inputs)
        return self._sides_for(values).compiled(self._frozen(), values)

    def above(self, tree: Any, /, *boundary: Any) -> Any:
        """Computes the result of the function, from a tree and the values that cross the line.

        Differentiate it with ``value_and_grad(lambda tree, *boundary: loss(line.above(tree, *boundary)))``.

        Args:
            tree: the tree, with marks or as a loss gets it; trainable parameters may have moved.
            boundary: the values that `below` returned.

        Raises:
            LineError: the tree has another structure; or the boundary other shapes; or it is differentiated with
                respect to a parameter below the line, which would have no gradient, though it trains.
        """
        arrays = self._model.arrays_of(tree)
        values = [jnp.asarray(each) for each in boundary]
        samples = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in self.boundary]
        if not _fit(values, samples):
            problem = f"got {_shown(values) or 'nothing'}, but the values at the line are:"
            fix = "Pass what line.below returns: line.above(tree, *line.below(*inputs))."
            raise LineError(ABOVE, problem, _wanted([each.name for each in self.boundary], samples), fix)
        read_below = {self._model.names[number]: arrays[number] for number in self._params_below}
        traced = {name: leaf for name, leaf in read_below.items() if isinstance(leaf, jax.core.Tracer)}
        if traced:
            values = _without_gradient_of(tuple(traced), list(traced.values()), values)
        return self._sides_for(values).above(arrays, values)

    def fingerprint(self) -> str:
        """A digest of everything below: the steps, the shapes and dtypes, and the bytes of the arrays that they read.

        It is the same in another process, and covers neither the version of JAX nor the device.

        Raises:
            LineError: a Python function is called below (``jax.pure_callback``), about which a trace says nothing.
        """
        return self._fingerprint

    def checked(self, *inputs: Any) -> list[Any]:
        """Returns the arrays of inputs.

        Raises:
            LineError: they have other shapes, dtypes or settings than the example.
        """
        given, example = Leaves.of(inputs), self._model.inputs
        arrays = given.values
        has_settings = given.structure == example.structure and given.settings == example.settings
        if not has_settings or not _fit(arrays, self._model.samples):
            problem = f"got {_shown(arrays) or 'no array'}, but the line was drawn for:"
            wanted = _wanted(self._model.input_names, self._model.samples)
            raise LineError(BELOW, problem, wanted, "Draw a line for them: frostline(fn, tree, *inputs).")
        return arrays

    @cached_property
    def _fingerprint(self) -> str:
        return identity(self._sides[FEW].below_jaxpr, self._model.names, self._frozen())

    @cached_property
    def _params_below(self) -> tuple[int, ...]:
        below = self._sides[FEW].below_jaxpr.jaxpr
        read = {atom for equation in below.eqns for atom in variables(equation.invars)}
        leaves = enumerate(zip(below.invars, self._model.tree.values, strict=False))
        return tuple(number for number, (atom, leaf) in leaves if atom in read and is_param(leaf))

    def _frozen(self) -> list[Any]:
        arrays = self._model.tree.values
        pairs = zip(self._model.names, arrays, strict=True)
        if gone := tuple(name for name, leaf in pairs if isinstance(leaf, jax.Array) and leaf.is_deleted()):
            problem = (
                f"needs the tree of the line, but {len(gone)} of its {counted(len(arrays), 'array')} were donated."
            )
            fix = "Donate only the trainable part: trained, rest = split(tree); or draw the line for a copy of it."
            raise LineError(BELOW, problem, gone, fix)
        return arrays

    def _sides_for(self, values: Sequence[Any]) -> DividedTrace:
        samples = len(values[0])
        if samples not in self._sides:
            self._sides[samples] = DividedTrace(ModelTrace.of(self._model, samples), self._crossings)
        return self._sides[samples]


def _fit(arrays: Sequence[Any], samples: Sequence[Any]) -> bool:
    """Whether arrays hold the same number of such samples."""
    numbers = {array.shape[:1] for array in arrays}
    shapes = [(array.shape[1:], array.dtype) for array in arrays]
    return len(numbers) == 1 and () not in numbers and shapes == [(each.shape, each.dtype) for each in samples]


def _shown(arrays: Sequence[Any]) -> str:
    return ", ".join(f"{array.dtype} {array.shape}" for array in arrays)


def _wanted(names: Sequence[str], samples: Sequence[Any]) -> tuple[str, ...]:
    pairs = zip(names, samples, strict=True)
    return tuple(f"{name}: {each.dtype} ({', '.join(['samples', *map(str, each.shape)])})" for name, each in pairs)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _without_gradient_of(names: tuple[str, ...], leaves: list[Any], values: list[Any]) -> list[Any]:
    """The values, with an error for anyone who differentiates with respect to the leaves."""
    return values


@partial(_without_gradient_of.defjvp, symbolic_zeros=True)
def _refuse(names: tuple[str, ...], primals: Any, tangents: Any) -> Any:
    of_leaves, of_values = tangents
    pairs = zip(names, of_leaves, strict=True)
    if trained := tuple(name for name, tangent in pairs if not isinstance(tangent, SymbolicZero)):
        problem = f"is differentiated with respect to {counted(len(trained), 'parameter')} below the line."
        raise LineError(ABOVE, problem, trained, f"Freeze it again, or draw the line again: line = {CALL}.")
    return primals[1], of_values
