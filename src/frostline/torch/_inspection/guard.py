"""The guard: it proves that no frozen byte moves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from frostline._core.movement import Mark, MovedError, Movement, changed_elements, changed_stretch
from frostline.torch._freezing.division import divided, named_tensors
from frostline.torch._freezing.freezing import plan_of
from frostline.torch._freezing.survey import survey
from frostline.torch._inspection.cause import Owners, likely_cause
from frostline.torch._tensors import bytes_of
from frostline.torch._wrappers import unwrapped


@dataclass(frozen=True)
class Witness:
    """The bytes, or a digest of them, that a tensor had when it was first read."""

    kind: str
    mark: Mark
    address: int
    version: int

    @classmethod
    def of(cls, tensor: torch.Tensor, kind: str, *, keep: bool) -> Witness:
        """Reads the tensor once."""
        with bytes_of(tensor) as data:
            mark = Mark.of(data, keep=keep)
        return cls(kind, mark, tensor.data_ptr(), tensor._version)

    def has_moved(self, present: tuple[torch.Tensor, str] | None) -> bool:
        """Whether the tensor is gone, or its bytes have changed."""
        if present is None:
            return True
        with bytes_of(present[0]) as data:
            return not self.mark.same_as(Mark.of(data))


class Guard:
    """The object that :func:`guard` yields: `verify` compares before the end, `paths` lists the watched tensors."""

    def __init__(self, model: nn.Module, *, copy: bool) -> None:
        self._model = unwrapped(model)
        read = survey(model)
        still = divided(read, plan_of(read)).still
        self._witnesses = {path: Witness.of(tensor, kind, keep=copy) for path, (tensor, kind) in still.items()}

    @property
    def paths(self) -> frozenset[str]:
        """The watched parameters and buffers."""
        return frozenset(self._witnesses)

    def verify(self) -> None:
        """Compares now.

        Raises:
            MovedError: the bytes of a watched parameter or buffer have changed.
        """
        present = named_tensors(survey(self._model))
        moved = [path for path, witness in self._witnesses.items() if witness.has_moved(present.get(path))]
        if moved:
            owners = Owners()
            movements = (_movement(p, self._witnesses[p], present.get(p), self._model, owners) for p in moved)
            raise MovedError(tuple(movements), len(self._witnesses))


@contextmanager
def guard(model: nn.Module, *, copy: bool = False) -> Iterator[Guard]:
    """Proves that nothing frozen moves inside the ``with`` block.

    On entry it takes a digest of every frozen parameter and of every buffer of a frozen module;
    on exit it compares them. The frozen set is read from the model, so it also includes parameters
    that were frozen by hand. A frozen use whose layer trains elsewhere in the same model is not
    watched, because its layer is meant to move.

    Args:
        model: the model.
        copy: whether to keep a copy of the watched tensors, so that the error for a large tensor can
            show the first different value. Otherwise the guard keeps 16 bytes a MiB, and whole tensors
            of up to 4 KiB.

    Raises:
        MovedError: something moved; it is raised on exit, with the paths, the values and the likely
            cause. An exception from inside the block is passed on unchanged instead.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
        >>> _ = freeze(model, "[:-1]")
        >>> optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
        >>> with guard(model) as watching:
        ...     model.train()(torch.ones(3, 4)).sum().backward()
        ...     optimizer.step()
        >>> len(watching.paths)
        7
    """
    watching = Guard(model, copy=copy)
    yield watching
    watching.verify()


def _movement(
    path: str, witness: Witness, present: tuple[torch.Tensor, str] | None, model: nn.Module, owners: Owners
) -> Movement:
    if present is None:
        return Movement(
            path,
            witness.kind,
            "It is not in the model any more.",
            "the module that held it was replaced or removed",
            "Replace modules before the guarded block, and freeze the new ones.",
        )
    with bytes_of(present[0]) as data:
        difference = _difference(witness.mark, Mark.of(data), data, present[0])
    cause, fix = likely_cause(
        path, witness.kind, present[0], model, owners, address=witness.address, version=witness.version
    )
    return Movement(path, witness.kind, difference, cause, fix)


def _difference(before: Mark, now: Mark, data: memoryview, tensor: torch.Tensor) -> str:
    if before.nbytes != now.nbytes:
        return f"It had {before.nbytes} bytes and has {now.nbytes}."
    if before.kept is None:
        start, stop = changed_stretch(before, now, tensor.element_size())
        return f"First difference: among values {start} to {stop - 1} of {tensor.numel()}."
    changed = changed_elements(before.kept, data, tensor.element_size())
    old = torch.frombuffer(bytearray(before.kept), dtype=tensor.dtype)[changed[0]].item()
    new = tensor.detach().reshape(-1)[changed[0]].item()
    place = [int(i) for i in torch.unravel_index(torch.tensor(changed[0]), tensor.shape)]
    count = f"{len(changed)} of {tensor.numel()} values"
    return f"First difference: at {place}, {old!r} -> {new!r}; {count}."
