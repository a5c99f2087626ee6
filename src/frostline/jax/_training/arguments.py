"""The arguments of an optimizer and of its functions, checked."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import optax

from frostline._core.errors import NothingTrainableError, StructureError, UnsupportedError
from frostline._core.errors.base import counted
from frostline.jax._arrays import described
from frostline.jax._freezing.survey import survey
from frostline.jax._training.cohorts import OptimizerState
from frostline.jax._training.moments import StateLayout
from frostline.jax._training.updates import UPDATE, ParamPlaces

FOLLOW = "tx.follow(state, params)"


def transformation(tx: Any) -> optax.GradientTransformation:
    """Returns the transformation that `tx` is.

    Raises:
        UnsupportedError: it is none.
    """
    if isinstance(tx, optax.MultiSteps):
        # Its own gradient_transformation() would drop extra arguments.
        return optax.GradientTransformationExtraArgs(tx.init, tx.update)
    if isinstance(tx, optax.GradientTransformation):
        return tx
    name = getattr(tx, "__name__", "tx")
    raise UnsupportedError(
        f"optimizer({name})",
        f"got {described(tx)}, but takes an Optax transformation.",
        f"Call it first: optimizer(optax.{name}(1e-3))."
        if callable(tx)
        else "For example: optimizer(optax.adamw(1e-3)).",
    )


def check_is_tree(params: Any) -> None:
    """Checks that `params` are parameters, and no object of Optax.

    Raises:
        UnsupportedError: Optax asks where the moments in a state are.
    """
    # Optax puts an object of its own in the place of the parameters, to find out where moments are.
    if type(params).__module__.partition(".")[0] == "optax":
        raise UnsupportedError(
            "optax.tree_map_params(optimizer(tx), f, state)",
            "asks for a state without parameters, but which of them train is part of the structure of the state.",
            "Map over the state of tx: replace(state, inner=optax.tree_map_params(tx, f, state.inner)), with the "
            "replace of dataclasses.",
        )


def check_trainable(held: ParamPlaces, params: Any) -> None:
    """Checks that something trains.

    Raises:
        NothingTrainableError: nothing does.
    """
    if not held.trainable:
        read = survey(params)
        expression = "optimizer(tx).init(params)"
        raise NothingTrainableError(expression, len(read.places), len(read.pinned), len(read.leaves))


def check_arguments(state: Any, params: Any) -> None:
    """Checks the arguments of ``update``.

    Raises:
        StructureError: the parameters are missing, or it is not a state of ``optimizer(tx)``.
    """
    if params is None:
        problem = "got no parameters, but their names and marks say what is frozen."
        fix = "Pass them: updates, state = tx.update(grads, state, params)."
        raise StructureError(UPDATE.replace(", params", ""), problem, (), fix)
    check_state(UPDATE, state)


def check_marks(expression: str, frozen: Collection[str], held: ParamPlaces, plan: str) -> None:
    """Checks that the tree still says of what was frozen whether it is.

    Args:
        expression: what was written.
        frozen: the parameters that were frozen.
        held: the places of the parameters of the tree.
        plan: where the plan of what was frozen is, as code.

    Raises:
        StructureError: the tree has lost its marks on the way.
    """
    said = held.plan.trainable.intersection(frozen)
    if lost := sorted(said - held.read.thawed if said else said):
        problem = f"got parameters in which {counted(len(lost), 'frozen parameter')} lost the mark on the way:"
        fix = (
            "A tree that was rebuilt or loaded has no marks. Mark it again, params = fj.follow(params, "
            f"{plan}); or let all of it train, params = fj.thaw(params)."
        )
        raise StructureError(expression, problem, tuple(lost), fix)


def check_shapes(state: OptimizerState, layout: StateLayout) -> None:
    """Checks that the arrays of a state have the shapes of the parameters.

    Raises:
        StructureError: a parameter has got another shape.
    """
    if other := [(array, shape) for array, shape in layout.other_shapes(state.inner)]:
        problem = f"got a state in which {counted(len(other), 'array')} had another shape when it was made:"
        rows = [f"{array.owner or 'state'}/{array.label}: {shape}, now {array.shape.shape}" for array, shape in other]
        fix = "Make a state for the new shapes: state = tx.init(params)."
        raise StructureError(FOLLOW, problem, tuple(rows), fix)


def check_state(expression: str, state: Any) -> None:
    """Checks that it is a state of ``optimizer(tx)``.

    Raises:
        StructureError: it is something else.
    """
    if not isinstance(state, OptimizerState):
        problem = f"got {described(state)}, which is not a state of optimizer(tx)."
        fix = "Make it with the same transformation: state = optimizer(tx).init(params)."
        raise StructureError(expression, problem, (), fix)
