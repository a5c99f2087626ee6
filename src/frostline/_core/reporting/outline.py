"""The lines of a printed report: equal neighbours share a line, so that it fits on one screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

from frostline._core.reporting.account import Amounts, ReportRow
from frostline._core.reporting.neighbours import grouped, label
from frostline._core.selecting.pattern import spell


@final
@dataclass(frozen=True, slots=True)
class OutlineLine:
    """One line of a report.

    Attributes:
        guide: the branches of the tree before the label.
        label: the name below the parent line.
        kind: the class of a module; dtype and shape of a parameter.
        amounts: the sums over all rows of the line.
        state: "frozen", "trainable", "partly" or "".
        note: "held", "frozen use" and the tied names, if any.
    """

    guide: str
    label: str
    kind: str
    amounts: Amounts
    state: str
    note: str


@final
@dataclass(frozen=True, slots=True)
class _Branch:
    at: int  # the number of its first row
    count: int  # the number of siblings in it
    times: int  # the same, multiplied with that of the branches above
    label: str
    guide: str
    below: str  # the guide of the lines below it
    quiet: bool  # whether a line above already has the note that it is held or in a frozen use


def outline(entries: Sequence[ReportRow]) -> Iterator[OutlineLine]:
    """Yields the lines of the tree; equal neighbours in a list share a line with the sums of all of them."""
    branches = [_Branch(0, 1, 1, "model", "", "", quiet=False)]
    while branches:
        branch = branches.pop()
        entry = entries[branch.at]
        note = _note(entry, quiet=branch.quiet)
        yield OutlineLine(branch.guide, branch.label, entry.kind, entry.amounts * branch.times, entry.state, note)
        branches.extend(reversed(_hanging(branch, entries)))


def _note(entry: ReportRow, *, quiet: bool) -> str:
    words = []
    if not quiet:
        words += ["frozen use"] if entry.pinned else []
        words += ["held"] if entry.held and not entry.buffers else []
    words += [f"buffers {entry.buffers}"] if entry.buffers else []
    if entry.tied:
        words.append(f"{'is' if entry.is_alias else 'also'} {', '.join(spell(name.split('.')) for name in entry.tied)}")
    return ", ".join(words)


def _hanging(branch: _Branch, entries: Sequence[ReportRow]) -> list[_Branch]:
    above = entries[branch.at]
    children = [at for at in children_of(branch.at, entries) if entries[at].state]
    groups = grouped(children, key=lambda at: entries[at].keys[-1], likeness=lambda at: entries[at].likeness)
    if _says_all(above, groups, entries):
        return []
    quiet = branch.quiet or above.held or above.pinned
    return [
        _Branch(
            at=group[0],
            count=len(group),
            times=branch.times * len(group),
            label=label(entries[group[0]].keys[-1 if len(group) == 1 else -2 :], len(group)),
            guide=branch.below + ("└─ " if last else "├─ "),
            below=branch.below + ("   " if last else "│  "),
            quiet=quiet,
        )
        for group, last in zip(groups, [False] * (len(groups) - 1) + [True], strict=True)
    ]


def children_of(at: int, entries: Sequence[ReportRow]) -> Iterator[int]:
    """The numbers of the entries right below one."""
    child, stop = at + 1, at + entries[at].span
    while child < stop:
        yield child
        child += entries[child].span


def _says_all(above: ReportRow, groups: list[list[int]], entries: Sequence[ReportRow]) -> bool:
    """Whether the line of a module already shows everything that the lines of its parameters would show."""
    below = [entries[at] for group in groups for at in group]
    plain = all(entry.is_param and not entry.tied and entry.pinned == above.pinned for entry in below)
    return not below or (plain and above.state != "partly")
