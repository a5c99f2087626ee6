"""An optimizer that knows what is frozen."""

from __future__ import annotations

from typing import Any

import jax
import optax

from frostline._core.errors import NothingTrainableError, StructureError, UnsupportedError
from frostline.jax._arrays import described
from frostline.jax._cohorts import OptimizerState, moved, stepped
from frostline.jax._moments import charts
from frostline.jax._survey import survey
from frostline.jax._updates import UPDATE, Places, places


def optimizer(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The transformation, for a tree in which some is frozen: what is frozen never reaches `tx`.

    So whatever `tx` does, frozen arrays keep their bytes and have no state, and the norm that clipping sees is that of
    what trains. The gradients may be those of ``value_and_grad``, with None where frozen, or those of
    ``jax.value_and_grad`` over the whole tree, with any numbers where frozen.

    The frozen set may change between two updates. What is frozen loses its state. What is thawed starts as if with a
    fresh optimizer: it is a cohort with a count of its own, for in the count of the others Adam would move it at up
    to five times the learning rate. The others keep their moments to the bit. Schedules, injected hyperparameters
    and the global norm stay those of the run. Marks are part of the structure of the tree, so under ``jit`` the
    first update after a change and the updates that follow it are a trace each; coming back to a set and its cohorts
    is none.

    The updates have the shape of the gradients. Where frozen and not None, they leave the bytes as they are in
    ``optax.apply_updates(params, updates)``. Equinox maps over the updates, and wants None there:
    ``eqx.apply_updates(params, updates)`` is for gradients of ``value_and_grad``; Optax wants no None, so for these
    use ``join(optax.apply_updates(split(params)[0], updates), split(params)[1])`` where Equinox is not at hand.

    Masks and labels, as of ``optax.masked``, are best functions of the tree; it has None where frozen. Further
    arguments of ``update`` are handed on. An array under several names is one only where ``freeze`` or ``thaw`` has
    noted it, outside of ``jit``.

    Args:
        tx: any transformation of Optax, ``optax.MultiSteps`` too.

    Returns:
        A transformation of Optax. ``init(params)`` makes an `OptimizerState`, in which `inner` is the state of `tx`;
        ``update(grads, state, params)`` needs `params`, which hold the marks.

    Raises:
        UnsupportedError: `tx` is no transformation.
        NothingTrainableError: in ``init``: the tree has nothing to train.
        StructureError: in ``update``: the gradients are not those of the parameters, the parameters are left out, or
            the state is of another transformation.
        UnsupportedError: in ``update``: the frozen set has changed, and `tx` keeps one array for all parameters.
        SamePathError: two leaves of the tree have one name.

    Source:
        https://github.com/google-deepmind/optax/issues/159,
        https://github.com/google-deepmind/optax/issues/290

    Example:
        >>> params = freeze({"w": jnp.ones(2), "b": jnp.zeros(2)}, "w")
        >>> tx = optimizer(optax.adamw(0.1))
        >>> state = tx.init(params)
        >>> grads = jax.grad(lambda p, x: (p["w"] * x + p["b"]).sum())(params, 2.0)
        >>> updates, state = tx.update(grads, state, params)
        >>> params = optax.apply_updates(params, updates)
        >>> params["w"], params["b"].round(3)
        (Array([1., 1.], dtype=float32), Array([-0.1, -0.1], dtype=float32))
    """
    inner = optax.with_extra_args_support(_checked(tx))
    chart = charts(inner.init)

    def init(params: Any) -> OptimizerState:
        held = places(params)
        _check_trainable(held, params)
        return OptimizerState(inner.init(held.trained(params)), (), (held.trained_names,))

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, OptimizerState]:
        _check_arguments(state, params)
        held = places(params)
        trained, gradients = held.trained(params), held.checked(grads, params)
        ours = chart(held.all(params), held.names, held.trainable)
        if state.names != held.trainable or jax.tree.structure(state.inner) != ours.structure:
            state = moved(state, inner.init(trained), ours, held.trained_names)

        def run(before: Any) -> tuple[Any, Any]:
            return inner.update(gradients, before, trained, **extra)

        if len(state.cohorts) > 1:
            updates, state = stepped(run, state, ours.entries, held.trained_names)
        else:
            updates, after = run(state.inner)
            state = OptimizerState(after, (), state.cohorts)
        return held.updates(updates, grads), state

    return optax.GradientTransformationExtraArgs(init, update)


def _checked(tx: Any) -> optax.GradientTransformation:
    if isinstance(tx, optax.MultiSteps):
        # Its own gradient_transformation() would lose further arguments.
        return optax.GradientTransformationExtraArgs(tx.init, tx.update)
    if isinstance(tx, optax.GradientTransformation):
        return tx
    name = getattr(tx, "__name__", "tx")
    raise UnsupportedError(
        f"optimizer({name})",
        f"is handed {described(tx)}, and takes a transformation of Optax.",
        f"Call it first: optimizer(optax.{name}(1e-3))."
        if callable(tx)
        else "For example: optimizer(optax.adamw(1e-3)).",
    )


def _check_trainable(held: Places, params: Any) -> None:
    if not held.trainable:
        read = survey(params)
        expression = "optimizer(tx).init(params)"
        raise NothingTrainableError(expression, len(read.places), len(read.pinned), len(read.leaves))


def _check_arguments(state: Any, params: Any) -> None:
    if params is None:
        problem = "got no parameters, and they say what is frozen."
        fix = "Hand them over: updates, state = tx.update(grads, state, params)."
        raise StructureError(UPDATE.replace(", params", ""), problem, (), fix)
    if not isinstance(state, OptimizerState):
        problem = f"got {described(state)} for a state, and it is none of optimizer(tx)."
        raise StructureError(
            UPDATE, problem, (), "Make it with the same transformation: state = optimizer(tx).init(params)."
        )
