"""What crosses the frost line: the values behind which nothing depends on a trainable parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Boundary:
    """One value that crosses the line, of one sample.

    Attributes:
        name: the path of the module that computes it, or its name in the trace.
        shape: without the sample's own dimension, which comes first in what ``below`` returns.
        dtype: as the framework calls it, such as ``"float32"``.
        bytes: how many a sample takes.

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
