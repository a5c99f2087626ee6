"""Values of a call, for people."""

from __future__ import annotations

from typing import Any

import torch


def described(value: Any) -> str:
    """A tensor as its type and shape, another value as itself.

    Example:
        >>> from frostline.torch._cost_text import described
        >>> described(torch.ones(2, 3)), described("mean")
        ('float32[2, 3]', "'mean'")
    """
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}[{', '.join(map(str, value.shape))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {described(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(described, value))})"
    return repr(value)
