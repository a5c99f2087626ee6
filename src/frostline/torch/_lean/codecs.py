"""Smaller forms of what autograd saves, from which the same gradient follows."""

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
        """What is kept in place of the tensor."""

    @abstractmethod
    def unpack(self, kept: Any) -> Tensor:
        """A tensor of the same shape, strides and type that gives the same gradient."""


@final
@dataclass(frozen=True)
class Dropped(Codec):
    """Nothing is kept: backward asks for the form of the tensor, and for none of its values.

    It is given uninitialised memory with the same strides. One expanded element would be less, but
    kernels choose their way by the strides: another way is slower on a CPU, and may round differently.
    """

    def pack(self, tensor: Tensor) -> Any:
        """The form of the tensor."""
        return tensor.size(), tensor.stride(), tensor.dtype, tensor.device

    def unpack(self, kept: Any) -> Tensor:
        """Memory of this form."""
        size, stride, dtype, device = kept
        return torch.empty_strided(size, stride, dtype=dtype, device=device)


@final
@dataclass(frozen=True)
class NonZero(Codec):
    """Where a tensor is zero, a byte an element; read as 0 and 1 / `divisor`.

    Enough for the result of a ReLU, which is never negative, and for the noise of a dropout. NaN is not
    zero, and a ReLU lets its gradient through.
    """

    divisor: float = 1.0

    def pack(self, tensor: Tensor) -> Any:
        """Converted, which is several times as fast as compared with 0."""
        return tensor.bool(), tensor.dtype

    def unpack(self, kept: Any) -> Tensor:
        """The same positions, as 0 and 1 / `divisor`."""
        ones = _ones(*kept)
        return ones if self.divisor == 1.0 else ones.div_(self.divisor)


@final
@dataclass(frozen=True)
class Above(Codec):
    """Where a tensor is above zero, a byte an element; read as 1 and 0.

    NaN is not above. Enough for a slope that is one of two.
    """

    def pack(self, tensor: Tensor) -> Any:
        """Compared with 0."""
        return tensor.gt(0), tensor.dtype

    def unpack(self, kept: Any) -> Tensor:
        """The same positions, as 0 and 1."""
        return _ones(*kept)


@final
@dataclass(frozen=True)
class Sign(Codec):
    """Whether an element is above zero, zero, or neither, which NaN is too; a byte an element.

    Enough for a slope that is one of two, where the second derivative draws the line at another side of
    zero than the first.
    """

    def pack(self, tensor: Tensor) -> Any:
        """2, 1 and 0."""
        return tensor.gt(0).view(torch.uint8).add_(tensor.ge(0).view(torch.uint8)), tensor.dtype

    def unpack(self, kept: Any) -> Tensor:
        """1, 0 and -1."""
        code, dtype = kept
        return code.to(dtype).sub_(1)


@final
@dataclass(frozen=True)
class Between(Codec):
    """Where a tensor is between two bounds, a byte an element; read as a value inside and one outside.

    Attributes:
        low: the lower bound; None is none.
        high: the upper bound; None is none.
        closed: whether the bounds themselves are inside.
        nan_inside: whether NaN counts as inside.
    """

    low: float | None
    high: float | None
    closed: bool = False
    nan_inside: bool = False

    def pack(self, tensor: Tensor) -> Any:
        """Compared with the bounds, on the side that puts NaN where it belongs."""
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
        """The same positions, as a value inside and one outside."""
        inside, outside = self._values()
        return _ones(*kept).mul_(inside - outside).add_(outside)

    def suits(self, dtype: torch.dtype) -> bool:
        """Whether a type can tell the two values from the bounds."""
        outside, inside = self.unpack((torch.tensor([False, True]), dtype)).tolist()
        low = -inf if self.low is None else self.low
        high = inf if self.high is None else self.high
        # Kernels differ in whether they round a bound to a small type before they compare.
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
class Clipped(Codec):
    """As :class:`Between` for open bounds of which the lower one is not negative: what a ReLU6 needs.

    The kernel of the gradient passes what is inside, which cannot be zero then; this is three times as
    fast as two comparisons.

    Attributes:
        low: the lower bound.
        high: the upper bound.
    """

    low: float
    high: float

    def pack(self, tensor: Tensor) -> Any:
        """What is left between the bounds."""
        return torch.ops.aten.hardtanh_backward(tensor, tensor, self.low, self.high).bool(), tensor.dtype

    def unpack(self, kept: Any) -> Tensor:
        """The same positions, as a value inside and one outside."""
        return Between(self.low, self.high).unpack(kept)


@final
@dataclass(frozen=True)
class Index(Codec):
    """Indices in as many bytes as the largest possible one needs.

    Attributes:
        dtype: the type that holds it.
    """

    dtype: torch.dtype

    def pack(self, tensor: Tensor) -> Any:
        """In the small type."""
        return tensor.to(self.dtype)

    def unpack(self, kept: Any) -> Tensor:
        """In the type that PyTorch has for indices."""
        return kept.long()


def _ones(mask: Tensor, dtype: torch.dtype) -> Tensor:
    # Bytes convert several times as fast as bools.
    return mask.view(torch.uint8).to(dtype)
