"""Flax linen: frozen uses at construction, and held modules of an existing model.

Variables stay plain dicts, with the same names as without freezing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any, final

from flax import linen as nn

from frostline._core.plan import Plan
from frostline.integrations._evaluation import Keys, frozen_modules, is_within, no_layer, restored
from frostline.integrations._linen_use import OF_CALLS, evaluated, keys_of, use_of
from frostline.jax import plan as plan_of


@final
class Frozen:
    """A frozen use of a layer: differentiable with respect to its input, constant with respect to the layer.

    ``Frozen(nn.Dense)(4)`` is ``Frozen(nn.Dense(4))``; it works in ``setup``, in compact methods, as a field and at
    the root. The layer trains wherever it is used without ``Frozen``. The use runs in evaluation mode: it sets the
    arguments and fields ``deterministic``, ``use_running_average``, ``update_stats``, ``train``, ``training`` and
    ``is_training`` of the layer and of the layers below it. Writes of the layer into its variables are discarded,
    except for sown values and its ``cache``.

    The dict of parameters does not show frozen uses, so freeze its parameters before an optimizer gets it:
    ``params = follow(params, audit(loss, params, batch).plan)``.

    Raises:
        LayerError: the argument is not a linen module.

    Example:
        >>> import jax
        >>> x, model = jax.numpy.ones((1, 2)), nn.Sequential([Frozen(nn.Dense(3)), nn.Dense(1)])
        >>> variables = model.init(jax.random.key(0), x)
        >>> gradient = jax.grad(lambda variables: model.apply(variables, x).sum())(variables)["params"]
        >>> {name: bool(layer["bias"].any()) for name, layer in gradient.items()}
        {'layers_0': False, 'layers_1': True}
    """

    def __new__(cls, layer: Any) -> Any:
        """Returns the use of a layer; for a class, a function that creates such uses."""
        if isinstance(layer, nn.Module):
            return use_of(layer)
        made = layer.func if isinstance(layer, partial) else layer
        if made is _made:
            return layer
        if isinstance(made, type) and issubclass(made, nn.Module):
            return partial(_made, layer)
        raise no_layer(layer, "a module of linen")


def held(apply: Callable[..., Any], plan: Plan) -> Callable[..., Any]:
    """Returns ``model.apply`` with held modules in evaluation mode, whose variables do not change.

    Args:
        apply: the ``apply`` of a model.
        plan: the plan of the tree that will be ``variables["params"]``: ``plan(params)``.

    Raises:
        PlanMismatchError: in a call: the plan has other paths than the parameters.

    Example:
        >>> import jax
        >>> from frostline.jax import freeze
        >>> x, model = jax.numpy.ones((2, 1)), nn.BatchNorm(use_running_average=False)
        >>> variables = model.init(jax.random.key(0), x)
        >>> apply = held(model.apply, plan_of(freeze(variables["params"])))
        >>> apply(variables, x, mutable=["batch_stats"])[1]["batch_stats"]["mean"].tolist()
        [0.0]
    """
    modules = frozen_modules(plan, lambda path: keys_of([path])[:-1])

    def stays(keys: Keys) -> bool:
        return keys[0] not in OF_CALLS and is_within(keys_of(keys[1:-1]), modules)

    @wraps(apply)
    def apply_held(variables: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        plan.change_to(plan_of(variables["params"]))
        with nn.intercept_methods(partial(evaluated, modules=modules)):
            out = apply(variables, *args, **kwargs)
        is_pair = any(kwargs.get(name, False) is not False for name in ("mutable", "capture_intermediates"))
        return (out[0], restored(out[1], variables, stays)) if is_pair else out

    return apply_held


def _made(layer: Callable[..., nn.Module], *args: Any, **kwargs: Any) -> Any:
    return use_of(layer(*args, **kwargs))
