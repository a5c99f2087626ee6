"""Frozen uses of a layer: constant here, trainable elsewhere."""

from __future__ import annotations

import copy
import functools
import types
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import torch
from torch import nn

from frostline._core.errors import ModeError, UnsupportedError
from frostline.torch._holding.calls import held_call, held_hooks, is_traced, run_again_in_backward
from frostline.torch._holding.classes import original_class
from frostline.torch._holding.lbfgs import keep_lbfgs_to_trainable
from frostline.torch._uses.counterparts import Mode
from frostline.torch._uses.view import View

Layer = TypeVar("Layer", bound=nn.Module)


class Frozen(nn.Module):
    """A frozen use of a layer.

    ``Frozen(layer)`` computes what `layer` computes and passes the gradient on to its input, but
    no gradient reaches a parameter of `layer` through it, and nothing in `layer` moves. The layer
    is not changed: used as it is elsewhere, it trains, and the frozen use sees its new values.

    The result looks like the layer: it is an instance of the layer's class too, with the layer's
    attributes, and a model with it has the state dict of the model without it. Its parameters
    share the layer's storage and do not require a gradient, so that an optimizer that is handed
    all of a model's parameters has nothing to move.

    Args:
        layer: any ``nn.Module`` but a scripted one.
        mode: ``"eval"`` holds the use in evaluation mode (statistics and dropout are off);
            ``"follow"`` follows ``train()`` and ``eval()``, but still moves nothing.

    Raises:
        TypeError: `layer` is not an ``nn.Module``.
        ModeError: `mode` is neither of the two.
        UnsupportedError: the layer is scripted, has lazy parameters, or its structure cannot be copied.

    Source: the request to Flux, https://github.com/FluxML/Flux.jl/issues/1931; in PyTorch,
    https://github.com/pytorch/pytorch/issues/2655.

    Example:
        >>> l1, l2, l3 = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        >>> model = nn.Sequential(l1, Frozen(l2), l3)
        >>> model(torch.ones(3, 4)).sum().backward()
        >>> l1.weight.grad is None, l2.weight.grad is None, l3.weight.grad is None
        (False, True, False)
    """

    _view: View

    def __new__(cls, layer: Layer | None = None, mode: Mode = "eval", **others: Any) -> Layer:  # type: ignore[misc]
        """Returns an instance of the layer's class and of this one, which a type checker may take for the layer."""
        if others:  # libraries for meta-learning make a module again from a subclass of its class
            raise UnsupportedError(
                f"{cls.__name__}({', '.join(f'{name}=...' for name in others)})",
                "makes a frozen use again with arguments of another class.",
                "Freeze the layer itself, in a model of its own: freeze(model, 'path.of.the.layer').",
            )
        if layer is None:  # DataParallel makes replicas this way; Frozen() itself fails in __init__
            return cast(Layer, object.__new__(cls))
        _validate(layer, mode)
        return cast(Layer, object.__new__(_class_of_uses(original_class(_layer_of(layer)))))  # type: ignore[arg-type]

    if not TYPE_CHECKING:  # a type checker would take its result for that of the call

        def __init__(self, layer: nn.Module, mode: Mode = "eval") -> None:
            keep_lbfgs_to_trainable()
            View(_layer_of(layer), self, mode)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Here and not in forward, because hooks of the layer compute weights (spectral_norm) too.
        view, call = self._view, _layer_class(self).__call__
        if "_is_replica" in self.__dict__:  # its tensors are copies that nothing else moves
            return held_call(self, call, args, kwargs)
        if view.uncompiled is not None and torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            return view.uncompiled(args, kwargs)
        if is_traced():
            self._refresh()
            with view.swapped():
                return held_call(self, call, args, kwargs)
        self._take_class()
        if view.checkpoints:
            return run_again_in_backward(self, self._call, args, kwargs)
        return self._call(args, kwargs)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            self._view.begin_call()
            return held_call(self, _layer_class(self).__call__, args, kwargs, self._view.swaps)
        finally:
            self._view.end_call()

    def _get_backward_hooks(self) -> tuple[list[Any], list[Any]]:
        full, others = super()._get_backward_hooks()
        return held_hooks(self, full), held_hooks(self, others)

    def _get_backward_pre_hooks(self) -> list[Any]:
        return held_hooks(self, super()._get_backward_pre_hooks())

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - as nn.Module.train
        """Sets the mode of a use with ``mode="follow"``; any other one stays in evaluation mode."""
        self._view.set_mode(training=mode)
        return self

    def named_modules(self, *args: Any, **kwargs: Any) -> Any:
        """Does what it does in ``nn.Module``. Every walk over a model comes through here, so it sees current values."""
        self._refresh()
        return super().named_modules(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the state dict of the layer, under the layer's own names."""
        self._refresh()
        return super().state_dict(*args, **kwargs)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:  # noqa: FBT001, FBT002 - as nn.Module
        # Not every layer's own _apply knows the second argument.
        self._view.layer._apply(*(fn,) if recurse else (fn, recurse))
        self._refresh()
        return self

    def _refresh(self) -> None:
        if torch.compiler.is_compiling():
            return  # a compiled call reads the layer's tensors by itself
        self._take_class()
        self._view.refresh()

    def _take_class(self) -> None:
        layer_class = original_class(self._view.layer)
        if layer_class is not type(self).__mro__[2]:  # a parametrization gives the layer a new class
            self.__class__ = _class_of_uses(layer_class)  # type: ignore[arg-type]

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        return _restore(copy.deepcopy(self._view.layer, memo), self._view.mode, self.training)

    def __copy__(self) -> nn.Module:
        return _restore(self._view.layer, self._view.mode, self.training)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _restore, (self._view.layer, self._view.mode, self.training)


def frozen_call(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Computes ``layer(*args, **kwargs)`` as a frozen use, without a wrapper.

    Args:
        layer: any ``nn.Module``; it is not changed.
        args: the arguments of the layer.
        kwargs: the keyword arguments of the layer.

    Raises:
        TypeError: `layer` is not an ``nn.Module``.
        UnsupportedError: as for :class:`Frozen`.

    Example:
        >>> critic = nn.Linear(4, 1)
        >>> action = torch.ones(2, 4, requires_grad=True)
        >>> frozen_call(critic, action).sum().backward()
        >>> action.grad is None, critic.weight.grad is None
        (False, True)
    """
    _validate(layer, "eval")
    use = layer.__dict__.setdefault("_frostline_use", _UseOfCalls())
    return use.of(layer)(*args, **kwargs)


class _UseOfCalls:
    """The frozen use that `frozen_call` stores with a layer; it is not copied with the layer."""

    def __init__(self) -> None:
        self.frozen: nn.Module | None = None

    def of(self, layer: nn.Module) -> nn.Module:
        if self.frozen is None:
            self.frozen = Frozen(layer)
        return self.frozen

    def __deepcopy__(self, memo: dict[int, Any]) -> _UseOfCalls:
        return _UseOfCalls()

    def __reduce__(self) -> Any:
        return _UseOfCalls, ()


@functools.lru_cache(maxsize=256)
def _class_of_uses(layer_class: type[nn.Module]) -> type[Frozen]:
    """Returns the class of frozen uses of layers of one class, made as FSDP2 and parametrizations do."""
    body: dict[str, Any] = {"__module__": __name__, "__doc__": Frozen.__doc__}
    if hasattr(layer_class, "__getitem__"):
        body["__getitem__"] = _item
    if issubclass(layer_class, nn.modules.batchnorm._NormBase):
        body["reset_running_stats"] = _keep
    return types.new_class(f"Frozen{layer_class.__name__}", (Frozen, layer_class), exec_body=lambda ns: ns.update(body))


def _keep(use: Any) -> None:
    """Leaves statistics alone that a weight average would reset, to measure them anew."""


def _item(use: Any, index: Any) -> nn.Module:
    """Returns a frozen use of a slice of a container, or the view's own item."""
    if isinstance(index, slice):
        return Frozen(use._view.layer[index], use._view.mode)
    item: nn.Module = super(Frozen, use).__getitem__(index)
    return item


def _layer_class(use: Frozen) -> type[nn.Module]:
    return type(use).__mro__[2]


def _layer_of(layer: nn.Module) -> nn.Module:
    """Returns the layer itself: a frozen use of a frozen use is a frozen use of the layer."""
    return layer._view.layer if isinstance(layer, Frozen) else layer


def _validate(layer: object, mode: str) -> None:
    if mode not in ("eval", "follow"):
        raise ModeError(mode)
    if isinstance(layer, torch.jit.ScriptModule):
        raise UnsupportedError(
            f"Frozen({type(layer).__name__})",
            "is a scripted module, whose parameters cannot be replaced by constants.",
            "Make the frozen use first, then script what contains it.",
        )
    if not isinstance(layer, nn.Module):
        raise TypeError(
            f"Frozen takes a layer, an nn.Module; this is of type {type(layer).__name__}.\n"
            "To freeze by name: frostline.torch.freeze(model, 'encoder')."
        )


def _restore(layer: nn.Module, mode: Mode, training: bool) -> nn.Module:  # noqa: FBT001 - pickle calls it
    made = Frozen(layer, mode)
    made.train(training)
    return made
