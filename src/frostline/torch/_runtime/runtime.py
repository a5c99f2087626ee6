"""How the part below the line runs: as it is, or faster within a bound on the error."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, final

import torch
from torch import Tensor

from frostline._core.errors import RuntimeChoiceError
from frostline.torch._runtime.benchmark import Benchmark, Candidate, Source, best
from frostline.torch._runtime.candidates import WORDS, Run, made, unfit
from frostline.torch._runtime.record import PLAIN, RuntimeRecord, Trial

BOUND = 0.03
"""How far off a runtime may be unless somebody says otherwise: the largest difference over the largest value. After
a dozen blocks bfloat16 is off by 0.002 to 0.01 and int8 by 0.006 to 0.02."""

_LOG = logging.getLogger("frostline")


@final
class BelowRunner:
    """Runs the part below a line in a runtime.

    Weights are cast once. Each call checks whether one of them was written to or replaced since, and then casts, tries
    and picks again; a write through ``.data`` goes unnoticed, as it does in autograd.

    Args:
        source: the part below.
        example: the leaves of a call.
        runtime: None, ``"auto"``, or some words joined by ``+``: ``"compiled"`` (inductor, weights inlined),
            ``"bfloat16"`` (autocast, weights cast once), ``"channels_last"`` (weights of convolutions), ``"int8"``
            (linear maps in eight bits).
        bound: how far off it may be: the largest difference over the largest value, for each value at the boundary.

    Raises:
        RuntimeChoiceError: there is no such runtime, it cannot run here, or it is further off than the bound.
    """

    def __init__(self, source: Source, example: Sequence[Any], runtime: str | None, bound: float = BOUND) -> None:
        if not isinstance(bound, int | float) or isinstance(bound, bool) or not 0 < bound < math.inf:
            problem = "must be a positive number: the largest error, as a part of the largest value."
            raise RuntimeChoiceError(f"bound={bound!r}", problem, (), f"Pass bound={BOUND}, or leave it out.")
        self._source, self._example, self._bound, self._asked = source, list(example), bound, runtime
        self._decided: DecidedRuntime | None = None
        if runtime in (None, "auto"):
            return
        words = runtime.split("+") if isinstance(runtime, str) else []
        if not words or not set(words) <= set(WORDS):
            names = ("auto", *WORDS)
            problem = f"is none of the {len(names)} runtimes."
            fix = 'Pass runtime="auto", or leave it out; join all but "auto": runtime="channels_last+bfloat16".'
            found = tuple(f'runtime="{name}"' for name in names)
            raise RuntimeChoiceError(f"runtime={runtime!r}", problem, found, fix)
        self._asked = "+".join(word for word in WORDS if word in words)
        self._decide(self._example)

    def __call__(self, leaves: Sequence[Any]) -> list[Tensor]:
        """Computes the boundary of samples, without a gradient."""
        if self._asked is None:
            return self._source.below(leaves)
        with torch.no_grad():
            return self._decide(leaves).run(leaves)

    @property
    def record(self) -> RuntimeRecord:
        """The runtimes that were tried and the one that was picked; before the first batch, those of the example."""
        return self._decide(self._example).record

    @property
    def word(self) -> str:
        """The name of the runtime that was picked: its features differ from those of another one."""
        return self.record.picked if self._asked == "auto" else self._asked or PLAIN

    def _decide(self, leaves: Sequence[Any]) -> DecidedRuntime:
        """Returns the runtime that was picked earlier, or picks one if a tensor has changed since."""
        weights = WeightVersions(self._source.tensors_below.values() if self._asked else ())
        if self._decided is not None and self._decided.weights.same(weights):
            return self._decided
        if self._asked is None:
            plain = Candidate(Trial(PLAIN, 1.0, 0.0))
            record = RuntimeRecord(None, PLAIN, self._bound, (plain.trial,))
            self._decided = DecidedRuntime(self._source, weights, record, plain)
            return self._decided
        with torch.no_grad():
            benchmark = Benchmark(self._source, leaves, self._bound)
            candidates = benchmark.all() if self._asked == "auto" else [benchmark.candidate(self._asked)]
        if self._asked != "auto" and candidates[0].run is None:
            raise self._refusal(candidates[0], benchmark) from candidates[0].cause
        picked = best(candidates)
        trials = tuple(each.trial for each in candidates)
        record = RuntimeRecord(self._asked, picked.trial.name, self._bound, trials)
        self._decided = DecidedRuntime(self._source, weights, record, picked, leaves, benchmark.want)
        if self._asked == "auto":
            _LOG.info("%s", record)
        return self._decided

    def _refusal(self, candidate: Candidate, benchmark: Benchmark) -> RuntimeChoiceError:
        trial, module = candidate.trial, benchmark.module
        asked = f'runtime="{trial.name}"'
        if trial.error is None:
            fitting = [word for word in WORDS if module is not None and not unfit([word], module)]
            problem = f"cannot run the part below the line: {trial.reason}."
            found = f"{len(fitting)} of {len(WORDS)} can: {', '.join(fitting) or 'none'}"
            fix = 'Pass runtime="auto", which takes the fastest of those that run here, or leave it out.'
            return RuntimeChoiceError(asked, problem, (found,), fix)
        problem = (
            f"is off by {trial.error:.1e} of the largest value at the boundary; bound={self._bound:g} allows less."
        )
        pairs = zip(self._source.boundary, candidate.errors, strict=False)
        enough = trial.error
        if math.isfinite(enough):  # the next number with one digit
            digit = 10.0 ** math.floor(math.log10(enough))
            enough = math.ceil(enough / digit) * digit
        fix = f'Pass bound={enough:g} if that is near enough, or runtime="auto".'
        return RuntimeChoiceError(asked, problem, tuple(f"{each.name}: {error:.1e}" for each, error in pairs), fix)


@final
class WeightVersions:
    """Which tensors there are, and how often each has been written to.

    Args:
        tensors: they are kept alive, so that no other tensor can take their address.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._tensors = list(tensors)
        self._places = [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in self._tensors]

    def same(self, other: WeightVersions) -> bool:
        """Whether nothing was replaced and nothing written to in between."""
        mine, theirs = self._tensors, other._tensors
        return self._places == other._places and all(a is b for a, b in zip(mine, theirs, strict=True))


