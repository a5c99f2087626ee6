"""Reading a delta: the whole file is checked before anything is returned."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import final

from frostline._core.errors import DeltaError, FileFormatError
from frostline._core.fingerprint import Fingerprint, digest_of
from frostline._core.plan import Plan
from frostline.checkpoint.delta import OPTIMIZER
from frostline.checkpoint.delta_document import KEY, DeltaDocument
from frostline.checkpoint.safetensors_file import SafetensorsFile
from frostline.checkpoint.stored import StoredTensor, shown

_FIX = "Save it again, save_delta(file, model), or take an older one."


@final
class DeltaFile:
    """A delta in a file.

    Attributes:
        said: the document in its metadata.
        tensors: its tensors by name, with their original dtypes.

    Raises:
        FileFormatError: the file is not a delta, or is damaged.
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.file = Path(file)
        self._stamp = _stamp(self.file)
        self._stored = SafetensorsFile(self.file, _FIX)
        self.said = self._parsed()
        self.tensors = {path: self._true(tensor) for path, tensor in self._stored.tensors.items()}

    @cached_property
    def own(self) -> dict[str, StoredTensor]:
        """The tensors of the model."""
        return {path: tensor for path, tensor in self.tensors.items() if not path.startswith(OPTIMIZER)}

    @cached_property
    def of_optimizer(self) -> dict[str, StoredTensor]:
        """The tensors of the optimizer."""
        return {path: tensor for path, tensor in self.tensors.items() if path.startswith(OPTIMIZER)}

    def chunks(self, path: str) -> Iterator[bytes]:
        """Yields the bytes of a tensor, a piece at a time.

        Raises:
            FileFormatError: the file was replaced or removed.
        """
        try:
            yield from self._stored.chunks(path)
        except FileFormatError:
            if self._is_replaced():
                raise self._replaced() from None
            raise

    def contents(self, wanted: Collection[str]) -> dict[str, bytearray]:
        """Returns the bytes of some tensors, after comparing all tensors with their digests.

        Raises:
            FileFormatError: the bytes of a tensor have changed since they were saved.
        """
        found = {path: bytearray(self.tensors[path].nbytes) for path in wanted}
        wrong = [path for path in self.tensors if not self._is_sound(path, found.get(path))]
        if wrong:
            raise self.damaged(wrong)
        return found

    def damaged(self, paths: Collection[str]) -> FileFormatError:
        """Returns the error for tensors whose bytes have changed."""
        if self._is_replaced():
            return self._replaced()
        names = ", ".join(sorted(paths)[:3])
        problem = f"{len(paths)} of its {len(self.tensors)} tensors are not what was saved: {names}"
        return FileFormatError(str(self.file), problem, _FIX)

    def plan_for(self, expression: str, paths: frozenset[str], buffers: AbstractSet[str] = frozenset()) -> Plan:
        """Returns the plan for a model.

        A buffer in PyTorch may be a parameter in JAX, because a pytree does not tell them from each other. So a tensor
        that is missing in the plan is trainable if the file contains it, and frozen if the base contains it.

        Args:
            expression: the user's expression.
            paths: the paths of a plan of the model.
            buffers: the paths of its buffers; a pytree has none.

        Raises:
            DeltaError: the file belongs to another model: a path is missing in the file or in the model.
        """
        plan, base = self.said.plan, self.said.base.digests
        missing = paths - plan.paths - self.own.keys() - base.keys()
        unknown = plan.paths - paths - self.own.keys() - base.keys()
        if missing or unknown:
            problem = (
                f"holds a delta of another model: {len(missing)} of its {len(paths)} paths are missing, "
                f"{len(unknown)} are unknown."
            )
            raise DeltaError(expression, problem, _named(missing=missing, unknown=unknown), _SAME_MODEL)
        frozen = frozenset(path for path in paths - plan.trainable if path in plan.frozen or path in base)
        return Plan(frozen, paths - frozen, plan.still & buffers, plan.moving & buffers)

    def check_tensors(
        self, expression: str, expected: Mapping[str, StoredTensor], given: Mapping[str, StoredTensor]
    ) -> None:
        """Checks that the file holds the expected tensors.

        Args:
            expression: the user's expression.
            expected: the tensors to fill, by name.
            given: the tensors of the file that fill them, by name.

        Raises:
            DeltaError: a tensor is missing or unknown, or has another shape or dtype.
        """
        missing, unknown = expected.keys() - given.keys(), given.keys() - expected.keys()
        other = [path for path in expected if path in given and not _alike(expected[path], given[path])]
        if missing or unknown or other:
            problem = (
                f"holds a delta that does not fit: {len(missing)} of {len(expected)} tensors are missing, "
                f"{len(unknown)} are unknown, {len(other)} have another shape or dtype."
            )
            found = tuple(f"{path}: {given[path]} in the file, {expected[path]} in the model" for path in other)
            raise DeltaError(expression, problem, found + _named(missing=missing, unknown=unknown), _SAME_MODEL)

    def check_base(self, expression: str, base: Fingerprint, fix: str) -> None:
        """Checks that the delta was made on this base.

        Raises:
            DeltaError: it was made on another base.
        """
        if found := self.said.base.diff(base):
            problem = (
                f"holds a delta that was made on another base: {len(found.differ)} of {len(self.said.base.entries)} "
                f"frozen tensors differ, {len(found.missing)} are unknown, {len(found.extra)} are missing."
            )
            names = _named(differs=found.differ, unknown=found.missing, missing=found.extra)
            raise DeltaError(expression, problem, names, fix)

    def _parsed(self) -> DeltaDocument:
        metadata = self._stored.metadata
        if KEY not in metadata:
            problem = f"it is not a delta: none of the {len(metadata)} keys of its metadata is {KEY!r}"
            raise FileFormatError(str(self.file), problem, "Save one: save_delta(file, model).")
        try:
            said = DeltaDocument.from_json(metadata[KEY])
            self._check_said(said)
        except ValueError as error:
            problem = f"its metadata is wrong: {str(error).splitlines()[0].rstrip('.')}"
            raise FileFormatError(str(self.file), problem, _FIX) from error
        return said

    def _check_said(self, said: DeltaDocument) -> None:
        stored = self._stored.tensors
        if differ := said.tensors.keys() ^ stored.keys():
            raise ValueError(f"{len(differ)} tensors lack a digest or are missing, {sorted(differ)[0]!a} for example")
        for path in said.kinds:
            if path not in stored or (stored[path].dtype, len(stored[path].shape)) != ("uint8", 1):
                raise ValueError(f"{path!a} is not stored as bytes")
        for path in (*said.base.digests, *said.plan.paths, *said.weak, *said.aliases, *chain(*said.aliases.values())):
            if not path.isprintable():
                raise ValueError(f"{shown(path)} has unprintable characters")

    def _true(self, tensor: StoredTensor) -> StoredTensor:
        dtype, shape = self.said.kinds.get(tensor.path, (tensor.dtype, tensor.shape))
        return StoredTensor(tensor.path, shape, dtype, tensor.nbytes)

    def _is_sound(self, path: str, room: bytearray | None) -> bool:
        tensor = self.tensors[path]
        return digest_of(tensor.dtype, tensor.shape, self._pieces(path, room)) == self.said.tensors[path]

    def _pieces(self, path: str, room: bytearray | None) -> Iterator[bytes]:
        at = 0
        for chunk in self.chunks(path):
            if room is not None:
                room[at : at + len(chunk)] = chunk
                at += len(chunk)
            yield chunk

    def _is_replaced(self) -> bool:
        return _stamp(self.file) not in ((), self._stamp)

    def _replaced(self) -> FileFormatError:
        problem, fix = "it was replaced while it was read", "Read it again: the new file is complete."
        return FileFormatError(str(self.file), problem, fix)


_SAME_MODEL = "Build the model as it was when the delta was saved, then load: load_delta(file, model)."


def _alike(one: StoredTensor, other: StoredTensor) -> bool:
    return (one.dtype, one.shape, one.nbytes) == (other.dtype, other.shape, other.nbytes)


def _named(**groups: Collection[str]) -> tuple[str, ...]:
    return tuple(f"{word}: {path}" for word, paths in groups.items() for path in sorted(paths))


def _stamp(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
