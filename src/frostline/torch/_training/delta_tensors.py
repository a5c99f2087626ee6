"""The tensors of a model that a delta holds, and those of which it has digests: checks, bytes, and the way back."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from frostline._core.errors import DeltaError
from frostline._core.fingerprint import Fingerprint, digest_of
from frostline.torch._freezing.division import Division
from frostline.torch._freezing.survey import Survey
from frostline.torch._tensors import (
    check_readable,
    dtype_name,
    is_distributed,
    pieces_of,
    plain_parts,
    whole,
)


def moving(read: Survey, parts: Division) -> dict[str, torch.Tensor]:
    return {path: tensor for path, (tensor, _) in parts.moving.items() if _is_persistent(read, path)}


def base_of(read: Survey, parts: Division) -> dict[str, torch.Tensor]:
    """Returns all that stands still, integer parameters too: quantised weights are a base like any other."""
    return {path: tensor for path, (tensor, _) in parts.still.items() if _is_persistent(read, path)}


def _is_persistent(read: Survey, path: str) -> bool:
    owner, _, local = path.rpartition(".")
    return local not in read.modules[owner]._non_persistent_buffers_set


def fingerprint_of(expression: str, base: Mapping[str, torch.Tensor]) -> Fingerprint:
    check_values(expression, base)
    entries = []
    for path, tensor in base.items():
        entries.append((path, digest_of(dtype_name(tensor.dtype), tensor.shape, pieces_of(whole(tensor)))))
    return Fingerprint(tuple(entries))


def check_values(expression: str, tensors: Mapping[str, torch.Tensor]) -> None:
    if hollow := tuple(path for path, tensor in tensors.items() if tensor.is_meta):
        problem = f"has {len(hollow)} of {len(tensors)} tensors on the meta device, where they have no values:"
        raise DeltaError(expression, problem, hollow, 'Give them a place first: model.to_empty(device="cpu").')
    check_readable(expression, tensors)


def check_plain(expression: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """A file holds plain tensors; those of other classes may stand in the base, where only their digest is needed."""
    names = {path: [name for name, _ in plain_parts(t)] for path, t in tensors.items() if not is_distributed(t)}
    if others := {path: inside for path, inside in names.items() if inside != [""]}:
        problem = f"has {len(others)} of {len(tensors)} tensors that train and that a file cannot hold as they are:"
        found = tuple(
            f"{path}: {type(tensors[path].data).__name__} of {', '.join(inside)}" for path, inside in others.items()
        )
        fix = "Freeze them, and train an adapter beside them; or make them plain: parameter.dequantize()."
        raise DeltaError(expression, problem, found, fix)


def is_writable(tensor: torch.Tensor) -> bool:
    expanded = any(size > 1 and not step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return not expanded and (not tensor.is_inference() or torch.is_inference_mode_enabled())


def nbytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def tensor_of(data: bytearray, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=torch.uint8).view(dtype).reshape(shape)
