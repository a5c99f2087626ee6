"""What selectors would take in a model, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, final

from frostline._core.errors.base import counted
from frostline._core.inventory import Inventory
from frostline._core.plan import Plan
from frostline._core.reporting import table
from frostline._core.reporting.account import Amounts, ReportRow, account
from frostline._core.reporting.neighbours import grouped
from frostline._core.reporting.outline import children_of
from frostline._core.reporting.units import human
from frostline._core.selecting.pattern import spell

if TYPE_CHECKING:
    from rich.console import RenderableType

_TITLES = ("", "parameters", "params", "memory")


@final
@dataclass(frozen=True, repr=False)
class Selection:
    """What selectors take: prints as a small table, and is one in a notebook.

    Attributes:
        paths: the paths of the parameters, in model order, a tied one once.
        modules: the paths of modules that have buffers and no parameters, and are taken by their own name.
        buffers: the paths of buffers that are taken by themselves, apart from the parameters of their module.
        total: how many parameters there are.
        entries: one for each name of the model, in pre-order, where what is selected counts as frozen.
    """

    paths: tuple[str, ...]
    modules: tuple[str, ...]
    buffers: tuple[str, ...]
    total: int
    entries: tuple[ReportRow, ...]

    @property
    def amounts(self) -> Amounts:
        """The sums over the whole model, of which `frozen_params` and `frozen_bytes` are selected."""
        return self.entries[0].amounts

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return f"<Selection: {self._summary}>"

    def __str__(self) -> str:
        return table.plain(self.__rich__())

    def __rich__(self) -> RenderableType:
        return table.rendered(_TITLES, map(_cells, self._rows()), [f"{self._summary}."], numbers=3)

    def _repr_html_(self) -> str:
        rows = [table.html_row(table.code(row.name), row.cells) for row in self._rows()]
        return table.page(_TITLES, rows, [f"{self._summary}."])

    @property
    def _summary(self) -> str:
        amounts = self.amounts
        sizes = f"{amounts.frozen_params:,} of {amounts.params:,} params, {human(amounts.frozen_bytes)}"
        found = [f"{len(self.paths)} of {counted(self.total, 'parameter')} ({sizes})"]
        found += [f"{counted(len(self.modules), 'module')} with buffers alone"] if self.modules else []
        found += [f"{counted(len(self.buffers), 'buffer')} by name"] if self.buffers else []
        return " and ".join(found)

    def _rows(self) -> Iterator[_SelectedRow]:
        """What is taken whole and is in nothing that is; equal neighbours in a list are one row."""
        own = [0, *accumulate(entry.is_param and not entry.is_alias for entry in self.entries)]
        stack = [(0, "", 1)]
        while stack:
            at, name, times = stack.pop()
            entry = self.entries[at]
            if entry.state == "partly":
                stack.extend(reversed([(below, name + rest, times * count) for below, rest, count in self._below(at)]))
            elif entry.state == "frozen":
                count = own[at + entry.span] - own[at]
                # Names of a tied parameter that is counted elsewhere are no rows of their own.
                if count or entry.amounts.buffer_bytes:
                    amounts = entry.amounts * times
                    cells = (f"{count * times:,}", f"{amounts.params:,}", human(amounts.bytes))
                    yield _SelectedRow(name.removeprefix(".") or "**", entry.kind, cells)
        for path in self.buffers:
            yield _SelectedRow(spell(path.split(".")), "buffer", ("0", "0", human(0)))

    def _below(self, at: int) -> Iterator[tuple[int, str, int]]:
        """The groups of equal neighbours below an entry: the first, how their name goes on, and how many they are."""
        entries = self.entries
        children = list(children_of(at, entries))
        groups = grouped(children, key=lambda at: entries[at].keys[-1], likeness=lambda at: entries[at].likeness)
        for group in groups:
            key, count = entries[group[0]].keys[-1], len(group)
            spelled = spell((key,)) if count == 1 else f"[{key}:{int(key) + count}]"
            yield group[0], spelled if spelled.startswith("[") else f".{spelled}", count


@final
@dataclass(frozen=True, slots=True)
class _SelectedRow:
    name: str
    kind: str
    cells: Sequence[str]


def _cells(row: _SelectedRow) -> list[table.Cell | Sequence[table.Cell]]:
    name: list[table.Cell] = [(row.name, ""), (f"  {row.kind}" if row.kind else "", "dim")]
    return [name, *((cell, "") for cell in row.cells)]


def preview(inventory: Inventory, chosen: Set[str], buffers: Set[str] = frozenset()) -> Selection:
    """Makes the preview of what selectors take.

    Args:
        inventory: the model.
        chosen: the paths that the selectors resolve to.
        buffers: the buffers that they name by themselves.

    Example:
        >>> from frostline._core.param import Param
        >>> names = ("embed.w", "layers.0.w", "layers.1.w", "head.w")
        >>> model = Inventory(tuple(Param(name, (2,), "float32", 4) for name in names))
        >>> print(preview(model, {"layers.0.w", "layers.1.w", "head.w"}))
                parameters  params  memory
        layers           2       4    16 B
        head             1       2     8 B
        3 of 4 parameters (6 of 8 params, 24 B).
    """
    plan = Plan(frozenset(chosen), inventory.paths - chosen)
    params = tuple(param.path for param in inventory.params if param.path in chosen)
    modules = tuple(module.path for module in inventory.modules if module.stateful and module.path in chosen)
    named = tuple(buffer.path for buffer in inventory.buffers if buffer.path in buffers)
    return Selection(params, modules, named, len(inventory.params), account(inventory, plan, {}, frozenset()))
