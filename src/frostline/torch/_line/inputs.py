"""What a model is called with, and how many samples that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch.utils import _pytree as pytree

from frostline.torch._line import refusals


@final
class Inputs:
    """The shape of a call: what other calls must look like, but for the number of samples.

    Args:
        args: the example, by position.
        kwargs: the example, by name.
        expression: what the user wrote.

    Raises:
        LineError: no tensor is among them, or they do not all have the sample first.
    """

    def __init__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], expression: str) -> None:
        self.leaves, self.spec = pytree.tree_flatten((args, dict(kwargs)))
        tensors = [leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor)]
        lengths = {len(tensor) if tensor.dim() else 0 for tensor in tensors}
        if len(lengths) != 1 or 0 in lengths:
            raise refusals.no_samples(expression, [written([tensor]) for tensor in tensors])
        self.batch = lengths.pop()
        self.device = tensors[0].device

    def flat(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
        """The leaves of a call, once they are known to fit.

        Raises:
            LineError: they do not.
        """
        leaves, spec = pytree.tree_flatten((args, dict(kwargs)))
        same_kind = spec == self.spec and all(map(_fits, leaves, self.leaves))
        if not same_kind or len({len(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor)}) != 1:
            fix = (
                "Only the number of samples may differ; for other shapes draw another line: frostline(model, *inputs)."
            )
            raise refusals.misfit("line.below", written(leaves), written(self.leaves), fix)
        return leaves

    @property
    def example(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The example as a call."""
        return pytree.tree_unflatten(self.leaves, self.spec)

    def zeros(self, batch: int, device: torch.device) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A call of the same shape, with as many samples as one likes."""
        leaves = [
            leaf.new_zeros((batch, *leaf.shape[1:]), device=device) if isinstance(leaf, torch.Tensor) else leaf
            for leaf in self.leaves
        ]
        return pytree.tree_unflatten(leaves, self.spec)

    def alone(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The example with nothing but zeros after its first sample."""
        leaves = list(self.leaves)
        for place, leaf in enumerate(leaves):
            if isinstance(leaf, torch.Tensor):
                leaves[place] = leaf.clone()
                leaves[place][1:] = 0
        return pytree.tree_unflatten(leaves, self.spec)


def _fits(leaf: Any, example: Any) -> bool:
    if isinstance(example, torch.Tensor):
        return (
            isinstance(leaf, torch.Tensor)
            and bool(leaf.dim())
            and ((leaf.shape[1:], leaf.dtype) == (example.shape[1:], example.dtype))
        )
    return bool(leaf is example or leaf == example)


def written(leaves: Sequence[Any]) -> str:
    """Arguments as they are spoken of in an error: ``float32[2, 3, 32, 32]``."""
    return ", ".join(
        f"{str(leaf.dtype).removeprefix('torch.')}{list(leaf.shape)}" if isinstance(leaf, torch.Tensor) else repr(leaf)
        for leaf in leaves
    )
