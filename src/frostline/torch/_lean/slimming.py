"""Slimming: hooks that make the saved tensors of each call smaller."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from frostline.torch._autograd.reads import MISSING, ModuleCall
from frostline.torch._lean.slim import slim, storage_of
from frostline.torch._tensors import tensors


def attach(model: nn.Module) -> Callable[[], None]:
    """Makes each call of a model, and of its modules, save less for backward, in place.

    Gradients are bitwise the same. No module is replaced: after a call, the nodes that it added to
    autograd's graph are visited, and a saved tensor that no remaining gradient reads is dropped or kept in
    a smaller form.

    Args:
        model: the model.

    Returns:
        A function that undoes it.

    Example:
        >>> from frostline.torch._lean.slimming import attach
        >>> layer = nn.Conv2d(1, 1, 3).requires_grad_(False)
        >>> detach = attach(layer)
        >>> y = layer(torch.zeros(1, 1, 99, 99, requires_grad=True))
        >>> y.grad_fn._raw_saved_input.data[0]  # its shape, and no value
        torch.Size([1, 1, 99, 99])
        >>> detach()
    """
    if MISSING:
        _warn(tuple(MISSING))
    return Slimming(model).take


def detach(model: nn.Module) -> None:
    """Removes every slimming from a model and its parts, in place, including one that came with a copy."""
    for module in model.modules():
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            if isinstance(hook, Site | Slimming):
                hook.take()


def taken_from(copied: nn.Module) -> list[nn.Module]:
    """Removes from a copy, in place, the hooks that it shares with the original, which keeps them.

    Returns:
        The modules whose originals are slimmed.
    """
    found = []
    for module in copied.modules():
        for registry in (module._forward_pre_hooks, module._forward_hooks):
            ours = [key for key, hook in registry.items() if isinstance(hook, Site | Slimming)]
            found += [module for key in ours if isinstance(registry.pop(key), Slimming)]
    return found


def look(model: nn.Module) -> None:
    """Makes each call of a model and of its modules save less, in place and permanently."""
    for module in filter(_can_be_called, model.modules()):
        Site().put(module)


@cache
def _warn(missing: tuple[str, ...]) -> None:
    text = f"PyTorch {torch.__version__} has no {', '.join(missing)}. Tensors with these names are saved as before."
    warnings.warn(text, stacklevel=4)


@final
class Site:
    """The hook of one module, which visits the graph after each call.

    Attributes:
        was_called: whether the module was called while gradients were enabled.
        made_graph: whether such a call added to a graph.
        is_useful: whether a tensor was made smaller, or would have been without the hooks of another saver.
    """

    def __init__(self) -> None:
        self.was_called = self.made_graph = self.is_useful = False
        self.handle: RemovableHandle | None = None

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        if _is_left_alone():
            return
        self.was_called = True
        results = list(tensors(result))
        tops = _nodes(results)
        if tops:
            self.made_graph = True
            storages = frozenset(map(storage_of, results))
            self.is_useful |= slim(ModuleCall(module, tops, _nodes(tensors((*args, *kwargs.values()))), storages))

    def put(self, module: nn.Module) -> None:
        """Adds the hooks, in place. Idempotent."""
        self.was_called = self.made_graph = self.is_useful = False
        if self.handle is None:
            self.handle = module.register_forward_hook(self, with_kwargs=True)

    def take(self) -> None:
        """Removes the hooks, in place. Idempotent."""
        if self.handle is not None:
            self.handle.remove()
            self.handle = None


@final
class Slimming:
    """The hooks of a model: on every module at first, and then on those where a rule applied.

    The rules that apply depend on the trainable set, the modes, the sizes of inputs, and the inputs that require a
    gradient. When one of these changes, every module gets its hook again. This also happens when another slimming is
    attached or removed, because it may have done the work of this one.

    Attributes:
        changes: the number of times that a slimming was attached or removed.
    """

    changes = 0

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.sites = {module: Site() for module in root.modules() if _can_be_called(module)}
        self.state: tuple[int, ...] | None = None
        self.is_settled = False
        self.size = 0
        self.handle = root.register_forward_pre_hook(self, with_kwargs=True)
        self._put_all()
        Slimming.changes += 1

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if _is_left_alone() or module is not self.root:  # a replica has the hooks of the original
            return
        state = self._state(args, kwargs)
        if state != self.state:
            self.state, self.is_settled = state, False
            self._put_all()
        elif not self.is_settled:
            self._prune()

    def take(self) -> None:
        """Removes every hook, in place. Idempotent."""
        Slimming.changes += 1
        self.handle.remove()
        for site in self.sites.values():
            site.take()

    def _state(self, args: Any, kwargs: Any) -> tuple[int, ...]:
        inputs = list(tensors((*args, *kwargs.values())))
        # A tensor that was too small may be large enough in a larger call.
        self.size = max(self.size, *(tensor.numel().bit_length() for tensor in inputs if type(tensor) is Tensor), 0)
        return (
            Slimming.changes,
            self.size,
            *(tensor.requires_grad for tensor in inputs),
            *(module.training for module in self.sites),
            *(p.requires_grad for module in self.sites for p in module._parameters.values() if p is not None),
        )

    def _put_all(self) -> None:
        for module, site in self.sites.items():
            site.put(module)

    def _prune(self) -> None:
        self.is_settled = any(site.made_graph for site in self.sites.values())
        if self.is_settled:
            for site in self.sites.values():
                if site.was_called and not site.is_useful:
                    site.take()


def _nodes(of: Iterable[Tensor]) -> frozenset[Node]:
    return frozenset(tensor.grad_fn for tensor in of if tensor.grad_fn is not None)


def _is_left_alone() -> bool:
    """Whether there is no graph, or a compiler, torch.func or a tracer handles it."""
    return (
        torch.compiler.is_compiling()
        or not torch.is_grad_enabled()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.jit.is_tracing()
    )


def _can_be_called(module: nn.Module) -> bool:
    # A ModuleList has no forward of its own; a scripted module takes no hooks.
    has_forward = type(module).forward is not nn.Module.forward or "forward" in module.__dict__
    return has_forward and not isinstance(module, torch.jit.ScriptModule)
