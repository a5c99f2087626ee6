"""What Frozen and a marked tree have in common: they look like the tree that they hold."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator, MutableMapping, MutableSequence
from typing import Any, ClassVar

import jax
from jax.extend.core import get_opaque_trace_state
from jax.tree_util import PyTreeDef, tree_flatten

from frostline._core.errors import LayerError
from frostline.jax._arrays import described


class Content(ABC):
    """What a window holds.

    Attributes:
        pins: whether all below it is frozen for good, so that thawing cannot change it.
        marks: the names below it that are frozen until they are thawed.
        ties: names of one array each, below it; the first is where the array is, at the others it is left out.
        child: the one child that JAX sees.
    """

    __slots__ = ("_born", "_shown")

    pins: ClassVar[bool]
    marks: frozenset[str]
    ties: tuple[tuple[str, ...], ...]
    child: Any

    def __init__(self) -> None:
        self._born = get_opaque_trace_state(convention=None)
        self._shown: tuple[list[Any], PyTreeDef, Any] | None = None

    @property
    @abstractmethod
    def inner(self) -> Any:
        """The tree as it is."""

    def seen(self) -> Any:
        """The tree as it is to be used: gradients stop at what is frozen, what is held is in evaluation mode."""
        leaves, structure = tree_flatten(self.inner)
        if self._shown is not None and _are_same(leaves, self._shown[0]) and structure == self._shown[1]:
            return self._shown[2]
        seen = self.made_ready(leaves, structure)
        # Each look would add as many operations to a trace as there are arrays; but none is to outlive its trace.
        if get_opaque_trace_state(convention=None) == self._born:
            self._shown = leaves, structure, seen
        return seen

    @abstractmethod
    def made_ready(self, leaves: list[Any], structure: PyTreeDef) -> Any:
        """The tree of these leaves as it is to be used."""


class Window:
    """A pytree node with one visible child, seen through: attributes, items and calls are those of the child.

    It takes the class of what it holds (``isinstance`` says so), and adds nothing to a path. It never holds an array:
    what looks like an array and is none breaks inside of JAX. All that is its own is behind one name, so that no
    name of a layer is hidden.
    """

    __slots__ = ("__weakref__", "_frostline")

    _frostline: Content

    # Layers are told apart by their class, for example those that carry state in a sequence.
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return self._frostline.inner.__class__

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        seen = self._frostline.seen()
        if not callable(seen):
            raise LayerError(
                "Frozen(layer)(...)",
                f"calls {described(seen)}, which cannot be called.",
                "Hand it to the function that uses it, apply(params, x): its items are frozen as well.",
            )
        return seen(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        # What Python and JAX look for on any object is asked of this one, and not of what it holds.
        if name.startswith("__") or name == "_frostline":
            raise AttributeError(name)
        if name in _CHANGES and isinstance(self, MutableMapping | MutableSequence):
            raise AttributeError(_READ_ONLY.format(repr(name)))
        return getattr(self._frostline.seen(), name)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name!r} cannot be set through a frozen tree: set it on the layer, then freeze.")

    def __getitem__(self, key: Any) -> Any:
        return self._frostline.seen()[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._frostline.seen())

    def __len__(self) -> int:
        return len(self._frostline.seen())

    def __contains__(self, key: object) -> bool:
        return key in self._frostline.seen()

    def __bool__(self) -> bool:
        return True


# What is seen of a tree may be a copy of it, and what is changed there would be lost.
_CHANGES = frozenset({"append", "clear", "extend", "insert", "move_to_end", "pop", "popitem", "remove", "reverse"})
_CHANGES |= {"setdefault", "sort", "update"}
_READ_ONLY = "{} would change a frozen tree in place, and it can only be read: make another one, then freeze it."


def window_of(kind: type[Window], content: Content) -> Any:
    """A window of this kind."""
    window = object.__new__(kind)
    object.__setattr__(window, "_frostline", content)
    return window


class Through:
    """The key of the child of a window: none. It makes paths those of the tree without windows."""

    __slots__ = ()

    def __str__(self) -> str:
        return ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Through)

    def __hash__(self) -> int:
        return hash(Through)


THROUGH = Through()


def is_window(node: object) -> bool:
    """Whether a node is one."""
    return issubclass(type(node), Window)


def inner_of(node: Any) -> Any:
    """What a window holds; any other node as it is."""
    return node._frostline.inner if is_window(node) else node


def _are_same(some: list[Any], others: list[Any]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))


def stopped(leaf: Any) -> Any:
    """The leaf, but no gradient passes; only what is being traced could have one."""
    return jax.lax.stop_gradient(leaf) if isinstance(leaf, jax.core.Tracer) else leaf
