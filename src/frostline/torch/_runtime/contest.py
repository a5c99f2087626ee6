"""Candidates side by side, on one batch: how far off each is, and how long it takes."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from frostline.torch._runtime.candidates import Memo, Run, made, unfit
from frostline.torch._runtime.record import Trial

ROUNDS = 5


@dataclass(frozen=True)
class Entry:
    """A candidate, and what came of it.

    Attributes:
        trial: the outcome.
        run: leaves -> values; None if it was left out.
        memo: what was made of the weights.
        errors: how far off each value at the boundary is.
        cause: what stopped it, if something did.
    """

    trial: Trial
    run: Run | None
    memo: Memo
    errors: tuple[float, ...] = ()
    cause: Exception | None = None


def entered(name: str, module: nn.Module | None, leaves: Sequence[Any], want: Sequence[Tensor], bound: float) -> Entry:
    """Runs a candidate once.

    Args:
        name: words, joined by ``+``.
        module: what is below the line; None if nobody can see into it.
        leaves: what it is called with.
        want: what PyTorch as it is makes of them.
        bound: how far off it may be.
    """
    memo: Memo = {}
    words = name.split("+")
    reason = unfit(words, module) if module is not None else "the line was cut by hand, so its parts are not known"
    if reason or module is None:
        return Entry(Trial(name, reason=reason), None, memo)
    try:
        with quiet():
            run = made(words, module, memo)
            errors = tuple(map(off, run(*leaves), want))
    except Exception as cause:  # noqa: BLE001 - whatever stops a candidate is the reason why it is left out
        return Entry(Trial(name, reason=f"it fails: {_first_line(cause)}"), None, memo, cause=cause)
    error = max(errors, default=0.0)
    if error > bound:
        return Entry(Trial(name, error=error, reason="beyond the bound"), None, memo, errors)
    return Entry(Trial(name, error=error), run, memo, errors)


def off(value: Tensor, want: Tensor) -> float:
    """The largest difference over the largest value; infinite where a number meets none, or whole numbers differ."""
    if value.shape != want.shape:
        return float("inf")
    if not want.is_floating_point():
        return 0.0 if torch.equal(value, want) else float("inf")
    # What is infinite or no number, such as a mask, must be that in both.
    finite = want.isfinite()
    if not torch.equal(_masked(value.to(want.dtype), finite), _masked(want, finite)):
        return float("inf")
    difference = _largest((value.to(want.dtype) - want).masked_fill(~finite, 0).nan_to_num(nan=float("inf")))
    return difference / largest if (largest := _largest(want.masked_fill(~finite, 0))) else difference and float("inf")


def _masked(value: Tensor, places: Tensor) -> Tensor:
    return value.masked_fill(places, 0).nan_to_num(nan=1.0)


def _largest(value: Tensor) -> float:
    return value.abs().amax().item() if value.numel() else 0.0


def timed(entries: Sequence[Entry], plain: Run, leaves: Sequence[Any]) -> list[Entry]:
    """The entries with their ratios; those that were left out have none."""
    running = [(place, entry.run) for place, entry in enumerate(entries) if entry.run is not None]
    rounds = [_round([plain, *(run for _, run in running)], leaves, first) for first in range(ROUNDS)]
    timed = list(entries)
    for column, (place, _) in enumerate(running, start=1):
        ratio = median(seconds[column] / seconds[0] for seconds in rounds)
        timed[place] = replace(timed[place], trial=replace(timed[place].trial, ratio=ratio))
    return timed


def _round(runs: Sequence[Run], leaves: Sequence[Any], first: int) -> list[float]:
    """Each once; another one begins each time."""
    seconds = [0.0] * len(runs)
    for turn in range(len(runs)):
        place = (first + turn) % len(runs)
        begin = _now(leaves)
        runs[place](*leaves)
        seconds[place] = _now(leaves) - begin
    return seconds


def _now(leaves: Sequence[Any]) -> float:
    if any(isinstance(leaf, Tensor) and leaf.device.type == "cuda" for leaf in leaves):
        torch.cuda.synchronize()
    return time.perf_counter()


def _first_line(error: Exception) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Compilers have much to say that is nobody's business here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
