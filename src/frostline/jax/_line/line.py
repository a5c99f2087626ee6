"""The frost line of a function over a tree: behind it nothing depends on a trainable parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, final

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from frostline._core.errors import NothingTrainableError
from frostline.features.boundary import Boundary
from frostline.jax._arrays import is_param
from frostline.jax._freezing.survey import survey
from frostline.jax._jaxpr.flops import flops_of
from frostline.jax._jaxpr.model import Leaves, Model
from frostline.jax._line import refusals
from frostline.jax._line.cut import FEW
from frostline.jax._line.drawing import drawn
from frostline.jax._line.identity import called_outside, identity
from frostline.jax._line.trace import Crossing, Halves, Trace


def frostline(fn: Callable[..., Any], tree: Any, /, *example: Any) -> Line:
    """The frost line of ``fn(tree, *inputs)``: the boundary behind which nothing depends on a trainable parameter.

    It is found from a trace, through ``jit``, ``checkpoint`` and ``scan``: a loop that carries something known beside
    something that trains becomes two loops. A ``cond``, a ``while`` or a function with a rule of its own
    (``custom_jvp``, ``custom_vjp``) that gets something that trains is above as a whole. Of all values behind the line
    those are taken that need the fewest bytes a sample: casts, masks and copies in other shapes are made again above,
    and what does not depend on a sample is computed there. So is what is random right at the line, from a key in the
    tree; behind something random nothing may be frozen.

    Args:
        fn: ``fn(tree, *inputs)``; it gets the tree as in :func:`value_and_grad`. For a tree that is called,
            ``lambda model, x: model(x)``.
        tree: a tree with something frozen and something to train.
        example: what `fn` gets beside the tree: arrays with samples in their first dimension, any number of them, in
            any nesting. What is no array is a setting, and stays.

    Raises:
        LineError: nothing is below the line or nothing above; `fn` cannot be traced with the example, or for one
            number of samples only; below the line something is random, or one sample changes another, or depends on
            its place in a batch or on the size of it.
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
    read = survey(tree)
    if not read.trainable:
        raise NothingTrainableError(refusals.CALL, len(read.places), len(read.pinned), len(read.leaves))
    if not read.plan.frozen:
        raise refusals.nothing_frozen(len(read.places))
    model = Model.of(fn, tree, example)
    return Line(model, *drawn(model))


