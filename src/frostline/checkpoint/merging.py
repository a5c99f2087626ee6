"""Merging a base and a delta into a full checkpoint, a piece at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, final

from frostline._core.errors import DeltaError
from frostline._core.fingerprint import digest_of
from frostline.checkpoint.delta import unwritten
from frostline.checkpoint.delta_document import KEY
from frostline.checkpoint.delta_file import DeltaFile
from frostline.checkpoint.replacement import replacing
from frostline.checkpoint.safetensors_header import has_code, header, in_order
from frostline.checkpoint.stored import Checkpoint, StoredTensor

_FIX = "Pass the full checkpoint from which the training started."


@final
@dataclass(frozen=True)
class Merging:
    """A full checkpoint to write, with the file from which each tensor comes.

    Attributes:
        expression: the user's expression, for errors.
        base: the file with the frozen tensors.
        delta: the file with the trained tensors.
        tensors: the tensors of the full checkpoint.
        owners: for each name, the name of that tensor in the delta.
    """

    expression: str
    base: Checkpoint
    delta: DeltaFile
    tensors: tuple[StoredTensor, ...]
    owners: dict[str, str]

    @classmethod
    def of(cls, expression: str, base: Checkpoint, delta: DeltaFile) -> Merging:
        """Plans the merge from the names of the tensors.

        Raises:
            DeltaError: the base has other tensors than the delta expects, or one that safetensors cannot store.
        """
        owners = _owners(delta)
        _check_names(expression, base, delta, owners)
        told = {owners[name] for name in base.tensors}
        # A tensor that the base lacks, an adapter for example, is written under all of its names.
        added = [name for name, owner in owners.items() if owner in delta.own and owner not in told]
        tensors = [
            replace(delta.own[owners[name]], path=name) if owners[name] in delta.own else base.tensors[name]
            for name in (*base.tensors, *added)
        ]
        if strange := tuple(f"{each.path}: {each}" for each in tensors if not has_code(each.dtype)):
            problem = f"has {len(strange)} of {len(tensors)} tensors of dtypes that safetensors cannot store."
            fix = "Load the delta into the model, and save the model in another format."
            raise DeltaError(expression, problem, strange, fix)
        return cls(expression, base, delta, tuple(in_order(tensors)), owners)

    @property
    def trained(self) -> frozenset[str]:
        """The names of the tensors that come from the delta."""
        return frozenset(tensor.path for tensor in self.tensors if self.owners[tensor.path] in self.delta.own)

    def write(self, file: Path) -> None:
        """Writes the checkpoint; the file is replaced atomically, or left unchanged.

        Raises:
            DeltaError: the delta was made on another base, or the file cannot be written.
            FileFormatError: the delta is damaged.
        """
        metadata = {key: text for key, text in self.base.metadata.items() if key != KEY}
        wrong: list[str] = []
        try:
            with replacing(file) as stream:
                stream.write(header(self.tensors, metadata))
                for tensor in self.tensors:
                    # Nothing is written after the first wrong tensor, but all wrong tensors are reported.
                    if not self._copy(tensor, None if wrong else stream):
                        wrong.append(tensor.path)
                self._check(wrong)
        except OSError as error:
            raise unwritten(self.expression, file, error) from error

    def _copy(self, tensor: StoredTensor, stream: BinaryIO | None) -> bool:
        """Copies a tensor, and returns whether its digest is the one in the delta."""
        owner, said = self.owners[tensor.path], self.delta.said
        is_trained = owner in self.delta.own
        chunks = self.delta.chunks(owner) if is_trained else self.base.chunks(tensor.path)
        expected = (said.tensors if is_trained else said.base.digests)[owner]
        return digest_of(tensor.dtype, tensor.shape, _copied(chunks, stream)) == expected

    def _check(self, wrong: list[str]) -> None:
        if damaged := {self.owners[path] for path in wrong} & self.delta.own.keys():
            raise self.delta.damaged(damaged)
        if wrong:
            problem = f"has another base: {len(wrong)} of its {len(self.base.tensors)} tensors differ."
            raise DeltaError(self.expression, problem, tuple(f"differs: {path}" for path in sorted(wrong)), _FIX)


def _copied(chunks: Iterable[bytes], stream: BinaryIO | None) -> Iterator[bytes]:
    for chunk in chunks:
        if stream is not None:
            stream.write(chunk)
        yield chunk


def _owners(delta: DeltaFile) -> dict[str, str]:
    own = [*delta.own, *delta.said.base.digests]
    others = {other: path for path in own for other in delta.said.aliases.get(path, ())}
    return others | {path: path for path in own}


def _check_names(expression: str, base: Checkpoint, delta: DeltaFile, owners: dict[str, str]) -> None:
    missing = sorted(delta.said.base.digests.keys() - {owners.get(name) for name in base.tensors})
    unknown = sorted(base.tensors.keys() - owners.keys())
    if missing or unknown:
        problem = f"has another base: {len(missing)} tensors are missing in it, {len(unknown)} are unknown."
        found = (*(f"missing: {path}" for path in missing), *(f"unknown: {path}" for path in unknown))
        raise DeltaError(expression, problem, found, _FIX)
