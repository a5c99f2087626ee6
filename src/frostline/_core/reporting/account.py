"""The rows of a report: for each name of a model, the sums over the parameters at and below it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import final

from frostline._core.inventory import Inventory
from frostline._core.plan import Plan
from frostline._core.selecting.pattern import spell
from frostline._core.tree import NameNode


@final
@dataclass(frozen=True, slots=True)
class Amounts:
    """Sums over parameters; a tied parameter counts once, at its canonical path.

    Attributes:
        params: elements of parameters.
        frozen_params: elements of frozen parameters.
        bytes: bytes of parameters.
        frozen_bytes: bytes of frozen parameters.
        optimizer_bytes: bytes of their optimizer state.
        buffer_bytes: bytes of buffers.
    """

    params: int = 0
    frozen_params: int = 0
    bytes: int = 0
    frozen_bytes: int = 0
    optimizer_bytes: int = 0
    buffer_bytes: int = 0

    def __mul__(self, times: int) -> Amounts:
        return Amounts(*(value * times for value in self.values()))

    def values(self) -> Iterator[int]:
        """Returns the numbers, in the order of the attributes."""
        return (getattr(self, field.name) for field in fields(self))

    @classmethod
    def total(cls, parts: Iterable[Amounts]) -> Amounts:
        """Returns the sum of all parts."""
        return cls(*(sum(column) for column in zip(cls().values(), *(part.values() for part in parts), strict=True)))


@final
@dataclass(frozen=True, slots=True)
class ReportRow:
    """The row of one name of a model.

    Attributes:
        keys: its keys from the root down.
        kind: the class of a module; dtype and shape of a parameter.
        amounts: the sums over all parameters at and below it.
        state: "frozen", "trainable", "partly", or "" if nothing here can be frozen.
        is_param: whether it is a parameter.
        tied: the other names of a tied parameter; only the canonical name, if this is another one.
        is_alias: whether it is a second name of a parameter that counts elsewhere.
        pinned: whether a frozen use holds it.
        held: whether it is a held module.
        buffers: "frozen" or "moving", if the buffers of the module itself deviate from the rule; else "".
        span: the number of rows at and below it.
        likeness: a number that is equal for rows that differ only in their last key.
    """

    keys: tuple[str, ...]
    kind: str
    amounts: Amounts
    state: str
    is_param: bool
    tied: tuple[str, ...]
    is_alias: bool
    pinned: bool
    held: bool
    buffers: str
    span: int
    likeness: int

    @property
    def path(self) -> str:
        """The path as a pattern spells it; "" is the root."""
        return spell(self.keys)

    def to_dict(self) -> dict[str, object]:
        """Returns the row as data for JSON."""
        numbers = {field.name: getattr(self.amounts, field.name) for field in fields(self.amounts)}
        words = {"path": self.path, "kind": self.kind, "state": self.state, "tied": list(self.tied)}
        buffers = {"buffers": self.buffers} if self.buffers else {}
        return words | numbers | {"is_param": self.is_param, "frozen_use": self.pinned, "held": self.held} | buffers


def account(
    inventory: Inventory, plan: Plan, optimizer_bytes: Mapping[str, int], held: frozenset[str]
) -> tuple[ReportRow, ...]:
    """Returns a row for each name, in pre-order: the rows below a row follow it."""
    bookkeeper = _Bookkeeper(plan, optimizer_bytes, held)
    nodes = inventory.tree.nodes
    entries: dict[int, ReportRow] = {}
    # In reverse order, so that the rows below a node exist before its own.
    for node in reversed(nodes):
        below = [entries[child.start] for child in node.children.values()]
        entries[node.start] = bookkeeper.entry(node, below)
    return tuple(entries[node.start] for node in nodes)


@final
class _Bookkeeper:
    """Makes rows, and numbers equal ones."""

    def __init__(self, plan: Plan, optimizer_bytes: Mapping[str, int], held: frozenset[str]) -> None:
        self.plan, self.optimizer_bytes, self.held = plan, optimizer_bytes, held
        owners = [(word, path.rpartition(".")[0]) for word in ("still", "moving") for path in getattr(plan, word)]
        self.buffers = {owner: {"still": "frozen", "moving": "moving"}[word] for word, owner in owners}
        self.likenesses: dict[object, int] = {}

    def entry(self, node: NameNode, below: list[ReportRow]) -> ReportRow:
        kind, amounts, state = self._kind(node), self._amounts(node, below), self._state(node, below)
        tied, is_alias = _tied(node)
        pinned = any(each.pinned for each in (node.param, node.module) if each is not None)
        held = node.module is not None and node.module.path in self.held
        buffers = self.buffers.get(node.path, "") if node.module is not None else ""
        alike = (
            kind,
            amounts,
            state,
            tied,
            pinned,
            held,
            buffers,
            tuple((each.keys[-1], each.likeness) for each in below),
        )
        return ReportRow(
            keys=node.keys,
            kind=kind,
            amounts=amounts,
            state=state,
            is_param=node.param is not None,
            tied=tied,
            is_alias=is_alias,
            pinned=pinned,
            held=held,
            buffers=buffers,
            span=node.stop - node.start,
            likeness=self.likenesses.setdefault(alike, len(self.likenesses)),
        )

    def _kind(self, node: NameNode) -> str:
        if node.param is not None:
            return f"{node.param.dtype}[{', '.join(map(str, node.param.shape))}]"
        # The class `object` means that the class is unknown, as in a checkpoint.
        return node.module.owner.__name__ if node.module is not None and node.module.owner is not object else ""

    def _amounts(self, node: NameNode, below: list[ReportRow]) -> Amounts:
        parts = [each.amounts for each in below]
        if node.module is not None:
            parts.append(Amounts(buffer_bytes=node.module.buffer_bytes))
        if node.param is not None and node.path == node.param.path:
            param, is_frozen = node.param, node.path in self.plan.frozen
            frozen = (param.size, param.nbytes) if is_frozen else (0, 0)
            optimizer = self.optimizer_bytes.get(param.path, 0)
            parts.append(Amounts(param.size, frozen[0], param.nbytes, frozen[1], optimizer))
        return Amounts.total(parts)

    def _state(self, node: NameNode, below: list[ReportRow]) -> str:
        states = {each.state for each in below} - {""}
        if node.is_name:
            states.add("frozen" if node.canonical in self.plan.frozen else "trainable")
        return states.pop() if len(states) == 1 else "partly" if states else ""


def _tied(node: NameNode) -> tuple[tuple[str, ...], bool]:
    if node.param is None:
        return (), False
    is_alias = node.path != node.param.path
    return ((node.param.path,) if is_alias else node.param.aliases), is_alias
