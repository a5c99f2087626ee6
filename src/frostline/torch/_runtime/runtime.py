"""How what is below the line runs: as it is, or faster within a bound on the error."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from frostline.torch._runtime import refusals
from frostline.torch._runtime.contest import Entry, entered, timed
from frostline.torch._runtime.record import PLAIN, RuntimeRecord, Trial
from frostline.torch._runtime.settled import Settled, Source, Stamp

BOUND = 0.03
"""How far off a runtime may be unless somebody says otherwise: the largest difference over the largest value. After
a dozen blocks bfloat16 is off by 0.002 to 0.01 and int8 by 0.006 to 0.02."""

_EAGER = ("channels_last", "bfloat16", "channels_last+bfloat16", "int8")
# Of what is as fast within the noise the simplest is picked, so that it is the same one on another day.
_NOISE = 1.03

_LOG = logging.getLogger("frostline")


@final
class Below:
    """What is below a line, in a runtime.

    Weights are cast once. Each call looks whether one of them was written to or replaced since, and then casts, tries
    and picks again; a write through ``.data`` goes unnoticed, as it does in autograd.

    Args:
        source: what is below.
        example: the leaves of a call.
        runtime: None, ``"auto"``, or some words joined by ``+``: ``"compiled"`` (inductor, weights inlined),
            ``"bfloat16"`` (autocast, weights cast once), ``"channels_last"`` (weights of convolutions), ``"int8"``
            (linear maps in eight bits).
        bound: how far off it may be: the largest difference over the largest value, for each value at the boundary.

    Raises:
        RuntimeChoiceError: there is no such runtime, it cannot run here, or it is further off than the bound.
    """

    def __init__(self, source: Source, example: Sequence[Any], runtime: str | None, bound: float = BOUND) -> None:
        refusals.refuse_bound(bound, BOUND)
        self._source, self._example, self._bound = source, list(example), bound
        self._asked = runtime if runtime in (None, "auto") else refusals.ordered(runtime)
        self._settled: Settled | None = None
        if self._asked not in (None, "auto"):
            self._settle(self._example)

    def __call__(self, leaves: Sequence[Any]) -> list[Tensor]:
        """The boundary of samples, without a gradient."""
        if self._asked is None:
            return self._source.below(leaves)
        with torch.no_grad():
            return self._settle(leaves).run(leaves)

    @property
    def record(self) -> RuntimeRecord:
        """What was tried and what was picked; before the first batch, ``"auto"`` tries the example."""
        return self._settle(self._example).record

    @property
    def word(self) -> str:
        """What was picked: what it computes are other features than those of another runtime."""
        return self.record.picked if self._asked == "auto" else self._asked or PLAIN

    def _settle(self, leaves: Sequence[Any]) -> Settled:
        """What runs now: what was settled before, as long as no tensor changed."""
        stamp = Stamp(self._source.tensors(0).values() if self._asked else ())
        if self._settled is None or not self._settled.stamp.same(stamp):
            with torch.no_grad():
                self._settled = self._picked(leaves, stamp)
            if self._asked == "auto":
                _LOG.info("%s", self._settled.record)
        return self._settled

    def _picked(self, leaves: Sequence[Any], stamp: Stamp) -> Settled:
        if self._asked is None:
            plain = Entry(Trial(PLAIN, 1.0, 0.0), None, {})
            return Settled(self._source, stamp, RuntimeRecord(None, PLAIN, self._bound, (plain.trial,)), plain)
        contest = Contest(self._source, leaves, self._bound)
        entries = contest.all() if self._asked == "auto" else [contest.entry(self._asked)]
        if self._asked != "auto":
            self._refuse(contest, entries[0])
        best = _best(entries)
        trials = tuple(entry.trial for entry in entries)
        record = RuntimeRecord(self._asked, best.trial.name, self._bound, trials)
        return Settled(self._source, stamp, record, best, leaves, contest.want)

    def _refuse(self, contest: Contest, entry: Entry) -> None:
        if entry.run is None:
            raise refusals.refusal(entry, contest.module, self._source.boundary, self._bound) from entry.cause


@final
class Contest:
    """The candidates on one batch.

    Args:
        source: what is below.
        leaves: the batch.
        bound: how far off they may be.
    """

    def __init__(self, source: Source, leaves: Sequence[Any], bound: float) -> None:
        self._source, self._leaves, self._bound = source, leaves, bound
        self.want, self.module = source.below(leaves), source.module(leaves)

    def entry(self, name: str) -> Entry:
        """A candidate that ran once."""
        return entered(name, self.module, self._leaves, self.want, self._bound)

    def all(self) -> list[Entry]:
        """Every candidate, the simplest first; only the best of those that need no compiler is compiled too."""
        plain = Entry(Trial(PLAIN, 1.0, 0.0), self._plain, {})
        eager = [plain, *self._timed(_EAGER)]
        best = _best(eager).trial.name
        return [*eager, *self._timed(["compiled"] if best == PLAIN else ["compiled", f"{best}+compiled"])]

    def _timed(self, names: Sequence[str]) -> list[Entry]:
        return timed([self.entry(name) for name in names], self._plain, self._leaves)

    def _plain(self, *leaves: Any) -> Any:
        return self._source.below(leaves)


def _best(entries: Sequence[Entry]) -> Entry:
    """The first that is as fast as the fastest; of a single one nothing is known but that it runs."""
    running = [entry for entry in entries if entry.run is not None]
    if len(running) == 1:
        return running[0]
    fastest = min(entry.trial.ratio or 1.0 for entry in running)
    return next(entry for entry in running if (entry.trial.ratio or 1.0) <= _NOISE * fastest)
