"""The tensors in what a module is given or gives back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in a value: in tuples, lists, mappings, dataclasses and whatever is a registered pytree.

    Example:
        >>> from frostline.torch._tensors import tensors
        >>> [t.item() for t in tensors({"a": torch.tensor(1), "b": [torch.tensor(2), None]})]
        [1, 2]
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, Mapping):
        yield from tensors(tuple(value.values()))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from tensors(tuple(getattr(value, field.name) for field in dataclasses.fields(value)))
    elif type(value) in pytree.SUPPORTED_NODES:
        yield from tensors(tuple(pytree.tree_leaves(value)))
