"""Runtimes that are refused, and what to do instead."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from frostline._core.errors import RuntimeChoiceError
from frostline.features.boundary import Boundary
from frostline.torch._runtime.candidates import WORDS, unfit
from frostline.torch._runtime.contest import Entry


def refuse_bound(bound: object, default: float) -> None:
    """Refuses what is no part of a value."""
    if not isinstance(bound, int | float) or isinstance(bound, bool) or not 0 < bound < math.inf:
        problem = "is no error that can be allowed: it is a part of the largest value, above 0."
        raise RuntimeChoiceError(f"bound={bound!r}", problem, (), f"Pass bound={default}, or leave it out.")


def ordered(runtime: object) -> str:
    """The words of a runtime in the order in which they are made.

    Raises:
        RuntimeChoiceError: there is no such runtime.
    """
    words = runtime.split("+") if isinstance(runtime, str) else []
    if not words or not set(words) <= set(WORDS):
        names = ("auto", *WORDS)
        raise RuntimeChoiceError(
            f"runtime={runtime!r}",
            f"is none of the {len(names)} runtimes.",
            tuple(f'runtime="{name}"' for name in names),
            'Pass runtime="auto", or leave it out; all but "auto" can be joined: runtime="channels_last+bfloat16".',
        )
    return "+".join(word for word in WORDS if word in words)


def refusal(entry: Entry, module: nn.Module | None, boundary: Sequence[Boundary], bound: float) -> RuntimeChoiceError:
    """Of a candidate that somebody asked for and that was left out."""
    asked = f'runtime="{entry.trial.name}"'
    if entry.trial.error is None:
        fitting = [word for word in WORDS if module is not None and not unfit([word], module)]
        return RuntimeChoiceError(
            asked,
            f"cannot run what is below the line: {entry.trial.reason}.",
            (f"{len(fitting)} of {len(WORDS)} can: {', '.join(fitting) or 'none'}",),
            'Pass runtime="auto", which takes the fastest of what runs here, or leave it out.',
        )
    return RuntimeChoiceError(
        asked,
        f"is off by {entry.trial.error:.1e} of the largest value at the boundary; bound={bound:g} allows less.",
        tuple(f"{each.name}: {error:.1e}" for each, error in zip(boundary, entry.errors, strict=False)),
        f'Pass bound={_above(entry.trial.error):g} if that is near enough, or runtime="auto".',
    )


def _above(error: float) -> float:
    """The next number with one digit."""
    if not math.isfinite(error):
        return error
    digit = 10.0 ** math.floor(math.log10(error))
    return math.ceil(error / digit) * digit
