"""The programs that functions are compiled to, to see which arrays are constants in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import pytest

# The elements of a constant, as the text of a program shows them.
_CONSTANT = re.compile(r'dense<"?([^>]*)"?>')


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The text of each program that ``jax.jit`` compiles from now on, once for each structure of arguments."""
    texts: list[str] = []
    compiled = jax.jit

    def jit(fn: Callable[..., Any] | None = None, **options: Any) -> Any:
        return _Recorded(compiled(fn, **options), texts) if fn is not None else lambda fn: jit(fn, **options)

    monkeypatch.setattr(jax, "jit", jit)
    return texts


def longest_constant(text: str) -> int:
    """The characters of the longest constant in a program; an array has at least one for each element."""
    return max(map(len, _CONSTANT.findall(text)), default=0)


class _Recorded:
    def __init__(self, compiled: Any, texts: list[str]) -> None:
        self._compiled, self._texts = compiled, texts
        self._known: set[Any] = set()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        structure = jax.tree.structure((args, kwargs))
        if structure not in self._known:
            self._known.add(structure)
            self._texts.append(self._compiled.lower(*args, **kwargs).as_text())
        return self._compiled(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiled, name)
