"""The values that cross the frost line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Boundary:
    """One value that crosses the line, for one sample.

    Attributes:
        name: the path of the module that computes it, or its name in the trace.
        shape: its shape without the dimension of the samples, which is the first dimension of what ``below`` returns.
        dtype: its dtype, such as ``"float32"``.
        bytes: the bytes of one sample.

    Example:
        >>> Boundary("layer3", (256, 10, 10), "float32", 102400)
        Boundary(name='layer3', shape=(256, 10, 10), dtype='float32', bytes=102400)
        >>> print(Boundary("layer3", (256, 10, 10), "float32", 102400))
        layer3 float32[256, 10, 10]
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}{list(self.shape)}"
