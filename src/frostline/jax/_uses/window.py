"""Windows: nodes that look like the tree inside them. `Frozen` and marked trees are windows."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, MutableMapping, MutableSequence
from typing import Any, ClassVar, NamedTuple

import jax
from jax.extend.core import get_opaque_trace_state
from jax.tree_util import DictKey, PyTreeDef, tree_flatten, tree_flatten_with_path, tree_unflatten

from frostline._core.errors import LayerError
from frostline.jax._arrays import described
from frostline.jax._uses.flax_states import register_waiting


class Level(NamedTuple):
    """The structure of one level of a tree: of its root and its children, without what is below them.

    To JAX the children of the root are the children of the window around it. So paths are those of the tree for every
    library that reads them, and a checkpoint has the same names with windows and without.

    Attributes:
        structure: the structure; None if the tree is a leaf, which is then the only child of the window.
    """

    structure: PyTreeDef | None

    def __repr__(self) -> str:
        text = str(self.structure)
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."

    def filled(self, below: Iterable[Any]) -> Any:
        """The tree with these children."""
        if self.structure is not None:
            return tree_unflatten(self.structure, below)
        (child,) = below
        return child


_LONGEST = 200


class WindowContent(ABC):
    """The content of a window.

    Attributes:
        pins: whether everything below it is frozen and cannot be thawed.
        marks: the names below it that are frozen until they thaw.
        thawed: the names below it of which it says that they train.
        ties: groups of names below it, one array each. The array is at the first name and left out at the others.
        child: the tree whose children JAX sees.
        alone: whether that is a leaf, and JAX sees it as the only child.
    """

    __slots__ = ("_born", "_shown")

    pins: ClassVar[bool]
    marks: frozenset[str]
    thawed: frozenset[str]
    ties: tuple[tuple[str, ...], ...]
    child: Any
    alone: bool

    def __init__(self) -> None:
        self._born = get_opaque_trace_state(convention=None)
        self._shown: tuple[list[Any], PyTreeDef, Any] | None = None

    @property
    @abstractmethod
    def inner(self) -> Any:
        """The tree itself."""

    def seen(self) -> Any:
        """The tree for use: gradients stop at frozen leaves, and held modules are in evaluation mode."""
        leaves, structure = tree_flatten(self.inner)
        if self._shown is not None and _are_same(leaves, self._shown[0]) and structure == self._shown[1]:
            return self._shown[2]
        seen = self.made_ready(leaves, structure)
        # Without this, each access adds an operation per array to a trace. The result must not outlive its trace.
        if get_opaque_trace_state(convention=None) == self._born:
            self._shown = leaves, structure, seen
        return seen

    def flat(self) -> tuple[list[Any], Level]:
        """The children of the window, and their level."""
        if self.alone:
            return [self.child], Level(None)
        below, structure = tree_flatten(self.child, is_leaf=lambda node: node is not self.child)
        return below, Level(structure)

    def flat_with_keys(self) -> tuple[list[tuple[Any, Any]], Level]:
        """The same, each child with its key."""
        if self.alone:
            return [(THROUGH, self.child)], Level(None)
        below, structure = tree_flatten_with_path(self.child, is_leaf=lambda node: node is not self.child)
        return [(path[0], child) for path, child in below], Level(structure)

    @abstractmethod
    def made_ready(self, leaves: list[Any], structure: PyTreeDef) -> Any:
        """The tree of these leaves, made ready for use."""


class Window:
    """A pytree node around a tree: its children, attributes, items and calls are those of the tree.

    ``isinstance`` gives the class of the tree, and the window adds nothing to a path. It never holds an array: an
    object that looks like an array breaks inside JAX. Its own state is behind one name, so that it hides no name
    of a layer.
    """

    __slots__ = ("__weakref__", "_frostline")

    _frostline: WindowContent

    # Libraries dispatch on the class of a layer, for example to find those that carry state.
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return self._frostline.inner.__class__

    def __getattr__(self, name: str) -> Any:
        # Python and JAX look up special methods on the window itself, not on its child.
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


# The tree that is seen may be a copy, so a change of it would be lost.
_CHANGES = frozenset({"append", "clear", "extend", "insert", "move_to_end", "pop", "popitem", "remove", "reverse"})
_CHANGES |= {"setdefault", "sort", "update"}
_READ_ONLY = "{} would change a frozen tree in place, but a frozen tree is read-only: make another one, then freeze it."


class CallableWindow(Window):
    """A window that can be called."""

    __slots__ = ()

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        seen = self._frostline.seen()
        if not callable(seen):
            raise LayerError(
                "Frozen(layer)(...)",
                f"calls {described(seen)}, which is not callable.",
                "Pass it to the function that uses it, apply(params, x): its items are frozen, too.",
            )
        return seen(*args, **kwargs)


def window_of(kind: type[Window], content: WindowContent) -> Any:
    """Makes a window of this kind."""
    register_waiting()
    window = object.__new__(kind)
    object.__setattr__(window, "_frostline", content)
    return window


class Through(DictKey):
    """The key of a leaf that is alone in a window. It is empty, so that its path is that of the window.

    Orbax knows the keys of JAX alone, so it is one of them.
    """

    def __init__(self) -> None:
        super().__init__("")

    def __str__(self) -> str:
        return ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Through)

    def __hash__(self) -> int:
        return hash(Through)


THROUGH = Through()


def is_window(node: object) -> bool:
    """Whether a node is a window."""
    return issubclass(type(node), Window)


def inner_of(node: Any) -> Any:
    """The tree inside a window; any other node itself."""
    return node._frostline.inner if is_window(node) else node


def _are_same(some: list[Any], others: list[Any]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))


def stopped(leaf: Any) -> Any:
    """The leaf without a gradient. Only a tracer can have one."""
    return jax.lax.stop_gradient(leaf) if isinstance(leaf, jax.core.Tracer) else leaf
