"""The inputs of a model, and their number of samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch.utils import _pytree as pytree

from frostline._core.errors import LineError
from frostline._core.errors.base import counted
from frostline.torch._tensors import described


@final
class Inputs:
    """The form of a call: other calls may differ from it only in the number of samples.

    Args:
        args: the example, by position.
        kwargs: the example, by name.
        expression: the user's own call, for errors.

    Raises:
        LineError: the example has no tensor, or its tensors do not all have the samples first.
    """

    def __init__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], expression: str) -> None:
        self.leaves, self.spec = pytree.tree_flatten((args, dict(kwargs)))
        tensors = [leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor)]
        lengths = {len(tensor) if tensor.dim() else 0 for tensor in tensors}
        if len(lengths) != 1 or 0 in lengths:
            count = counted(len(tensors), "tensor")
            problem = f"has {count} in its example, which must all have the same number of samples first."
            fix = "Give it a batch as the model is called with: frostline(model, inputs)."
            raise LineError(expression, problem, tuple(map(described, tensors)), fix)
        self.batch = lengths.pop()
        self.device = tensors[0].device

    def flat(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
        """Returns the leaves of a call.

        Raises:
            LineError: the call differs from the example in more than the number of samples.
        """
        leaves, spec = pytree.tree_flatten((args, dict(kwargs)))
        fits = spec == self.spec and all(map(_fits, leaves, self.leaves))
        if not fits or len({len(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor)}) != 1:
            given, drawn = (", ".join(map(described, some)) for some in (leaves, self.leaves))
            problem = "does not fit the line, which was drawn for:"
            fix = "Only the number of samples may differ; draw a line for other shapes: frostline(model, *inputs)."
            raise LineError(f"line.below({given})", problem, (drawn,), fix)
        return leaves

    @property
    def example(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the example as a call."""
        return pytree.tree_unflatten(self.leaves, self.spec)

    def zeros(self, batch: int, device: torch.device) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns a call of the same form for any number of samples."""
        leaves = [
            leaf.new_zeros((batch, *leaf.shape[1:]), device=device) if isinstance(leaf, torch.Tensor) else leaf
            for leaf in self.leaves
        ]
        return pytree.tree_unflatten(leaves, self.spec)

    def with_first_alone(self) -> list[Any]:
        """Returns the leaves of the example with zeros after the first sample."""
        leaves = list(self.leaves)
        for place, leaf in enumerate(leaves):
            if isinstance(leaf, torch.Tensor):
                leaves[place] = leaf.clone()
                leaves[place][1:] = 0
        return leaves


def _fits(leaf: Any, example: Any) -> bool:
    if not isinstance(example, torch.Tensor):
        return bool(leaf is example or leaf == example)
    form = example.shape[1:], example.dtype
    return isinstance(leaf, torch.Tensor) and leaf.dim() > 0 and (leaf.shape[1:], leaf.dtype) == form
