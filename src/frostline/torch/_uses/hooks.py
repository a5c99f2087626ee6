"""The hooks of a layer, which run in its frozen uses too."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

from torch import nn

from frostline.torch._uses.rebinding import Rebinding

HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def copied_hooks(module: nn.Module) -> Iterator[tuple[int, OrderedDict[int, Any]]]:
    """Yields, for each registry of hooks, its ``id`` and a copy that holds the very same hooks.

    Hooks are not copied: one that records would go on recording into a copy that nobody reads.
    """
    for name in HOOKS:
        hooks = module.__dict__.get(name)
        if hooks is not None:
            yield id(hooks), OrderedDict(hooks)


def is_of_sharding(hook: Any) -> bool:
    """Whether ``fully_shard`` has registered the hook."""
    home = hook if isinstance(hook, FunctionType) else type(getattr(hook, "__self__", hook))
    return home.__module__.startswith("torch.distributed.fsdp.")


class HookSlot:
    """One registry of hooks of a layer's module, and the view's own.

    A hook of the layer runs in its frozen uses; a hook of the view (sharding libraries add some)
    runs in that use alone.
    """

    __slots__ = ("copied", "layer", "original", "rebinding", "taken", "view")

    def __init__(self, original: nn.Module, copied: nn.Module, name: str, rebinding: Callable[[], Rebinding]) -> None:
        self.original = original
        self.copied = copied
        self.layer: dict[int, Any] = vars(original)[name]
        self.view: dict[int, Any] = vars(copied)[name]
        self.rebinding = rebinding
        self.taken: tuple[int, ...] = ()
        self.follow()

    def follow(self) -> None:
        """Gives the view the hooks that the layer gained, and drops those that it lost, in place."""
        now = tuple(self.layer)
        if now != self.taken:
            for lost in set(self.taken) - set(now):
                self.view.pop(lost, None)
            rebinding = self.rebinding()
            for gained in set(now) - set(self.taken):
                # Those of a sharding library gather the tensors of the layer itself, and shard them again.
                if not is_of_sharding(self.layer[gained]):
                    self.view[gained] = rebinding.of(self.layer[gained])
            self.taken = now
        if self.original._is_full_backward_hook is not None:
            self.copied._is_full_backward_hook = self.original._is_full_backward_hook

    @property
    def is_current(self) -> bool:
        """Whether the layer has the hooks that it had."""
        return len(self.layer) == len(self.taken) and (not self.taken or tuple(self.layer) == self.taken)
