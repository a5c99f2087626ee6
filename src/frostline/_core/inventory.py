"""What a model holds, as data: names, shapes, dtypes and classes; never a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frostline._core.tree import Tree


def split_path(path: str) -> tuple[str, ...]:
    """The keys of a dotted path; the root has none."""
    return tuple(path.split(".")) if path else ()


@dataclass(frozen=True, slots=True)
class Param:
    """One floating parameter that training would move.

    Attributes:
        path: its canonical name, the framework's own dotted one.
        shape: its shape.
        dtype: "float32", "bfloat16", ...
        itemsize: bytes an element.
        owners: the classes of every module that encloses it under any of its names, the root included.
        aliases: its other names, when it is tied.
        pinned: whether a frozen use holds it, so that thawing cannot change it.
        keys: the segments of `path`, where a dot in a key makes splitting wrong.

    Example:
        >>> weight = Param("head.weight", shape=(10, 4), dtype="float32", itemsize=4, aliases=("embed.weight",))
        >>> weight.size, weight.nbytes, weight.names
        (40, 160, ('head.weight', 'embed.weight'))
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    itemsize: int
    owners: tuple[type, ...] = ()
    aliases: tuple[str, ...] = ()
    pinned: bool = False
    keys: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many elements it has."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes it takes."""
        return self.size * self.itemsize

    @property
    def names(self) -> tuple[str, ...]:
        """All its names, the canonical one first."""
        return (self.path, *self.aliases)


@dataclass(frozen=True, slots=True)
class Module:
    """One module of a model.

    Attributes:
        path: its name; "" is the root.
        owner: its class.
        buffer_bytes: bytes of its own buffers.
        stateful: whether it has buffers of its own and no parameter at or below it: such a module is frozen by its
            own name.
        pinned: whether a frozen use holds it.
        keys: the segments of `path`, where a dot in a key makes splitting wrong.
    """

    path: str
    owner: type
    buffer_bytes: int = 0
    stateful: bool = False
    pinned: bool = False
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inventory:
    """The parameters and modules of one model.

    Attributes:
        params: the parameters in model order, a tied one once.
        modules: the modules in model order (pre-order), the root first.

    Example:
        >>> inventory = Inventory((Param("body.weight", (2, 3), "float32", 4), Param("head.bias", (2,), "float32", 4)))
        >>> sorted(inventory.paths)
        ['body.weight', 'head.bias']
        >>> inventory.by_name["head.bias"].size
        2
    """

    params: tuple[Param, ...]
    modules: tuple[Module, ...] = ()

    @cached_property
    def paths(self) -> frozenset[str]:
        """What a plan speaks of: the parameters, and the modules that are frozen by their own name."""
        stateful = (module.path for module in self.modules if module.stateful)
        return frozenset(param.path for param in self.params).union(stateful)

    @cached_property
    def by_name(self) -> dict[str, Param]:
        """The parameter behind each name, aliases included."""
        return {name: param for param in self.params for name in param.names}

    @cached_property
    def tree(self) -> Tree:
        """The names as a tree."""
        # The tree is made of inventories' parts, and needed for selecting only.
        from frostline._core.tree import Tree

        return Tree(self.params, self.modules)
