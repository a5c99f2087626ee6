"""Frozen uses of linen modules: their scope, their variables and their mode."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Set
from typing import Any, cast

import jax
from flax import linen as nn
from flax.core import DenyList, Scope

from frostline.integrations import _evaluation
from frostline.integrations._evaluation import Keys
from frostline.jax._uses.window import stopped

MODES = {"deterministic": True, "use_running_average": True, "update_stats": False}
MODES |= {"train": False, "training": False, "is_training": False}
# These collections belong to one call or to a sequence of calls, and not to a layer.
OF_CALLS = ("cache", "intermediates", "perturbations")


def use_of(layer: nn.Module) -> LinenUse:
    """Returns a frozen use of a layer; a frozen use is returned unchanged."""
    if isinstance(layer, LinenUse):
        return layer
    # A layer with a scope gives it to the use, so that the use can be created anywhere.
    return LinenUse(layer) if layer.scope is None else LinenUse(layer, parent=cast(Any, layer.scope), name=layer.name)


class LinenUse(nn.Module):
    """A frozen use: a module with the scope of its layer, so that it adds nothing to a name.

    It has only one attribute of its own, so that it hides no attribute of the layer.
    """

    _frostline: nn.Module

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scope is None:
            return
        if self._frostline.parent is self:
            _place(self._frostline, self.scope)
        else:
            vars(self)["scope"] = self._frostline.scope

    # Interceptors get the call of the layer.
    @nn.nowrap
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _called(self._frostline, "__call__", args, kwargs)

    @property
    def variables(self) -> Any:
        return jax.tree.map(stopped, self._frostline.variables)

    @nn.nowrap
    def get_variable(self, *args: Any, **kwargs: Any) -> Any:
        return jax.tree.map(stopped, self._frostline.get_variable(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattr__(name)
        found = getattr(self._frostline, name)
        if inspect.ismethod(found):
            return lambda *args, **kwargs: _called(self._frostline, name, args, kwargs)
        return jax.tree.map(lambda leaf: use_of(leaf) if isinstance(leaf, nn.Module) else leaf, found)


def evaluated(
    next_fun: Callable[..., Any], args: Any, kwargs: Any, context: Any, modules: Set[Keys] | None = None
) -> Any:
    """An interceptor that runs calls in evaluation mode: those of these modules and of modules below, or all calls."""
    module = context.module
    if modules is not None and (module.scope is None or not _evaluation.is_within(keys_of(module.path), modules)):
        return next_fun(*args, **kwargs)
    fields = {field.name for field in dataclasses.fields(module)} & MODES.keys()
    said = {name: MODES[name] for name in fields if _evaluation.says_mode(getattr(module, name), MODES[name])}
    args, kwargs = _evaluation.in_evaluation(context.orig_method, args, kwargs, MODES, said)
    with _evaluation.attributes(module, said):
        return next_fun(*args, **kwargs)


def keys_of(path: Iterable[str]) -> Keys:
    """Returns the keys of a module as in a plan, where a dot in a name also separates keys."""
    return tuple(key for name in path for key in name.split("."))


def _place(module: nn.Module, scope: Scope) -> None:
    """Moves a module and the modules below it to a scope, which gives them their names and random numbers."""
    vars(module)["scope"] = scope
    fields = [getattr(module, field.name) for field in dataclasses.fields(module) if field.name != "parent"]
    for child in jax.tree.leaves(fields):
        if isinstance(child, nn.Module) and child.parent is module:
            _place(child, scope if isinstance(module, LinenUse) else scope.push(child.name, reuse=True))


def _called(layer: nn.Module, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    def use(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with nn.intercept_methods(evaluated):
            return getattr(type(module), method)(module, *args, **kwargs)

    if layer.scope is None or layer.is_initializing():
        return use(layer, *args, **kwargs)
    saved: list[dict[str, Any]] = []

    def stop(variables: dict[str, Any]) -> Any:
        saved.append({name: collection for name, collection in variables.items() if collection})
        return jax.tree.map(stopped, variables)

    def restore(variables: dict[str, Any]) -> dict[str, Any]:
        # Existing variables stay unchanged; variables that a call adds, such as sown losses, are kept.
        return {**variables, **saved.pop(0)}

    return nn.map_variables(use, DenyList(OF_CALLS), stop, restore, mutable=True)(layer, *args, **kwargs)