@final
class Line:
    """A function over a tree in two halves; made by :func:`frostline`.

    ``above(tree, *below(x))`` is to the bit what ``fn(tree, x)`` is, when none of them is inside of ``jit``: the steps
    are the same, one by one. Three things are compiled as one, and then XLA may round otherwise in the last bits:

    - what is inside of ``jit``: ``jit(above)`` and ``jit(below)`` see other programs than ``jit(fn)``;
    - a ``jit``, ``checkpoint`` or ``scan`` inside of `fn` that the line goes through;
    - the few functions of ``jax.numpy`` that do several steps in one (a float times a bool).

    Attributes:
        boundary: what crosses the line, in the order in which `below` returns it.
        flops: what is saved for each sample that need not go through `below`, in floating-point operations of matrix
            products and convolutions.
    """

    def __init__(
        self, model: Model, crossings: tuple[Crossing, ...], boundary: tuple[Boundary, ...], few: Halves
    ) -> None:
        self._model, self._crossings, self.boundary = model, crossings, boundary
        self._halves = {FEW: few}
        self.flops: int = flops_of(few.below_jaxpr) // FEW

    def __repr__(self) -> str:
        names = ", ".join(each.name for each in self.boundary)
        size = sum(each.bytes for each in self.boundary)
        return f"<Line at {names}: {size} bytes and {self.flops} FLOPs a sample>"

    def below(self, *inputs: Any) -> tuple[jax.Array, ...]:
        """What crosses the line for these inputs, samples first: ``jax.jit(line.below)`` is faster.

        The frozen arrays are those of the tree that the line was drawn for.

        Args:
            inputs: as in the example, with any number of samples.

        Raises:
            LineError: they have other shapes, dtypes or settings than the example, or the tree of the line is gone.
        """
        values = self.checked(*inputs)
        return self._for(len(values[0])).below(self._frozen(), values)

    def computed(self, *inputs: Any) -> tuple[jax.Array, ...]:
        """The same, compiled, with the frozen arrays as arguments and not as constants of the program."""
        values = self.checked(*inputs)
        return self._for(len(values[0])).compiled(self._frozen(), values)

    def above(self, tree: Any, /, *boundary: Any) -> Any:
        """What the function returns, from a tree and what crosses the line.

        It is differentiated by ``value_and_grad(lambda tree, *boundary: loss(line.above(tree, *boundary)))``.

        Args:
            tree: the tree, with marks or as a loss gets it; what trains may have moved.
            boundary: what `below` returned.

        Raises:
            LineError: the tree has another structure; or the boundary other shapes; or it is differentiated with
                respect to a parameter below the line, which would have no gradient, though it trains.
        """
        arrays = self._checked_arrays(tree)
        values = self._checked_boundary(boundary)
        halves = self._for(len(values[0]))
        return halves.above(arrays, self._held(arrays, values))

    def fingerprint(self) -> str:
        """A digest of all that is below: the steps, the shapes and dtypes, and the bytes of what they read.

        It is the same in another process. It does not hold the version of JAX, nor the device.

        Raises:
            LineError: a function of Python is called below, of which nothing is known (``jax.pure_callback``).
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        below = self._for(FEW).below_jaxpr
        if outside := list(called_outside(below)):
            raise refusals.called_outside(outside)
        return identity(below, self._model.names, self._frozen())

    @cached_property
    def _guarded(self) -> tuple[int, ...]:
        """The parameters that are read below, by number."""
        below = self._for(FEW).below_jaxpr.jaxpr
        read = {atom for equation in below.eqns for atom in equation.invars if not hasattr(atom, "val")}
        leaves = enumerate(zip(below.invars, self._model.tree.values, strict=False))
        return tuple(number for number, (atom, leaf) in leaves if atom in read and is_param(leaf))

    def _held(self, arrays: list[Any], values: list[Any]) -> list[Any]:
        leaves = {self._model.names[number]: arrays[number] for number in self._guarded}
        traced = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, jax.core.Tracer)}
        return _with_nothing_trained(tuple(traced), list(traced.values()), values) if traced else values

    def _frozen(self) -> list[Any]:
        arrays = self._model.tree.values
        pairs = zip(self._model.names, arrays, strict=True)
        if gone := [name for name, leaf in pairs if isinstance(leaf, jax.Array) and leaf.is_deleted()]:
            raise refusals.donated(gone)
        return arrays

    def _for(self, samples: int) -> Halves:
        found = self._halves.get(samples)
        if found is None:
            found = self._halves[samples] = Halves(Trace.of(self._model, samples), self._crossings)
        return found

    def _checked_arrays(self, tree: Any) -> list[Any]:
        leaves = self._model.leaves_of(tree)
        if leaves is None:
            raise refusals.other_tree(())
        if other := self._model.differences(leaves):
            raise refusals.other_tree(other)
        return [jnp.asarray(leaves[number]) for number in self._model.tree.arrays]

    def checked(self, *inputs: Any) -> list[Any]:
        """The arrays of inputs.

        Raises:
            LineError: they have other shapes, dtypes or settings than the example.
        """
        given, example = Leaves.of(inputs), self._model.inputs
        arrays = given.values
        is_same = given.structure == example.structure and given.settings == example.settings
        if not (is_same and _fit(arrays, self._model.samples)):
            samples = zip(self._model.input_names, self._model.samples, strict=True)
            problem = f"got {', '.join(map(_found, arrays)) or 'no array'}, and the line was drawn for:"
            fix = "Draw a line for them: frostline(fn, tree, *inputs)."
            found = [f"{name}: {_shown(each)}" for name, each in samples]
            raise refusals.other_values(refusals.BELOW, problem, found, fix)
        return arrays

    def _checked_boundary(self, boundary: tuple[Any, ...]) -> list[Any]:
        values = [jnp.asarray(each) for each in boundary]
        samples = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in self.boundary]
        if not _fit(values, samples):
            problem = f"got {', '.join(map(_found, values)) or 'nothing'}, and what crosses the line is:"
            wanted = [f"{each.name}: {_shown(shape)}" for each, shape in zip(self.boundary, samples, strict=True)]
            fix = "Hand it what line.below returns: line.above(tree, *line.below(*inputs))."
            raise refusals.other_values(refusals.ABOVE, problem, wanted, fix)
        return values


def _fit(arrays: Sequence[Any], samples: Sequence[Any]) -> bool:
    """Whether arrays are some number of samples, the same of each."""
    numbers = {array.shape[:1] for array in arrays}
    shapes = [(array.shape[1:], array.dtype) for array in arrays]
    return len(numbers) == 1 and () not in numbers and shapes == [(each.shape, each.dtype) for each in samples]


def _shown(sample: Any) -> str:
    return f"{sample.dtype} (samples{''.join(f', {size}' for size in sample.shape)})"


def _found(array: Any) -> str:
    return f"{array.dtype} {array.shape}"


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _with_nothing_trained(names: tuple[str, ...], leaves: list[Any], values: list[Any]) -> list[Any]:
    """The values; whoever differentiates with respect to the leaves is told that there is no way to them."""
    return values


@partial(_with_nothing_trained.defjvp, symbolic_zeros=True)
def _refuse(names: tuple[str, ...], primals: Any, tangents: Any) -> Any:
    of_leaves, of_values = tangents
    trained = [name for name, slope in zip(names, of_leaves, strict=True) if not isinstance(slope, SymbolicZero)]
    if trained:
        raise refusals.trained_below(trained)
    return primals[1], of_values
