"""A parameter and a module of a model, as data: names, shapes, dtypes and classes; never a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any


def split_path(path: str) -> tuple[str, ...]:
    """The keys of a dotted path; the root has none."""
    return tuple(path.split(".")) if path else ()


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter.

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
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def name(self) -> str:
        """Its path."""
        return self.path

    def numel(self) -> int:
        """Returns how many elements it has, as PyTorch calls it."""
        return self.size

    @property
    def nbytes(self) -> int:
        """How many bytes it takes."""
        return self.size * self.itemsize

    @property
    def can_train(self) -> bool:
        """Whether its values can have a gradient; integers, and what is packed into them, never do."""
        return self.dtype.startswith(("float", "bfloat", "complex"))

    @property
    def names(self) -> tuple[str, ...]:
        """All its names, the canonical one first."""
        return (self.path, *self.aliases)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"A Param has no {name!r}: it is the description of a parameter, and not a tensor.\n"
            "It has path, shape, dtype, ndim, size, nbytes, owners and aliases."
        )


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
        members: the keys of its members in the order in which Python indexes them; None for what is no list.
    """

    path: str
    owner: type
    buffer_bytes: int = 0
    stateful: bool = False
    pinned: bool = False
    keys: tuple[str, ...] = ()
    members: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Buffer:
    """A tensor of a module that no optimizer moves, such as a running mean.

    Attributes:
        path: its dotted name.
        shape: its shape.
        dtype: "float32", "int64", ...
        nbytes: its bytes.
        aliases: its other names, where its module has several.
        pinned: whether it is in a frozen use.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    aliases: tuple[str, ...] = ()
    pinned: bool = False

    @property
    def owner(self) -> str:
        """The path of its module."""
        return self.path.rpartition(".")[0]

    @property
    def goes_along(self) -> bool:
        """Whether it goes along with the other buffers of its module: a count of batches."""
        return self.path.rpartition(".")[2] == "num_batches_tracked"
