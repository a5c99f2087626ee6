"""Serialization by Flax, which reads only classes that are registered there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

# Flax is optional, and may be imported later.
_WAITING: dict[type, tuple[Callable[..., Any], Callable[..., Any]]] = {}


def serialized(kind: type, write: Callable[..., Any], read: Callable[..., Any]) -> None:
    """Lets ``flax.serialization`` write and read a class.

    Args:
        kind: the class.
        write: ``write(flax, value)`` returns the state dict of a value; `flax` is the module.
        read: ``read(flax, value, state)`` returns the value with the content of a state dict.
    """
    _WAITING[kind] = write, read


def register_waiting() -> None:
    """Registers the classes, if Flax has been imported."""
    if not _WAITING or not hasattr(flax := sys.modules.get("flax.serialization"), "register_serialization_state"):
        return
    while _WAITING:
        kind, (write, read) = _WAITING.popitem()
        flax.register_serialization_state(  # type: ignore[union-attr]
            kind,
            lambda value, write=write: write(flax, value),
            lambda value, state, read=read: read(flax, value, state),
        )
