"""What was tried to run the frozen part faster, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

PLAIN = "plain"


@final
@dataclass(frozen=True, slots=True)
class Trial:
    """One way to run what is below the line.

    Attributes:
        name: such as ``"bfloat16"``; ``"plain"`` is PyTorch as it is.
        ratio: its time over that of plain, the median over rounds in which both took turns; None if it was not timed.
        error: how far it is off, as a part of the largest value at the boundary; None if it did not run.
        reason: why it was left out, or ``""``.
    """

    name: str
    ratio: float | None = None
    error: float | None = None
    reason: str = ""

    @property
    def cells(self) -> tuple[str, str, str]:
        """What a table shows of it."""
        return self.name, _shown(self.ratio, ".2f"), _shown(self.error, ".1e")


def _shown(number: float | None, form: str) -> str:
    return "-" if number is None else format(number, form)


@final
@dataclass(frozen=True, slots=True)
class RuntimeRecord:
    """What was asked for, what was tried, and what was picked.

    Attributes:
        asked: the argument ``runtime=``.
        picked: the name of what runs now.
        bound: the largest error that is allowed, as a part of the largest value at the boundary.
        trials: what was tried, the simplest first.

    Example:
        >>> trials = (Trial("plain", 1.0, 0.0), Trial("int8", 0.4, 0.05, "beyond the bound"))
        >>> print(RuntimeRecord("auto", "plain", 0.03, trials))
        runtime='auto' runs below the line as plain; errors up to 0.03 are allowed.
          name   time  error
          plain  1.00  0.0e+00  picked
          int8   0.40  5.0e-02  left out: beyond the bound
    """

    asked: str | None
    picked: str
    bound: float
    trials: tuple[Trial, ...]

    def __str__(self) -> str:
        rows = [("name", "time", "error"), *(trial.cells for trial in self.trials)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        notes = ["", *map(self._note, self.trials)]
        lines = [
            "  " + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=True)), note]).rstrip()
            for row, note in zip(rows, notes, strict=True)
        ]
        first = f"runtime={self.asked!r} runs below the line as {self.picked}; errors up to {self.bound:g} are allowed."
        return "\n".join([first, *lines])

    def _note(self, trial: Trial) -> str:
        if trial.reason:
            return f"left out: {trial.reason}"
        return "picked" if trial.name == self.picked else ""
