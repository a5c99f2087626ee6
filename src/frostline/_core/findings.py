"""The findings of a check, and the error that they make."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from frostline._core.errors.base import FrostlineError, counted


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or will be.

    Attributes:
        kind: a short name that stays the same, to filter by.
        paths: what it is about; empty when it is about the model as a whole.
        what: what was found.
        why: why it matters.
        fix: what to write instead, as code.

    Example:
        >>> print(Finding("stale-gradient", ("a.weight",), "It has one.", "It moves.", "p.grad = None"))
        stale-gradient: a.weight
          It has one.
          It moves.
          Fix: p.grad = None
    """

    kind: str
    paths: tuple[str, ...]
    what: str
    why: str
    fix: str

    def __str__(self) -> str:
        where = _shortened(self.paths)
        head = f"{self.kind}: {where}" if where else self.kind
        return "\n".join((head, f"  {self.what}", f"  {self.why}", f"  Fix: {self.fix}"))


class CheckError(FrostlineError, RuntimeError):
    """Findings that should stop the program.

    Attributes:
        findings: all of them.
    """

    findings: tuple[Finding, ...]

    def _lines(self) -> Iterable[str]:
        return [f"{counted(len(self.findings), 'finding')}.", *map(str, self.findings)]


class Findings(list[Finding]):
    """All findings of one check; empty when all is well.

    Example:
        >>> findings = Findings()
        >>> findings.raise_if_any()
        >>> print(findings)
        no findings
    """

    def raise_if_any(self) -> None:
        """Stops the program where there is something to say.

        Raises:
            CheckError: there is at least one finding; it carries them all.
        """
        if self:
            raise CheckError(tuple(self))

    def __str__(self) -> str:
        return "\n".join(map(str, self)) if self else "no findings"


def _shortened(paths: tuple[str, ...], limit: int = 4) -> str:
    rest = len(paths) - limit
    return ", ".join(paths[:limit]) + (f" and {rest} more" if rest > 0 else "")
