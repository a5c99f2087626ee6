"""The tensors of a run on disk, written and read by all ranks."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

_NAME = re.compile(r"data-(\d+)")


def folder_after(place: Path) -> str:
    """Returns the name of a folder that is not there yet, the same one on each rank, and makes the one above it."""
    name = [""]
    if not dist.is_initialized() or dist.get_rank() == 0:
        place.mkdir(parents=True, exist_ok=True)
        numbers = [int(found[1]) for each in place.iterdir() if (found := _NAME.fullmatch(each.name))]
        name = [f"data-{max(numbers, default=0) + 1}"]
    if dist.is_initialized():
        dist.broadcast_object_list(name)
    return name[0]


def remove_others(place: Path, name: str) -> None:
    """Removes the tensors of earlier runs, and what a crash has left."""
    for each in list(place.iterdir()):
        if _NAME.fullmatch(each.name) and each.name != name:
            shutil.rmtree(each, ignore_errors=True)


def write_tensors(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes tensors by name."""
    import torch.distributed.checkpoint as dcp  # It takes a second.

    with _alone():
        dcp.save(dict(tensors), checkpoint_id=folder, no_dist=not dist.is_initialized())


def sizes_in(folder: Path) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Returns the shape and dtype of each tensor."""
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    found = FileSystemReader(folder).read_metadata().state_dict_metadata
    return {
        name: (tuple(each.size), each.properties.dtype)
        for name, each in found.items()
        if isinstance(each, TensorStorageMetadata)
    }


def read_tensors(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Reads tensors by name, in place."""
    import torch.distributed.checkpoint as dcp

    with _alone():
        dcp.load(dict(tensors), checkpoint_id=folder, no_dist=not dist.is_initialized())


@contextmanager
def _alone() -> Iterator[None]:
    """Silences the warning that there is one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield
