"""Encoding the tensors of a feature cache as bytes, and decoding them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from frostline._core.errors import CacheError
from frostline.features.columns import BoundaryValue

_STEPS, _LOWEST = 255, -128


def raw(tensor: Tensor) -> memoryview:
    """Returns the bytes of a tensor on the CPU; a tensor with gaps is copied."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data


def of_bytes(room: bytearray, dtype: str, shape: tuple[int, ...]) -> Tensor:
    """Returns the tensor whose bytes these are; no copy is made."""
    if not room:
        return torch.empty(shape, dtype=getattr(torch, dtype))
    return torch.frombuffer(room, dtype=getattr(torch, dtype)).reshape(shape)


def encoded(value: BoundaryValue, number: int, batch: Tensor) -> dict[str, memoryview]:
    """Returns the columns of one value of a batch on the CPU.

    Raises:
        CacheError: the precision is "int8", and the range of a sample is not finite.
    """
    if not value.is_scaled:
        return {f"value.{number}": raw(batch.to(getattr(torch, value.stored)))}
    steps, step, least = _in_steps(batch.reshape(len(batch), -1))
    if endless := int((~(step.isfinite() & least.isfinite())).sum()):
        found = (f"nan: {int(batch.isnan().sum())} numbers", f"inf: {int(batch.isinf().sum())} numbers")
        problem = (
            f"stores {value.name!r} in steps between the least and the greatest number of each sample, "
            f"and {endless} of {len(batch)} samples have no finite range."
        )
        raise CacheError("dtype='int8'", problem, found, "Store it as it is, or as bfloat16: dtype='bfloat16'.")
    return {f"value.{number}": raw(steps), f"step.{number}": raw(step), f"least.{number}": raw(least)}


def decoded(value: BoundaryValue, number: int, rooms: Mapping[str, bytearray], rows: int) -> Tensor:
    """Returns the rows of one value, in the dtype in which it was computed."""
    dtype = getattr(torch, value.dtype)
    batch = of_bytes(rooms[f"value.{number}"], value.stored, (rows, *value.shape)).to(dtype)
    if not value.is_scaled:
        return batch
    each = (rows, *(1 for _ in value.shape))
    step = of_bytes(rooms[f"step.{number}"], "float32", each).to(dtype)
    least = of_bytes(rooms[f"least.{number}"], "float32", each).to(dtype)
    return batch.sub_(_LOWEST).mul_(step).add_(least)


def _in_steps(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns rows as integers from -128 to 127, and for each row the size of a step and the minimum."""
    if not rows.shape[1]:
        nothing = torch.zeros(len(rows))
        return rows.to(torch.int8), nothing, nothing
    rows = rows.to(torch.float64 if rows.dtype == torch.float64 else torch.float32)
    least, greatest = torch.aminmax(rows, dim=1)
    step = ((greatest - least) / _STEPS).to(torch.float32)
    # A row of equal numbers has no steps, only its minimum.
    inverse = torch.where(step > 0, 1 / step, 0.0).to(rows.dtype)
    steps = ((rows - least[:, None]) * inverse[:, None]).round_().clamp_(0, _STEPS).add_(_LOWEST)
    return steps.to(torch.int8), step, least.to(torch.float32)
