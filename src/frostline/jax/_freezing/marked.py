"""Marked trees, which record the arrays that are frozen and those that are tied."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSequence
from dataclasses import astuple, dataclass, field
from functools import lru_cache, partial
from typing import Any, ClassVar, TypeVar, final

import jax
from jax import export
from jax.tree_util import PyTreeDef, register_pytree_with_keys, tree_flatten, tree_unflatten

from frostline._core.errors import LayerError
from frostline.jax._arrays import described, is_param
from frostline.jax._freezing.held_modules import held, is_below
from frostline.jax._uses.flax_states import serialized
from frostline.jax._uses.layout import Layout, children, layout
from frostline.jax._uses.mode import set_mode
from frostline.jax._uses.structure import from_bytes, to_bytes
from frostline.jax._uses.window import (
    CallableWindow,
    Level,
    Window,
    WindowContent,
    inner_of,
    is_window,
    stopped,
    window_of,
)

Tree = TypeVar("Tree")

Ties = tuple[tuple[str, ...], ...]
_Structure = tuple["MarkData", Level]
_SHOWN = 10


@final
@dataclass(frozen=True, repr=False)
class MarkData:
    """The marks and ties of a tree, as JAX compares them. Errors of JAX show them, so their text is short.

    What was thawed is no part of the comparison: the way to a frozen set needs no trace of its own, and two trees with
    the same frozen set can be mapped together.

    Attributes:
        marks: the frozen names.
        ties: groups of names, one array each.
        thawed: the names of which ``thaw`` or ``follow`` has said that they train. All other names train because
            nothing was said, which a tree that lost its marks on the way cannot tell from a loss.
    """

    marks: frozenset[str]
    ties: Ties
    thawed: frozenset[str] = field(compare=False)

    def __repr__(self) -> str:
        names = ", ".join(sorted(self.marks)[:_SHOWN])
        more = f" and {left} more" if (left := len(self.marks) - _SHOWN) > 0 else ""
        return f"<{len(self.marks)} frozen: {names}{more}; {len(self.ties)} tied>"


class Marked(Window):
    """A window onto a tree, with its marks; the result of ``freeze``.

    The marks are part of the structure of the tree, so they pass through ``jit`` and ``tree.map``, and a function is
    traced once for each set of marks. A tied array is one child, so that all of its names show the same array inside a
    trace, too.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name == "copy" and isinstance(self, Mapping | MutableSequence):
            return lambda *args, **kwargs: _merged(inner_of(self).copy(*args, **kwargs), self)
        return super().__getattr__(name)

    def __or__(self, other: Any) -> Any:
        return _merged(inner_of(self) | inner_of(other), self, other)

    def __ror__(self, other: Any) -> Any:
        return _merged(inner_of(other) | inner_of(self), self, other)

    def __repr__(self) -> str:
        return f"<{len(self._frostline.marks)} frozen in {inner_of(self)!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (mark_data(self), self._frostline.child, type(self))


@final
class MarkedModule(Marked, CallableWindow):
    """The same for a tree that can be called. Libraries take what can be called for a function of the parameters."""

    __slots__ = ()


@final
class MarkedContent(WindowContent):
    """A tree, its frozen names and its tied names."""

    __slots__ = ("_inner", "alone", "child", "data", "marks", "thawed", "ties")

    pins: ClassVar[bool] = False

    def __init__(self, child: Any, data: MarkData) -> None:
        super().__init__()
        self.child, self.data, self.ties, self.alone = child, data, data.ties, False
        self.marks, self.thawed = data.marks, data.thawed
        self._inner: Any = _NOT_YET

    @property
    def inner(self) -> Any:
        """The tree without marks, with tied arrays under all of their names."""
        if self._inner is _NOT_YET:
            self._inner = _filled(self.child, self.ties)
        return self._inner

    def made_ready(self, leaves: list[Any], structure: PyTreeDef) -> Any:
        """A plain tree without gradients at frozen leaves, and with held modules in evaluation mode."""
        slots = layout(self.inner, structure)
        frozen, still = _still(slots, self.marks, tuple(map(is_param, leaves)))
        seen = [stopped(leaf) if number in frozen else leaf for number, leaf in enumerate(leaves)]
        for number, key in still:
            seen[number] = set_mode(key, seen[number])
        same = all(new is old for new, old in zip(seen, leaves, strict=True))
        return self.inner if same else tree_unflatten(structure, seen)


_NOT_YET = object()


def marked(tree: Any, marks: frozenset[str], ties: Ties, thawed: frozenset[str]) -> Any:
    """Returns the tree with these marks; the tree itself if there is nothing to record.

    Raises:
        LayerError: the tree is an array.
    """
    if not (marks or ties) and (not thawed or children(tree) is None):
        return tree
    if is_param(tree):
        raise LayerError(
            "freeze(array)",
            f"is given {described(tree)}, but marks are kept in the tree around an array.",
            'Put it into a tree, params = freeze({"weight": array}), or freeze it by name: freeze(params, "weight").',
        )
    kind = MarkedModule if callable(tree) else Marked
    return _made(MarkData(marks, ties, thawed), _without(tree, ties), kind)


def _merged(tree: Any, *origins: Any) -> Any:
    """A tree that was made of marked ones, with their marks, and with the ties whose arrays are still one."""
    data = [mark_data(origin) for origin in origins if is_marked(origin)]
    marks = frozenset[str]().union(*(each.marks for each in data))
    thawed = frozenset[str]().union(*(each.thawed for each in data)) - marks
    leaves, structure = tree_flatten(tree, is_leaf=lambda node: node is None)
    numbers = _numbers(tree, structure)
    at = {name: leaves[number] for name, number in numbers.items()}
    groups = ([name for name in names if name in at and at[name] is at.get(names[0])] for names in _all_ties(data))
    ties = tuple(tuple(group) for group in groups if len(group) > 1)
    return marked(tree, marks, ties, thawed)