@final
class DecidedRuntime:
    """A runtime that was picked, for as long as the weights below the line are what they were.

    Args:
        source: the part below.
        weights: those that it was picked for.
        record: how it was picked.
        picked: the candidate, which ran already.
        leaves: the batch that it ran on.
        want: the boundary of it as PyTorch computes it, for types and layouts.
    """

    def __init__(
        self,
        source: Source,
        weights: WeightVersions,
        record: RuntimeRecord,
        picked: Candidate,
        leaves: Sequence[Any] = (),
        want: Sequence[Tensor] = (),
    ) -> None:
        self.weights, self.record = weights, record
        self._source, self._memo = source, picked.memo if picked.memo is not None else {}
        self._forms = [(value.dtype, _layout(value)) for value in want]
        self._runs: dict[Any, Run | None] = {_shapes(leaves): picked.run}

    def run(self, leaves: Sequence[Any]) -> list[Tensor]:
        """Computes the boundary of samples, in the types and layouts that it has in PyTorch as it is."""
        if self.record.picked == PLAIN:
            return self._source.below(leaves)
        shapes = _shapes(leaves)
        run = self._runs.get(shapes)
        if run is None:
            # A graph is for one number of samples; for another there is another one, over the same weights.
            module = self._source.module(leaves)
            assert module is not None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run = self._runs[shapes] = made(self.record.picked.split("+"), module, self._memo)
                run(*leaves)  # what compiles does so at its first call
        pairs = zip(run(*leaves), self._forms, strict=True)
        return [value.to(dtype, memory_format=layout) for value, (dtype, layout) in pairs]


def _shapes(leaves: Sequence[Any]) -> tuple[Any, ...]:
    return tuple((leaf.shape, leaf.device) if isinstance(leaf, Tensor) else leaf for leaf in leaves)


def _layout(value: Tensor) -> torch.memory_format:
    last = torch.channels_last
    if value.dim() == 4 and not value.is_contiguous() and value.is_contiguous(memory_format=last):
        return last
    return torch.contiguous_format
