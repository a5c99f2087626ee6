"""Checkpointed frozen blocks, which keep their input and repeat their forward in backward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

from frostline.torch._holding.patch import Patch


@final
class CheckpointedForward(Patch):
    """The forward of a checkpointed frozen block: its backward repeats it.

    It is non-reentrant, so that it can be nested and the gradients equal those of the block itself. The state of the
    random number generators is saved only if the block draws from them.
    """

    def __init__(self, module: nn.Module, *, is_random: bool) -> None:
        super().__init__(module)
        self.is_random = is_random

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Computes the block's own forward, and saves only its arguments if it builds a graph."""
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if not any(t.requires_grad for t in tensors) or not self._is_possible():
            return self.__wrapped__(*args, **kwargs)
        run = _Run(self, [(tensor, tensor._version) for tensor in tensors if not tensor.is_inference()])
        preserve = self.is_random or any(module.training for module in self.module.modules())
        return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=preserve, **kwargs)

    def _is_possible(self) -> bool:
        return (
            torch.is_grad_enabled()
            and torch._C._functorch.peek_interpreter_stack() is None
            and not any(parameter.requires_grad for parameter in self.module.parameters())
        )


class _Run:
    """One call of a block, and its repetition in backward."""

    def __init__(self, patch: CheckpointedForward, versions: list[tuple[torch.Tensor, int]]) -> None:
        self.forward = patch.__wrapped__
        self.module = patch.module
        self.versions = versions

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for tensor, version in self.versions:
            if tensor._version != version:  # autograd notices this itself, except inside lists and dicts
                raise RuntimeError(
                    f"An input of {type(self.module).__name__}, of shape {tuple(tensor.shape)}, which a memory budget "
                    f"keeps for backward, has been modified by an inplace operation: it is at version "
                    f"{tensor._version}; expected version {version}. Write into a copy, x.clone(), or leave "
                    f"memory_budget out."
                )
        with _as_frozen(self.module):
            return self.forward(*args, **kwargs)


@contextmanager
def _as_frozen(module: nn.Module) -> Iterator[None]:
    """Repeats the forward of a block as a frozen block, even if it has thawed since."""
    thawed = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in thawed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in thawed:
            parameter.requires_grad_(True)
