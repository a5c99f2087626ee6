"""The guard, which proves that nothing frozen moves by comparing bytes before and after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from frostline._core.errors import UnprovenError, UnsupportedError
from frostline._core.movement import Mark, MovedError, Movement, changed_elements, changed_stretch
from frostline._core.plan import Plan
from frostline.jax._arrays import bytes_of, flat_bytes, has_bytes, plain
from frostline.jax._freezing.division import divided
from frostline.jax._freezing.survey import Survey, survey
from frostline.jax._inspection.cause import likely_cause


@dataclass(frozen=True)
class Witness:
    """The record that a guard keeps of one array."""

    kind: str
    mark: Mark
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, array: Any, kind: str, *, keep: bool) -> Witness:
        """Reads the array once."""
        found = plain(array)
        return cls(kind, Mark.of(bytes_of(array), keep=keep), found.dtype, found.shape)

    def has_moved(self, present: Any) -> bool:
        """Whether the array is gone, or is not bitwise the same."""
        if not has_bytes(present):
            return True
        found = plain(present)
        same_kind = (found.dtype, found.shape) == (self.dtype, self.shape)
        return not (same_kind and self.mark.same_as(Mark.of(bytes_of(present))))


class Guard:
    """The value of ``with guard(tree) as watching``; `verify` compares a later tree with the first one."""

    def __init__(self, tree: Any, frozen: Plan | None = None, *, copy: bool) -> None:
        still = divided(survey(tree, frozen)).still
        self._witnesses = {name: Witness.of(array, kind, keep=copy) for name, (array, kind) in still.items()}
        self.is_proven = False

    @property
    def paths(self) -> frozenset[str]:
        """The names of the watched arrays."""
        return frozenset(self._witnesses)

    def verify(self, tree: Any) -> None:
        """Compares a later tree, which may be marked, stripped or plain: the names are the same.

        Raises:
            MovedError: a watched array is not bitwise the same.
        """
        self.is_proven = True
        present = _arrays(survey(tree))
        moved = [path for path, witness in self._witnesses.items() if witness.has_moved(present.get(path))]
        if moved:
            movements = (_movement(path, self._witnesses[path], present.get(path)) for path in moved)
            raise MovedError(tuple(movements), len(self._witnesses))


@contextmanager
def guard(tree: Any, frozen: Plan | None = None, *, copy: bool = False) -> Iterator[Guard]:
    """Proves that nothing frozen moves inside the ``with`` block.

    On array it takes a digest of every frozen array, and of all other arrays in held modules. A step makes a new tree,
    so show it to the guard by ``watching.verify(tree)``, at least once. A frozen use that is tied to a layer which
    trains is not watched, because that layer is meant to move. Each shard is read once, and among several processes
    each proves the shards that it has.

    Args:
        tree: the tree, as it is frozen.
        frozen: a plan beside an unmarked tree.
        copy: whether to keep a copy of each watched array, so that an error can show the first value that differs in a
            large one. Otherwise the guard keeps 16 bytes for each MiB, and copies of arrays up to 4 KiB.

    Raises:
        MovedError: from ``verify``, if an array moved; it names the array, the place and the likely cause.
        UnprovenError: on exit, if ``verify`` was not called. An exception from inside the block takes precedence.
        UnsupportedError: the tree is being traced.

    Example:
        >>> params = freeze({"w": jnp.ones(2), "b": jnp.zeros(2)}, "w")
        >>> with guard(params) as watching:
        ...     gradient = grad(lambda p: (p["w"] * p["b"]).sum())(params)
        ...     trained, rest = split(params)
        ...     watching.verify(join(optax.apply_updates(trained, gradient), rest))
        >>> watching.paths
        frozenset({'w'})
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree)):
        raise UnsupportedError(
            "guard(tree)",
            "is called inside jit, where arrays have no bytes yet.",
            "Guard the loop around the compiled step: with guard(tree) as watching: tree = step(tree, batch).",
        )
    watching = Guard(tree, frozen, copy=copy)
    yield watching
    if not watching.is_proven:
        raise UnprovenError(len(watching.paths))


def _arrays(read: Survey) -> dict[str, Any]:
    return {slot.name: read.leaves[slot.leaf] for slot in read.layout.slots}


def _movement(path: str, witness: Witness, present: Any) -> Movement:
    if not has_bytes(present):
        return Movement(
            path,
            witness.kind,
            "It is no longer in the tree.",
            "verify got another tree, or a part of the tree was replaced or removed",
            "Show the whole tree: watching.verify(tree), or watching.verify(join(trainable, rest)).",
        )
    now = plain(present)
    if (now.dtype, now.shape) != (witness.dtype, witness.shape):
        difference = f"It was {witness.dtype} of shape {witness.shape} and is {now.dtype} of shape {now.shape}."
        cause, fix = "it was cast or reshaped", "Cast before the guarded block, or cast a copy for the loss."
        return Movement(path, witness.kind, difference, cause, fix)
    cause, fix = likely_cause(witness.kind, witness.mark.kept, now)
    return Movement(path, witness.kind, _difference(witness, now), cause, fix)


def _difference(witness: Witness, now: np.ndarray[Any, Any]) -> str:
    before, after = witness.mark, Mark.of(flat_bytes(now))
    if before.kept is None:
        start, stop = changed_stretch(before, after, now.itemsize)
        return f"First difference: among values {start} to {stop - 1} of {now.size}."
    changed = changed_elements(before.kept, flat_bytes(now), now.itemsize)
    old, new = np.frombuffer(before.kept, witness.dtype)[changed[0]].item(), now.reshape(-1)[changed[0]].item()
    place = [int(i) for i in np.unravel_index(changed[0], now.shape)]
    return f"First difference: at {place}, {old!r} -> {new!r}; {len(changed)} of {now.size} values."
