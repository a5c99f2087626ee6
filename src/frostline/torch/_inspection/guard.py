"""The guard: it proves that no frozen byte moves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from frostline._core.movement import Mark, MovedError, Movement, changed_elements, changed_stretch
from frostline.torch._freezing.division import divided, named_tensors
from frostline.torch._freezing.freezing import plan_of
from frostline.torch._freezing.survey import survey
from frostline.torch._inspection.cause import Lay, Owners, likely_cause
from frostline.torch._tensors import bytes_of, check_readable, plain_parts, why_unreadable
from frostline.torch._wrappers import unwrapped


@dataclass(frozen=True)
class Witness:
    """The bytes, or a digest of them, that a tensor had when it was first read.

    Attributes:
        kind: "parameter" or "buffer".
        marks: the name of each part of the tensor in this process, and its bytes.
        lay: where they were, and their versions.
    """

    kind: str
    marks: dict[str, Mark]
    lay: Lay

    @classmethod
    def of(cls, tensor: torch.Tensor, kind: str, *, keep: bool) -> Witness:
        """Reads the tensor once."""
        marks = {}
        for name, part in plain_parts(tensor):
            with bytes_of(part) as data:
                marks[name] = Mark.of(data, keep=keep)
        return cls(kind, marks, Lay.of(tensor))

    def has_moved(self, present: tuple[torch.Tensor, str] | None) -> bool:
        """Whether the tensor is gone, or its bytes have changed."""
        if present is None or why_unreadable(present[0]) is not None:
            return True
        parts = dict(plain_parts(present[0]))
        return parts.keys() != self.marks.keys() or any(
            not mark.same_as(_mark_of(parts[name])) for name, mark in self.marks.items()
        )


class Guard:
    """The object that :func:`guard` yields: `verify` compares before the end, `paths` lists the watched tensors."""

    def __init__(self, model: nn.Module, *, copy: bool) -> None:
        self._model = unwrapped(model)
        read = survey(model)
        still = divided(read, plan_of(read)).still
        check_readable("guard(model)", {path: tensor for path, (tensor, _) in still.items()}, "frozen tensors")
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
            raise MovedError(tuple(movements), len(self._witnesses), _place())


@contextmanager
def guard(model: nn.Module, *, copy: bool = False) -> Iterator[Guard]:
    """Proves that nothing frozen moves inside the ``with`` block.

    On entry it takes a digest of every frozen parameter and of every buffer of a frozen module;
    on exit it compares them. The frozen set is read from the model, so it also includes parameters
    that were frozen by hand. A frozen use whose layer trains elsewhere in the same model is not
    watched, because its layer is meant to move. With several processes, each one watches what it holds of the model,
    its own shards, and exchanges nothing with the others.

    Args:
        model: the model.
        copy: whether to keep a copy of the watched tensors, so that the error for a large tensor can
            show the first different value. Otherwise the guard keeps 16 bytes a MiB, and whole tensors
            of up to 4 KiB.

    Raises:
        MovedError: something moved; it is raised on exit, with the paths, the values and the likely
            cause, and the rank if there are several. An exception from inside the block is passed on unchanged instead.
        UnsupportedError: something frozen has no data here: it is on the meta device, offloaded for example.

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
    cause, fix = likely_cause(path, witness.kind, present[0], model, owners, witness.lay)
    return Movement(path, witness.kind, _difference(witness.marks, present[0]), cause, fix)


def _difference(before: dict[str, Mark], tensor: torch.Tensor) -> str:
    if (why := why_unreadable(tensor)) is not None:
        return f"It had {sum(mark.nbytes for mark in before.values())} bytes and {why}."
    parts = dict(plain_parts(tensor))
    if parts.keys() != before.keys():
        return f"It was kept in {_kept_in(before)} and is kept in {_kept_in(parts)}."
    name = next(name for name, mark in before.items() if not mark.same_as(_mark_of(parts[name])))
    with bytes_of(parts[name]) as data:
        return _difference_of_part(before[name], data, parts[name], f" in its {name.replace('_', ' ')}" if name else "")


def _difference_of_part(before: Mark, data: memoryview, part: torch.Tensor, where: str) -> str:
    now = Mark.of(data)
    if before.nbytes != now.nbytes:
        return f"It had {before.nbytes} bytes{where} and has {now.nbytes}."
    if before.kept is None:
        start, stop = changed_stretch(before, now, part.element_size())
        return f"First difference{where}: among values {start} to {stop - 1} of {part.numel()}."
    changed = changed_elements(before.kept, data, part.element_size())
    old = torch.frombuffer(bytearray(before.kept), dtype=part.dtype)[changed[0]].item()
    new = part.detach().reshape(-1)[changed[0]].item()
    place = [int(i) for i in torch.unravel_index(torch.tensor(changed[0]), part.shape)]
    count = f"{len(changed)} of {part.numel()} values"
    return f"First difference{where}: at {place}, {old!r} -> {new!r}; {count}."


def _kept_in(parts: Iterable[str]) -> str:
    return ", ".join(name or "one tensor" for name in parts)


def _mark_of(part: torch.Tensor) -> Mark:
    with bytes_of(part) as data:
        return Mark.of(data)


def _place() -> str:
    """Returns which of several processes this is."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return ""
    return f"On rank {dist.get_rank()} of {dist.get_world_size()}, "
