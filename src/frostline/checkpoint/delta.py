"""Saving a delta checkpoint: the trainable parameters, and a fingerprint of the base on which they were trained."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from frostline._core.errors import DeltaError
from frostline._core.files import reason
from frostline._core.fingerprint import Bytes, Fingerprint, digest_of
from frostline._core.plan import Plan
from frostline.checkpoint.delta_document import KEY, DeltaDocument, canonical
from frostline.checkpoint.replacement import replacing
from frostline.checkpoint.safetensors_header import MOST_BYTES, has_code, header, in_order
from frostline.checkpoint.stored import StoredTensor, shown, unfit

OPTIMIZER = "@optimizer/"
"""The prefix of the names of an optimizer's tensors."""

_NO_DIGEST = "0" * 32


@final
@dataclass(frozen=True)
class TensorSource:
    """A tensor to save.

    Attributes:
        dtype: "float32", "bfloat16", ...
        shape: its shape.
        nbytes: its size in bytes.
        opened: returns a context manager that yields its bytes in row-major order.
        weak: whether JAX treats its dtype as weak.
    """

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    opened: Callable[[], AbstractContextManager[Bytes]]
    weak: bool = False


@final
@dataclass(frozen=True)
class DeltaContents:
    """The contents of a delta to save.

    Attributes:
        plan: the frozen and the trainable paths.
        base: the digests of the frozen tensors.
        tensors: the trainable tensors and those of the optimizer, by name.
        aliases: the other names of a tensor.
        schedule: the state of the schedule, as data for JSON.
        optimizer: the state of the optimizer other than tensors, as data for JSON.
    """

    plan: Plan
    base: Fingerprint
    tensors: Mapping[str, TensorSource]
    aliases: Mapping[str, tuple[str, ...]]
    schedule: object = None
    optimizer: object = None


def save(expression: str, file: str | os.PathLike[str], delta: DeltaContents) -> None:
    """Writes a delta; the file is replaced atomically, or left unchanged.

    Args:
        expression: the user's call, for errors.
        file: the path to write.
        delta: the contents; the bytes of one tensor are read at a time.

    Raises:
        DeltaError: a name or the schedule cannot be saved, or the file cannot be written.
    """
    _check_names(expression, delta)
    _check_schedule(expression, delta.schedule)
    stored = in_order(_stored(path, source) for path, source in delta.tensors.items())
    said = _document(delta)
    size = len(header(stored, {KEY: said.to_json()}))
    if size > MOST_BYTES:
        problem = f"would need a header of {size} bytes, and readers of safetensors accept at most {MOST_BYTES}."
        raise DeltaError(expression, problem, (), "Pass less data as schedule=; it is meant for a few numbers.")
    try:
        with replacing(Path(file)) as stream:
            # The header comes last: an incomplete file begins with zeros and is not a checkpoint.
            stream.seek(size)
            for tensor in stored:
                source = delta.tensors[tensor.path]
                with source.opened() as data:
                    stream.write(data)
                    said.tensors[tensor.path] = digest_of(source.dtype, source.shape, (data,))
            stream.seek(0)
            stream.write(header(stored, {KEY: said.to_json()}))
    except OSError as error:
        raise unwritten(expression, file, error) from error


def unwritten(expression: str, file: str | os.PathLike[str], error: Exception) -> DeltaError:
    """Returns the error for a file that cannot be written."""
    folder = os.path.dirname(os.fspath(file)) or "."
    fix = f"Check the folder and the room on the disk: ls -ld {folder}; df -h {folder}"
    return DeltaError(expression, f"cannot write the file: {reason(error)}.", (), fix)


def _document(delta: DeltaContents) -> DeltaDocument:
    tensors = delta.tensors
    return DeltaDocument(
        plan=delta.plan,
        base=delta.base,
        tensors=dict.fromkeys(tensors, _NO_DIGEST),
        kinds={p: (source.dtype, source.shape) for p, source in tensors.items() if not has_code(source.dtype)},
        weak=tuple(path for path, source in tensors.items() if source.weak),
        aliases={path: others for path, others in delta.aliases.items() if others},
        schedule=delta.schedule,
        optimizer=delta.optimizer,
    )


def _stored(path: str, source: TensorSource) -> StoredTensor:
    plain = StoredTensor(path, source.shape, source.dtype, source.nbytes)
    # The format cannot store complex128, for example.
    return plain if has_code(source.dtype) else replace(plain, shape=(source.nbytes,), dtype="uint8")


def _check_names(expression: str, delta: DeltaContents) -> None:
    names = [*delta.tensors, *delta.base.digests]
    wrong = {path: unfit(path) or ("is reserved by the format" if path == "__metadata__" else "") for path in names}
    wrong = {path: why for path, why in wrong.items() if why}
    if wrong:
        problem = f"has {len(wrong)} of {len(names)} names that a file cannot have:"
        found = tuple(f"{shown(path)} {why}" for path, why in wrong.items())
        raise DeltaError(expression, problem, found, "Rename them, or give a bare array a name: {'weight': array}.")


def _check_schedule(expression: str, schedule: object) -> None:
    try:
        canonical(schedule)
    except (TypeError, ValueError) as error:
        problem = f"cannot write schedule={type(schedule).__name__} as JSON: {reason(error)}."
        fix = "Pass strings, numbers, and lists and dicts of them: schedule=schedule.to_dict()."
        raise DeltaError(expression, problem, (), fix) from error