def _all_ties(data: Iterable[MarkData]) -> Iterator[tuple[str, ...]]:
    """The ties of several trees; of those with a common name, the first."""
    seen: set[str] = set()
    for names in (names for each in data for names in each.ties):
        if seen.isdisjoint(names):
            seen.update(names)
            yield names


def is_marked(node: object) -> bool:
    """Whether a node is a tree with marks."""
    return issubclass(type(node), Marked)


def bare(tree: Any) -> Any:
    """The tree without any marks, but with its frozen uses."""
    return _opened(tree, is_marked)


def strip(tree: Tree) -> Tree:
    """Returns the plain tree, without marks and frozen uses, for saving, loading and evaluation.

    It has the structure of the tree that was never frozen. So a checkpoint of one loads into the other, and a function
    of it is not traced again when the frozen set changes.

    Example:
        >>> layers = [Frozen({"w": jnp.ones(2)}), {"w": jnp.ones(2)}]
        >>> jax.tree.structure(strip(freeze(layers, "[1]")))
        PyTreeDef([{'w': *}, {'w': *}])
    """
    return _opened(tree, is_window)


def _opened(tree: Any, is_shut: Callable[[Any], bool]) -> Any:
    """The tree with some windows replaced by their content; the same object if there are none."""
    if is_shut(tree):
        return _opened(inner_of(tree), is_shut)
    if not any(map(is_shut, jax.tree.leaves(tree, is_leaf=is_shut))):
        return tree
    return jax.tree.map(lambda node: _opened(node, is_shut) if is_shut(node) else node, tree, is_leaf=is_shut)


def _without(tree: Any, ties: Ties) -> Any:
    """The tree with each tied array under its first name alone."""
    if not ties:
        return tree
    names = {name for _, *others in ties for name in others}
    leaves, structure = tree_flatten(tree)
    for slot in layout(tree, structure).slots:
        if slot.name in names:
            leaves[slot.leaf] = None
    return tree_unflatten(structure, leaves)


def _filled(tree: Any, ties: Ties) -> Any:
    """The tree with the arrays that `_without` left out."""
    if not ties:
        return tree
    leaves, structure = tree_flatten(tree, is_leaf=lambda node: node is None)
    numbers = _numbers(tree, structure)
    for first, *others in ties:
        for other in others:
            # A part of a tree may lack either of them.
            if first in numbers and other in numbers:
                leaves[numbers[other]] = leaves[numbers[first]]
    return tree_unflatten(structure, leaves)


def _numbers(tree: Any, structure: PyTreeDef) -> dict[str, int]:
    # Numbers take the place of leaves, so that no place is empty.
    numbered = tree_unflatten(structure, range(structure.num_leaves))
    return {slot.name: slot.leaf for slot in layout(numbered, jax.tree.structure(numbered)).slots}


@lru_cache(maxsize=64)
def _still(
    slots: Layout, marks: frozenset[str], params: tuple[bool, ...]
) -> tuple[frozenset[int], tuple[tuple[int, str], ...]]:
    """The frozen leaves, and the leaves below held modules, each with its last key."""
    frozen = frozenset(slot.leaf for slot in slots.slots if slot.name in marks)
    whole = held((slot for slot in slots.slots if params[slot.leaf]), lambda slot: slot.pinned or slot.leaf in frozen)
    return frozen, tuple((slot.leaf, slot.keys[-1]) for slot in slots.slots if is_below(slot.keys, whole))


def mark_data(tree: Any) -> MarkData:
    """The marks and ties of a marked tree."""
    data: MarkData = tree._frostline.data
    return data


def _made(data: MarkData, child: Any, kind: type[Marked] = Marked) -> Any:
    return window_of(kind, MarkedContent(child, data))


def _flat(tree: Marked) -> tuple[list[Any], _Structure]:
    below, level = tree._frostline.flat()
    return below, (mark_data(tree), level)


def _flat_with_keys(tree: Marked) -> tuple[list[tuple[Any, Any]], _Structure]:
    below, level = tree._frostline.flat_with_keys()
    return below, (mark_data(tree), level)


def _unflattened(kind: type[Marked], structure: _Structure, below: Iterable[Any]) -> Any:
    return _made(structure[0], structure[1].filled(below), kind)


def _written(structure: _Structure) -> bytes:
    data, level = structure
    text = json.dumps([sorted(data.marks), data.ties, sorted(data.thawed)]).encode()
    return len(text).to_bytes(8, "little") + text + to_bytes(level)


def _read(data: bytes | bytearray) -> _Structure:
    end = 8 + int.from_bytes(data[:8], "little")
    marks, ties, thawed = json.loads(data[8:end])
    return MarkData(frozenset(marks), tuple(map(tuple, ties)), frozenset(thawed)), from_bytes(data[end:])


for marked_class in (Marked, MarkedModule):
    register_pytree_with_keys(marked_class, _flat_with_keys, partial(_unflattened, marked_class), _flat)
    export.register_pytree_node_serialization(
        marked_class,
        serialized_name=f"frostline.jax.{marked_class.__name__}",
        serialize_auxdata=_written,
        deserialize_auxdata=_read,
    )
    serialized(
        marked_class,
        lambda flax, tree: flax.to_state_dict(inner_of(tree)),
        lambda flax, tree, state: marked(flax.from_state_dict(inner_of(tree), state), *astuple(mark_data(tree))),
    )
