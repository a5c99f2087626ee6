"""The units of a running model: the unit that runs now, and the unit that made a node of the graph."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, Self, final

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


@final
class Places:
    """Follows a model while it runs. Nodes are numbered in order, so each unit made the nodes of certain intervals.

    The hooks are global, because a module with hooks of its own may run differently, as ``nn.TransformerEncoder`` does.
    """

    def __init__(self, model: nn.Module) -> None:
        self._paths = {id(module): path for path, module in reversed(list(model.named_modules()))}
        self._stack: list[tuple[int, Any]] = []
        self._starts: list[int] = [0]
        self._units: list[str] = [""]

    def __enter__(self) -> Self:
        self._hooks = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    @property
    def current(self) -> str:
        """The path of the unit that runs, or that raised an error."""
        return self._paths[self._stack[-1][0]] if self._stack else ""

    @property
    def given(self) -> tuple[Any, ...]:
        """The positional arguments of that unit."""
        return self._stack[-1][1] if self._stack else ()

    @property
    def is_inside(self) -> bool:
        """Whether any unit runs."""
        return bool(self._stack)

    def of(self, number: int) -> str:
        """The path of the unit that made the node with this sequence number."""
        return self._units[bisect_right(self._starts, number) - 1]

    def _enter(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        if id(module) in self._paths:
            self._stack.append((id(module), given))
            self._note()

    def _leave(self, module: nn.Module, *_: Any) -> None:
        if any(id(module) == key for key, _ in self._stack):
            # Units left by an error that the model caught have ended, too.
            while self._stack.pop()[0] != id(module):
                pass
            self._note()

    def _note(self) -> None:
        self._starts.append(torch.autograd._get_sequence_nr())
        self._units.append(self.current)
