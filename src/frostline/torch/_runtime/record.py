"""The runtimes that were tried for the part below the line, and the results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

PLAIN = "plain"


@final
@dataclass(frozen=True, slots=True)
class Trial:
    """One runtime that was tried.

    Attributes:
        name: such as ``"bfloat16"``; ``"plain"`` is PyTorch as it is.
        ratio: its time over that of plain, the median over alternating rounds; None if it was not timed.
        error: the largest error, as a share of the largest value at the boundary; None if it did not run.
        reason: the reason why it was left out, or ``""``.
    """

    name: str
    ratio: float | None = None
    error: float | None = None
    reason: str = ""


@final
@dataclass(frozen=True, slots=True)
class RuntimeRecord:
    """The runtime that was asked for, the trials, and the one that was picked.

    Attributes:
        asked: the argument ``runtime=``.
        picked: the name of the runtime in use.
        bound: the largest allowed error, as a share of the largest value at the boundary.
        trials: the trials, the simplest first.

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
        lines = [
            f"runtime={self.asked!r} runs below the line as {self.picked}; errors up to {self.bound:g} are allowed."
        ]
        width = max(len(trial.name) for trial in self.trials)
        rows = [("name", "time", "error", "")]
        for trial in self.trials:
            time = "-" if trial.ratio is None else f"{trial.ratio:.2f}"
            error = "-" if trial.error is None else f"{trial.error:.1e}"
            picked = "picked" if trial.name == self.picked else ""
            rows.append((trial.name, time, error, f"left out: {trial.reason}" if trial.reason else picked))
        lines += [f"  {name:<{width}}  {time:<4}  {error:<7}  {note}".rstrip() for name, time, error, note in rows]
        return "\n".join(lines)
