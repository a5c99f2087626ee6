"""Codecs: smaller forms of saved tensors that give the same gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf, isinf
from typing import Any, final

import torch
from torch import Tensor


class Codec(ABC):
    """A smaller form of one saved tensor."""

    @abstractmethod
    def pack(self, tensor: Tensor) -> Any:
        """Returns the smaller form of the tensor."""

    @abstractmethod
    def unpack(self, kept: Any) -> Tensor:
        """Returns a tensor of the same shape, strides and dtype that gives the same gradient."""


@final
@dataclass(frozen=True)
class ShapeOnly(Codec):
    """The shape alone: backward reads the shape and strides of the tensor, and none of its values.

    Backward gets uninitialised memory with the same strides. One expanded element would take less, but kernels
    are chosen by the strides: another kernel is slower on a CPU, and may round differently.
    """

    def pack(self, tensor: Tensor) -> Any:
        """Returns the shape, strides, dtype and device."""
        return tensor.size(), tensor.stride(), tensor.dtype, tensor.device

    def unpack(self, kept: Any) -> Tensor:
        """Returns memory of this shape."""
        size, stride, dtype, device = kept
        return torch.empty_strided(size, stride, dtype=dtype, device=device)


@final
@dataclass(frozen=True)
class NonZeroMask(Codec):
    """Whether an element is zero, in a byte; unpacked as 0 and 1 / `divisor`.

    This is enough for the result of a ReLU, which is never negative, and for the noise of a dropout. NaN is not zero,
    and a ReLU passes its gradient.
    """

    divisor: float = 1.0

    def pack(self, tensor: Tensor) -> Any:
        """Converts to bool, which is several times as fast as a comparison with 0."""
        return tensor.bool(), tensor.dtype

    def unpack(self, kept: Any) -> Tensor:
        """Returns 0 and 1 / `divisor`."""
        ones = _ones(*kept)
        return ones if self.divisor == 1.0 else ones.div_(self.divisor)


@final
@dataclass(frozen=True)
class PositiveMask(Codec):
    """Whether an element is above zero, in a byte; unpacked as 1 and 0.

    NaN is not above zero. This is enough for a function with two slopes.
    """

    def pack(self, tensor: Tensor) -> Any:
        """Compares with 0."""
        return tensor.gt(0), tensor.dtype

    def unpack(self, kept: Any) -> Tensor:
        """Returns 0 and 1."""
        return _ones(*kept)


@final
@dataclass(frozen=True)
class SignCode(Codec):
    """Whether an element is above zero, zero, or neither, as NaN is; in a byte.

    This is enough for a function with two slopes whose first and second derivatives treat zero differently.
    """

    def pack(self, tensor: Tensor) -> Any:
        """Returns 2, 1 and 0."""
        return tensor.gt(0).view(torch.uint8).add_(tensor.ge(0).view(torch.uint8)), tensor.dtype

    def unpack(self, kept: Any) -> Tensor:
        """Returns 1, 0 and -1."""
        code, dtype = kept
        return code.to(dtype).sub_(1)


@final
@dataclass(frozen=True)
class RangeMask(Codec):
    """Whether an element is between two bounds, in a byte; unpacked as a value inside and one outside.

    Attributes:
        low: the lower bound, or None.
        high: the upper bound, or None.
        closed: whether the bounds themselves are inside.
        nan_inside: whether NaN counts as inside.
    """

    low: float | None
    high: float | None
    closed: bool = False
    nan_inside: bool = False

    def pack(self, tensor: Tensor) -> Any:
        """Compares with the bounds such that NaN ends on the right side."""
        if self.nan_inside:
            above, below = (torch.lt, torch.gt) if self.closed else (torch.le, torch.ge)
        else:
            above, below = (torch.ge, torch.le) if self.closed else (torch.gt, torch.lt)
        sides = [
            compare(tensor, bound) for compare, bound in ((above, self.low), (below, self.high)) if bound is not None
        ]
        if self.nan_inside:
            return sides[0].logical_or_(sides[-1]).logical_not_(), tensor.dtype
        return sides[0].logical_and_(sides[-1]), tensor.dtype

    def unpack(self, kept: Any) -> Tensor:
        """Returns a value inside and one outside."""
        inside, outside = self._values()
        return _ones(*kept).mul_(inside - outside).add_(outside)

    def suits(self, dtype: torch.dtype) -> bool:
        """Whether the dtype separates the two values from the bounds."""
        outside, inside = self.unpack((torch.tensor([False, True]), dtype)).tolist()
        low = -inf if self.low is None else self.low
        high = inf if self.high is None else self.high
        # Kernels differ in whether they round a bound to a small dtype before they compare.
        exact = dtype.itemsize >= 4 or all(torch.tensor(b, dtype=dtype).item() == b for b in (low, high))
        return exact and low < inside < high and not low <= outside <= high and not isinf(outside)

    def _values(self) -> tuple[float, float]:
        if self.low is None:
            assert self.high is not None
            return self.high - 1.0 - abs(self.high), self.high + 1.0 + abs(self.high)
        inside = self.low + 1.0 + abs(self.low) if self.high is None else (self.low + self.high) / 2
        return inside, self.low - 1.0 - abs(self.low)


@final
@dataclass(frozen=True)
class ClippedMask(Codec):
    """A faster :class:`RangeMask` for open bounds with a lower bound that is not negative, as of a ReLU6.

    The gradient kernel passes elements inside the bounds, which cannot be zero. This is three times as fast as two
    comparisons.

    Attributes:
        low: the lower bound.
        high: the upper bound.
    """

    low: float
    high: float

    def pack(self, tensor: Tensor) -> Any:
        """Keeps the elements inside the bounds."""
        return torch.ops.aten.hardtanh_backward(tensor, tensor, self.low, self.high).bool(), tensor.dtype

    def unpack(self, kept: Any) -> Tensor:
        """Returns a value inside and one outside."""
        return RangeMask(self.low, self.high).unpack(kept)


@final
@dataclass(frozen=True)
class SmallIndex(Codec):
    """Indices in the smallest integer dtype that can hold them.

    Attributes:
        dtype: that dtype.
    """

    dtype: torch.dtype

    def pack(self, tensor: Tensor) -> Any:
        """Converts to the small dtype."""
        return tensor.to(self.dtype)

    def unpack(self, kept: Any) -> Tensor:
        """Converts to PyTorch's dtype of indices."""
        return kept.long()


def _ones(mask: Tensor, dtype: torch.dtype) -> Tensor:
    # Bytes convert several times as fast as bools.
    return mask.view(torch.uint8).to(dtype)
