"""The lines that a report shows: short enough for one screen, and saying all that differs."""

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
        label: what it is called below the line that it hangs on.
        kind: the class of a module; dtype and shape of a parameter.
        amounts: of all that the line stands for.
        state: "frozen", "trainable", "partly" or "".
        note: what else there is to say.
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
    at: int  # number of the first entry that it stands for
    count: int  # how many siblings it stands for
    times: int  # the same, counting what encloses it
    label: str
    guide: str
    below: str  # the guide of what hangs on it
    quiet: bool  # whether a note above says already that it is held or in use


def outline(entries: Sequence[ReportRow]) -> Iterator[OutlineLine]:
    """The lines of the tree; equal neighbours in a list are one line with the sums of all of them."""
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
        words += ["held"] if entry.held else []
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
    """Whether the line of a module says what those of its parameters would say."""
    below = [entries[at] for group in groups for at in group]
    plain = all(entry.is_param and not entry.tied and entry.pinned == above.pinned for entry in below)
    return not below or (plain and above.state != "partly")
