"""Differentiation with respect to the trainable leaves of a tree."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, overload

import jax

from frostline._core.errors import NothingTrainableError, UnsupportedError
from frostline._core.plan import Plan
from frostline.jax._freezing.marked import is_marked
from frostline.jax._freezing.parts import beside, join, parts
from frostline.jax._freezing.survey import Survey, survey
from frostline.jax._uses.use import FrozenArray

Tree = TypeVar("Tree")
Value = TypeVar("Value")
Aux = TypeVar("Aux")
Rest = ParamSpec("Rest")


@overload
def value_and_grad(
    fn: Callable[Concatenate[Tree, Rest], Value],
    argnums: int = 0,
    *,
    frozen: Plan | None = None,
    has_aux: Literal[False] = False,
) -> Callable[Concatenate[Tree, Rest], tuple[Value, Tree]]: ...


@overload
def value_and_grad(
    fn: Callable[Concatenate[Tree, Rest], tuple[Value, Aux]],
    argnums: int = 0,
    *,
    frozen: Plan | None = None,
    has_aux: Literal[True],
) -> Callable[Concatenate[Tree, Rest], tuple[tuple[Value, Aux], Tree]]: ...


def value_and_grad(
    fn: Callable[..., Any], argnums: int = 0, *, frozen: Plan | None = None, has_aux: bool = False
) -> Callable[..., Any]:
    """Like ``jax.value_and_grad``, over the trainable leaves of the first argument only.

    The gradient has the shape of that argument, with None at frozen leaves. So a loop logs, clips and accumulates the
    trainable part alone, and no operation is spent on the rest. `fn` gets a tree without marks, with its frozen uses,
    and with held modules in evaluation mode. A loss that differentiates that tree again must mark it again:
    ``follow(tree, plan)``.

    Args:
        fn: ``fn(tree, *args, **kwargs)``, returning a scalar, or ``(scalar, aux)`` with `has_aux`.
        argnums: must be 0.
        frozen: a plan beside an unmarked tree, ``plan(tree, "encoder")``. Without it the marks of the tree say what is
            frozen.
        has_aux: whether `fn` returns ``(scalar, aux)``.

    Returns:
        A function of the same arguments that returns ``(value, gradient)``, or ``((value, aux), gradient)``.

    Raises:
        UnsupportedError: `argnums` is not 0.
        NothingTrainableError: when called: the tree has nothing to train.
        StructureError, PlanMismatchError, PinnedError: when called: the plan does not fit the tree.
        SamePathError: when called: two leaves of the tree have one name.

    Example:
        >>> params = {"w": jnp.ones(2), "b": jnp.zeros(2)}
        >>> loss_and_grad = value_and_grad(lambda p, x: (p["w"] * x + p["b"]).sum(), frozen=plan(params, "w"))
        >>> value, gradient = loss_and_grad(params, 2.0)
        >>> value, gradient["w"], gradient["b"]
        (Array(4., dtype=float32), None, Array([1., 1.], dtype=float32))
    """
    return _over_trainable(jax.value_and_grad, "value_and_grad", fn, argnums, frozen, has_aux=has_aux)


@overload
def grad(
    fn: Callable[Concatenate[Tree, Rest], Any],
    argnums: int = 0,
    *,
    frozen: Plan | None = None,
    has_aux: Literal[False] = False,
) -> Callable[Concatenate[Tree, Rest], Tree]: ...


@overload
def grad(
    fn: Callable[Concatenate[Tree, Rest], tuple[Any, Aux]],
    argnums: int = 0,
    *,
    frozen: Plan | None = None,
    has_aux: Literal[True],
) -> Callable[Concatenate[Tree, Rest], tuple[Tree, Aux]]: ...


def grad(
    fn: Callable[..., Any], argnums: int = 0, *, frozen: Plan | None = None, has_aux: bool = False
) -> Callable[..., Any]:
    """Like ``jax.grad``, over the trainable leaves of the first argument only; see :func:`value_and_grad`.

    Raises:
        UnsupportedError: `argnums` is not 0.
        NothingTrainableError: when called: the tree has nothing to train.
        StructureError, PlanMismatchError, PinnedError: when called: the plan does not fit the tree.
        SamePathError: when called: two leaves of the tree have one name.

    Example:
        >>> model = [jnp.ones(2), Frozen({"w": jnp.ones(2)})]
        >>> grad(lambda model: (model[0] * model[1]["w"]).sum())(model)
        [Array([1., 1.], dtype=float32), Frozen({'w': None})]
    """
    return _over_trainable(jax.grad, "grad", fn, argnums, frozen, has_aux=has_aux)


def _over_trainable(
    transform: Callable[..., Any],
    name: str,
    fn: Callable[..., Any],
    argnums: Any,
    frozen: Plan | None,
    *,
    has_aux: bool,
) -> Callable[..., Any]:
    if argnums != 0 or isinstance(argnums, bool):
        raise UnsupportedError(
            f"{name}(fn, argnums={argnums!r})",
            "differentiates an argument other than the first, but only the first is split into a trainable part and "
            "the rest.",
            f"Put everything that trains into one tree: {name}(lambda models, batch: ...)((model, other), batch).",
        )

    @wraps(fn)
    def differentiated(tree: Any, /, *args: Any, **kwargs: Any) -> Any:
        read = survey(tree, frozen)
        _check_trainable(read, name)
        trained, rest = parts(read)

        def of_trained(trained: Any) -> Any:
            return fn(seen(beside(join(trained, rest), frozen)), *args, **kwargs)

        return transform(of_trained, has_aux=has_aux)(trained)

    return differentiated


def seen(tree: Any) -> Any:
    """The tree that a loss gets: without marks, and without gradients at frozen leaves."""
    return jax.tree.map(lambda node: seen(node._frostline.seen()) if _opens(node) else node, tree, is_leaf=_opens)


def _opens(node: object) -> bool:
    return is_marked(node) or type(node) is FrozenArray


def _check_trainable(read: Survey, name: str) -> None:
    if not read.trainable:
        raise NothingTrainableError(f"{name}(fn)(tree)", len(read.places), len(read.pinned), len(read.leaves))
