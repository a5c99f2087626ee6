"""Haiku: frozen uses at construction, and held modules of an existing model; parameters and state stay dicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar, final

import haiku as hk
import jax

from frostline._core.plan import Plan
from frostline.integrations._evaluation import Keys, frozen_modules, in_evaluation, is_within, no_layer, restored
from frostline.jax import plan as plan_of
from frostline.jax._uses.window import stopped

MODES = {"is_training": False, "training": False, "train": False, "update_stats": False, "dropout_rate": 0.0}
Net = TypeVar("Net", hk.Transformed, hk.TransformedWithState)


@final
class Frozen:
    """A frozen use of a module or function: differentiable with respect to its input, constant in its parameters.

    ``Frozen(hk.Linear)(4)`` is ``Frozen(hk.Linear(4))``. The module trains wherever it is used without ``Frozen``.
    State that the use writes is discarded. It runs in evaluation mode as far as Haiku has one: the arguments
    ``is_training``, ``training``, ``train`` and ``update_stats`` are false in every call of a module inside, and a
    ``dropout_rate`` is 0. A call of ``hk.dropout`` with another argument does not change. ``init`` does not change.

    The dict of parameters does not show frozen uses, so freeze its parameters before an optimizer gets it:
    ``params = follow(params, audit(loss, params, batch).plan)``.

    Raises:
        LayerError: the layer cannot be called.

    Example:
        >>> x = jax.numpy.ones((1, 2))
        >>> net = hk.without_apply_rng(hk.transform(lambda x: hk.Linear(1)(Frozen(hk.Linear(3))(x)).sum()))
        >>> gradient = jax.grad(net.apply)(net.init(jax.random.key(0), x), x)
        >>> {name: bool(layer["b"].any()) for name, layer in gradient.items()}
        {'linear': True, 'linear_1': False}
    """

    __slots__ = ("_frostline",)

    _frostline: Callable[..., Any]

    def __new__(cls, layer: Any) -> Any:
        """Returns the use of a module or function; for a class, a function that creates such uses."""
        if isinstance(layer, Frozen) or (isinstance(layer, partial) and layer.func is _made):
            return layer
        if isinstance(layer, type) and issubclass(layer, hk.Module):
            return partial(_made, layer)
        if not isinstance(layer, hk.Module) and not callable(layer):
            raise no_layer(layer, "a module of Haiku or a function")
        use = object.__new__(cls)
        use._frostline = layer
        return use

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls it, frozen."""
        with _use():
            if not hk.running_init():
                args, kwargs = in_evaluation(self._frostline, args, kwargs, MODES)
            return self._frostline(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        with _use():
            found = getattr(self._frostline, name)
        return jax.tree.map(lambda leaf: Frozen(leaf) if callable(leaf) else leaf, found)


def held(net: Net, plan: Plan) -> Net:
    """Returns a transformed function whose ``apply`` runs held modules in evaluation mode and keeps their state.

    Args:
        net: the result of ``hk.transform`` or ``hk.transform_with_state``.
        plan: the plan of the parameters: ``plan(params)``.

    Raises:
        PlanMismatchError: in a call of ``apply``: the plan has other paths than the parameters.

    Example:
        >>> from frostline.jax import freeze
        >>> x, norm = jax.numpy.ones((2, 1)), lambda x: hk.BatchNorm(True, True, 0.9)(x, is_training=True)
        >>> net = hk.transform_with_state(norm)
        >>> params, state = net.init(None, x)
        >>> _, moved = held(net, plan_of(freeze(params))).apply(params, state, None, x)
        >>> int(moved["batch_norm/~/mean_ema"]["counter"])
        0
    """
    modules = frozen_modules(plan, lambda path: tuple(path.rpartition(".")[0].split("/")))

    def apply(params: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        plan.change_to(plan_of(params))
        with hk.intercept_methods(partial(_evaluated, modules=modules)):
            out = net.apply(params, *args, **kwargs)
        if not isinstance(net, hk.TransformedWithState):
            return out
        state = args[0] if args else kwargs["state"]
        return out[0], restored(out[1], state, lambda keys: _is_in(keys[0], modules))

    return net._replace(apply=apply)


def _made(layer: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return Frozen(layer(*args, **kwargs))


@contextmanager
def _use() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(hk.custom_getter(_stopped, params=True, state=True))
        # The initial state and the random numbers of parameters are those of the model without freezing.
        if not hk.running_init():
            stack.enter_context(hk.custom_setter(lambda next_setter, value, context: hk.DO_NOT_STORE))
            stack.enter_context(hk.intercept_methods(_evaluated))
        yield


def _stopped(next_getter: Any, value: Any, _: Any) -> Any:
    return next_getter(jax.tree.map(stopped, value))


def _evaluated(next_f: Any, args: Any, kwargs: Any, context: Any, modules: Set[Keys] | None = None) -> Any:
    # A module has no name before its construction.
    if modules is None or _is_in(getattr(context.module, "module_name", ""), modules):
        args, kwargs = in_evaluation(context.orig_method, args, kwargs, MODES)
    return next_f(*args, **kwargs)


def _is_in(name: str, modules: Set[Keys]) -> bool:
    return is_within(tuple(name.split("/")), modules)
