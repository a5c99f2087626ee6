"""Delta checkpoints: the trainable arrays of a tree and a fingerprint of the rest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import jax
from jax.tree_util import tree_unflatten

from frostline._core.errors import DeltaError, UnsupportedError
from frostline._core.fingerprint import Fingerprint, digest_of
from frostline._core.plan import Plan
from frostline.checkpoint import delta as checkpoint
from frostline.checkpoint.delta import TensorSource
from frostline.checkpoint.delta_file import DeltaFile
from frostline.jax._freezing.division import divided
from frostline.jax._freezing.freezing import follow
from frostline.jax._freezing.parts import beside
from frostline.jax._freezing.survey import Survey, survey
from frostline.jax._training.cohorts import OptimizerState
from frostline.jax._training.delta_state import read_state, written_state
from frostline.jax._training.optimizer import Optimizer
from frostline.jax._training.stored import has_values, like, source, stored


@final
@dataclass(frozen=True)
class Delta:
    """The result of :func:`load_delta`.

    Attributes:
        tree: the tree with the loaded arrays, marked as it was frozen when it was saved; ``strip(delta.tree)`` takes
            the marks off, for a run with ``delta.plan`` beside the tree.
        state: the state of the optimizer; None without an optimizer.
        plan: the plan of the tree.
        schedule: the value that was passed to `save_delta` as ``schedule=``.
        names: the names of the loaded arrays.
    """

    tree: Any
    state: OptimizerState | None
    plan: Plan
    schedule: Any
    names: tuple[str, ...]


def save_delta(
    file: str | os.PathLike[str],
    tree: Any,
    *,
    frozen: Plan | None = None,
    optimizer: Optimizer | None = None,
    state: OptimizerState | None = None,
    schedule: object = None,
) -> None:
    """Saves the trainable arrays of a tree and a fingerprint of the rest.

    The file is a safetensors file. It holds the trainable parameters by name, a tied one once; all other arrays outside
    held modules; and the plan. It holds a digest of each array of the rest, the base, so that it cannot be loaded onto
    another base. It is written beside the old file, synced and renamed: a crash at any instant leaves the old file or
    the new one. The same state gives the same bytes. Leaves that are not arrays are not saved.

    The base is the tree as it is now. If a schedule has frozen arrays that it trained earlier, save those by other
    means, too.

    Every process must call it. The arrays of the delta are gathered, and the first process writes them.

    Args:
        file: the path of the file, which is replaced if it exists.
        tree: the tree, as it is frozen.
        frozen: a plan beside an unmarked tree.
        optimizer: the result of ``optimizer(tx)``; needs `state`.
        state: the state of the optimizer, saved by name.
        schedule: the state of the schedule, or any other JSON data.

    Raises:
        DeltaError: the file cannot be written; or the tree has arrays without values, or a name that no file can hold.
        UnsupportedError: it is called in compiled code, or the optimizer keeps one array for all parameters.
        SamePathError: two leaves of the tree have one name.

    Source:
        https://github.com/huggingface/safetensors (the format)

    Example:
        >>> import os, tempfile
        >>> file = os.path.join(tempfile.mkdtemp(), "run.safetensors")
        >>> params = freeze({"body": jnp.ones(2), "head": jnp.ones(2)}, "body")
        >>> save_delta(file, params, schedule={"step": 7})
        >>> delta = load_delta(file, {"body": jnp.ones(2), "head": jnp.zeros(2)})
        >>> delta.names, delta.schedule, delta.tree["head"]
        (('head',), {'step': 7}, Array([1., 1.], dtype=float32))
    """
    expression = f"save_delta({os.fspath(file)!r}, tree)"
    _refuse_tracing("save_delta(file, tree)", (tree, state))
    tree = beside(tree, frozen)
    read = survey(tree)
    parts = _Parts.of(read)
    parts.check_values(expression)
    text, moments = written_state(optimizer, state, tree)
    content = checkpoint.DeltaContents(
        plan=read.plan,
        base=parts.fingerprint(),
        tensors={**{path: source(array) for path, array in parts.moving.items()}, **moments},
        aliases=parts.aliases,
        schedule=schedule,
        optimizer=text,
    )
    if jax.process_index() == 0:
        checkpoint.save(expression, file, content)
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import sync_global_devices

        sync_global_devices(expression)


def load_delta(
    file: str | os.PathLike[str], tree: Any, *, optimizer: Optimizer | None = None, any_base: bool = False
) -> Delta:
    """Loads a delta into the tree that it was saved from, or into a new one.

    Everything is read and checked before a new tree is made. Values are bitwise those that were saved. Arrays are put
    on the devices of the tree's arrays.

    Args:
        file: a file that `save_delta` wrote, in JAX or in PyTorch.
        tree: the tree with the base of the delta, whatever is frozen in it.
        optimizer: the result of ``optimizer(tx)``, to load its saved state.
        any_base: whether to load onto another base.

    Returns:
        The tree, frozen as it was then, the state of the optimizer, and the other contents of the file.

    Raises:
        DeltaError: it does not fit the tree: another base, other names, shapes or dtypes, another optimizer.
        FileFormatError: it is not a delta, or it is damaged.
        PinnedError: it trains a parameter that is in a frozen use here.
        UnsupportedError: it is called in compiled code.
        SamePathError: two leaves of the tree have one name.

    Example:
        >>> import os, tempfile
        >>> file = os.path.join(tempfile.mkdtemp(), "run.safetensors")
        >>> params = freeze({"body": jnp.ones(2), "head": jnp.ones(2)}, "body")
        >>> tx = optimizer(optax.adam(0.1))
        >>> save_delta(file, params, optimizer=tx, state=tx.init(params))
        >>> fresh = {"body": jnp.zeros(2), "head": jnp.zeros(2)}
        >>> load_delta(file, fresh)
        Traceback (most recent call last):
            ...
        frostline.errors.DeltaError: ...holds a delta that was made on another base: 1 of 1 frozen tensors differ, ...
        >>> delta = load_delta(file, fresh, optimizer=tx, any_base=True)
        >>> delta.tree["head"], delta.state.cohorts
        (Array([1., 1.], dtype=float32), (('head',),))
    """
    expression = f"load_delta({os.fspath(file)!r}, tree)"
    _refuse_tracing("load_delta(file, tree)", tree)
    paths = survey(tree).inventory.paths
    delta = DeltaFile(file)
    plan = delta.plan_for(expression, paths)
    read = survey(follow(tree, plan))
    parts = _Parts.of(read)
    parts.check_values(expression, base=not any_base)
    delta.check_tensors(expression, {path: stored(path, array) for path, array in parts.moving.items()}, delta.own)
    if not any_base:
        delta.check_base(expression, parts.fingerprint(), _OTHER_BASE)
    contents = delta.contents([*parts.moving, *(delta.of_optimizer if optimizer is not None else ())])
    weak = frozenset(delta.said.weak)
    found = {
        path: like(array, delta.tensors[path], contents[path], weak=path in weak)
        for path, array in parts.moving.items()
    }
    loaded = parts.filled(found)
    state = None if optimizer is None else read_state(expression, delta, contents, optimizer, loaded)
    return Delta(loaded, state, plan, delta.said.schedule, tuple(sorted(found)))


_OTHER_BASE = (
    "Load the weights that it was trained on first, or accept another base: load_delta(file, tree, any_base=True)."
)


@dataclass(frozen=True)
class _Parts:
    """The arrays of a tree that a delta holds, and those of its base.

    Attributes:
        read: the survey of the tree.
        base: the arrays that stay still, by name; a tied parameter once.
        moving: the rest; a tied parameter once.
    """

    read: Survey
    base: dict[str, Any]
    moving: dict[str, Any]

    @classmethod
    def of(cls, read: Survey) -> _Parts:
        division, names = divided(read), {slot.name for group in read.places.values() for slot in group[1:]}
        return cls(
            read,
            {name: array for name, (array, _) in division.still.items() if name not in names},
            {name: read.leaves[slot.leaf] for name, slot in division.moving.items() if name not in names},
        )

    @property
    def aliases(self) -> dict[str, tuple[str, ...]]:
        """The other names of each parameter; for a trainable one, also those under which it is frozen."""
        found = {path: tuple(slot.name for slot in slots[1:]) for path, slots in self.read.places.items()}
        for group in self.read.arrays:
            names = [slot.name for slot in group]
            if owner := next((name for name in names if name in self.read.plan.trainable), None):
                found[owner] = tuple(name for name in names if name != owner)
        return found

    def check_values(self, expression: str, *, base: bool = True) -> None:
        """Checks that all arrays have bytes."""
        arrays = self.moving | (self.base if base else {})
        if hollow := tuple(path for path, array in arrays.items() if not has_values(array)):
            problem = f"has {len(hollow)} of {len(arrays)} arrays without values:"
            fix = "Make the arrays first: tree = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)."
            raise DeltaError(expression, problem, hollow, fix)

    def fingerprint(self) -> Fingerprint:
        """The digests of the base."""
        return Fingerprint(tuple((path, _digest(source(array))) for path, array in self.base.items()))

    def filled(self, found: Mapping[str, Any]) -> Any:
        """The tree with other arrays."""
        leaves, slots = list(self.read.leaves), divided(self.read).moving
        for path, array in found.items():
            leaves[slots[path].leaf] = array
        return tree_unflatten(self.read.structure, leaves)


def _digest(found: TensorSource) -> str:
    with found.opened() as data:
        return digest_of(found.dtype, found.shape, (data,))


def _refuse_tracing(expression: str, trees: Any) -> None:
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees)):
        raise UnsupportedError(
            expression,
            "is called inside jit, where arrays have no bytes yet.",
            "Call it outside the compiled step: tree = step(tree, batch); save_delta(file, tree).",
        )
