"""The benchmark of runtimes on one batch: the error and the time of each."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, final

import torch
from torch import Tensor, fx

from frostline._core.errors.base import first_line
from frostline.features.boundary import Boundary
from frostline.torch._runtime.candidates import Memo, Run, made, unfit
from frostline.torch._runtime.record import PLAIN, Trial

ROUNDS = 5

_EAGER = ("channels_last", "bfloat16", "channels_last+bfloat16", "int8")
# Among candidates that are equally fast within the noise the simplest one is chosen, so that the choice is stable.
_NOISE = 1.03


class PartBelow(Protocol):
    """The part of a model below a line."""

    @property
    def boundary(self) -> tuple[Boundary, ...]:
        """The values that cross the line, for one sample."""

    @property
    def tensors_below(self) -> Mapping[str, Tensor]:
        """The current tensors of the model below the line, by name."""

    def below(self, leaves: Sequence[Any]) -> list[Tensor]:
        """Computes the boundary of samples with PyTorch."""

    def module(self, leaves: Sequence[Any]) -> fx.GraphModule | None:
        """Returns a module that computes it for such leaves, with the current tensors of the model, or None."""


@dataclass(frozen=True)
class Candidate:
    """A runtime that was tried.

    Attributes:
        trial: the outcome.
        run: leaves -> values; None if it was left out.
        memo: the tensors and modules made from the weights.
        errors: the error of each value at the boundary.
        cause: the exception that stopped it, or None.
    """

    trial: Trial
    run: Run | None = None
    memo: Memo = field(default_factory=dict)
    errors: tuple[float, ...] = ()
    cause: Exception | None = None


@final
class Benchmark:
    """The candidates on one batch.

    Args:
        source: the part below.
        leaves: the batch.
        bound: the largest allowed error.

    Attributes:
        want: the boundary of the batch, computed by PyTorch.
        module: a module that computes it; None if the parts are unknown.
    """

    def __init__(self, source: PartBelow, leaves: Sequence[Any], bound: float) -> None:
        self._source, self._leaves, self._bound = source, leaves, bound
        self.want, self.module = source.below(leaves), source.module(leaves)

    def all(self) -> list[Candidate]:
        """Tries every candidate, the simplest first; only the best of those that need no compiler is compiled too."""
        eager = [Candidate(Trial(PLAIN, 1.0, 0.0), self._plain), *self._timed(_EAGER)]
        fastest = best(eager).trial.name
        return [*eager, *self._timed(["compiled"] if fastest == PLAIN else ["compiled", f"{fastest}+compiled"])]

    def candidate(self, name: str) -> Candidate:
        """Runs a candidate once: words, joined by ``+``."""
        memo: Memo = {}
        words = name.split("+")
        if self.module is None:
            return Candidate(Trial(name, reason="the line was cut by hand, so its parts are not known"))
        if reason := unfit(words, self.module):
            return Candidate(Trial(name, reason=reason))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run = made(words, self.module, memo)
                errors = tuple(map(off, run(*self._leaves), self.want))
        except Exception as cause:  # noqa: BLE001 - any error is the reason why the candidate is left out
            return Candidate(Trial(name, reason=f"it fails: {first_line(cause)}"), cause=cause)
        error = max(errors, default=0.0)
        if error > self._bound:
            return Candidate(Trial(name, error=error, reason="beyond the bound"), errors=errors)
        return Candidate(Trial(name, error=error), run, memo, errors)

    def _plain(self, *leaves: Any) -> Any:
        return self._source.below(leaves)

    def _timed(self, names: Sequence[str]) -> list[Candidate]:
        """Runs candidates, and times those that run in turns with PyTorch as it is."""
        from statistics import median

        found = [self.candidate(name) for name in names]
        running = [(place, each.run) for place, each in enumerate(found) if each.run is not None]
        runs = [self._plain, *(run for _, run in running)]
        rounds = []
        for first in range(ROUNDS):  # another one begins each time
            seconds = [0.0] * len(runs)
            for turn in range(len(runs)):
                place = (first + turn) % len(runs)
                begin = _now(self._leaves)
                runs[place](*self._leaves)
                seconds[place] = _now(self._leaves) - begin
            rounds.append(seconds)
        for column, (place, _) in enumerate(running, start=1):
            ratio = median(seconds[column] / seconds[0] for seconds in rounds)
            found[place] = replace(found[place], trial=replace(found[place].trial, ratio=ratio))
        return found


def best(candidates: Sequence[Candidate]) -> Candidate:
    """Returns the first that is as fast as the fastest; a single one is not timed."""
    running = [each for each in candidates if each.run is not None]
    if len(running) == 1:
        return running[0]
    fastest = min(each.trial.ratio or 1.0 for each in running)
    return next(each for each in running if (each.trial.ratio or 1.0) <= _NOISE * fastest)


def off(value: Tensor, want: Tensor) -> float:
    """Returns the largest difference over the largest value, or infinity if NaNs or integers differ."""
    if value.shape != want.shape:
        return float("inf")
    if not want.is_floating_point():
        return 0.0 if torch.equal(value, want) else float("inf")
    value, finite = value.to(want.dtype), want.isfinite()
    # An infinity or NaN, as in a mask, must be in both.
    masked, wanted = (each.masked_fill(finite, 0).nan_to_num(nan=1.0) for each in (value, want))
    if not torch.equal(masked, wanted):
        return float("inf")
    if not want.numel():
        return 0.0
    difference = (value - want).masked_fill(~finite, 0).nan_to_num(nan=float("inf")).abs().amax().item()
    largest = want.masked_fill(~finite, 0).abs().amax().item()
    return difference / largest if largest else difference and float("inf")


def _now(leaves: Sequence[Any]) -> float:
    if any(isinstance(leaf, Tensor) and leaf.device.type == "cuda" for leaf in leaves):
        torch.cuda.synchronize()
    return time.perf_counter()
