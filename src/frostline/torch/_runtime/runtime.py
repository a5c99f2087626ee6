"""Running the part below the line: with PyTorch unchanged, or faster within a bound on the error."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from frostline._core.errors import RuntimeChoiceError
from frostline.torch._runtime.benchmark import Benchmark, Candidate, PartBelow, best
from frostline.torch._runtime.candidates import WORDS, Memo, Run, made, unfit
from frostline.torch._runtime.record import PLAIN, RuntimeRecord, Trial
from frostline.torch._tensors import addresses, versions

BOUND = 0.03
"""The default bound on the error of a runtime: the largest difference over the largest value. After
a dozen blocks the error of bfloat16 is 0.002 to 0.01, and that of int8 0.006 to 0.02."""

_LOG = logging.getLogger("frostline")


@final
class BelowRunner:
    """Runs the part below a line in a runtime.

    Weights are cast once. If a call finds that one of them was written to or replaced, it casts them and chooses the
    runtime again; it does not notice a write through ``.data``, and neither does autograd.

    Args:
        source: the part below.
        example: the leaves of a call.
        runtime: None, ``"auto"``, or some words joined by ``+``: ``"compiled"`` (inductor, weights inlined),
            ``"bfloat16"`` (autocast, weights cast once), ``"channels_last"`` (weights of convolutions), ``"int8"``
            (linear maps in eight bits).
        bound: the largest allowed error: the largest difference over the largest value, for each value at the boundary.

    Raises:
        RuntimeChoiceError: the runtime does not exist, cannot run here, or exceeds the bound.
    """

    def __init__(self, source: PartBelow, example: Sequence[Any], runtime: str | None, bound: float = BOUND) -> None:
        if not isinstance(bound, int | float) or isinstance(bound, bool) or not 0 < bound < math.inf:
            problem = "must be a positive number: the largest error, as a part of the largest value."
            raise RuntimeChoiceError(f"bound={bound!r}", problem, (), f"Pass bound={BOUND}, or leave it out.")
        self._source, self._example, self._bound, self._asked = source, list(example), bound, runtime
        self._record: RuntimeRecord | None = None
        self._tensors: list[Tensor] = []
        self._versions: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []
        self._memo: Memo = {}
        self._forms: list[tuple[torch.dtype, torch.memory_format]] = []
        self._runs: dict[Any, Run | None] = {}
        if runtime is None or runtime == "auto":
            return
        words = runtime.split("+") if isinstance(runtime, str) else []
        if not words or not set(words) <= set(WORDS):
            names = ("auto", *WORDS)
            problem = f"is not one of the {len(names)} runtimes."
            fix = 'Pass runtime="auto", or leave it out; join all but "auto": runtime="channels_last+bfloat16".'
            found = tuple(f'runtime="{name}"' for name in names)
            raise RuntimeChoiceError(f"runtime={runtime!r}", problem, found, fix)
        self._asked = "+".join(word for word in WORDS if word in words)
        self._decide(self._example)

    def __call__(self, leaves: Sequence[Any]) -> list[Tensor]:
        """Computes the boundary of samples, without a gradient, in the dtypes and layouts of unchanged PyTorch."""
        if self._asked is None:
            return self._source.below(leaves)
        with torch.no_grad():
            record = self._decide(leaves)
            if record.picked == PLAIN:
                return self._source.below(leaves)
            shapes = _shapes(leaves)
            run = self._runs.get(shapes)
            if run is None:
                # Each number of samples has its own graph, over the same weights.
                module = self._source.module(leaves)
                assert module is not None
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    run = self._runs[shapes] = made(record.picked.split("+"), module, self._memo)
                    run(*leaves)  # a compiled program is compiled at its first call
            pairs = zip(run(*leaves), self._forms, strict=True)
            return [value.to(dtype, memory_format=layout) for value, (dtype, layout) in pairs]

    @property
    def record(self) -> RuntimeRecord:
        """The runtimes that were tried and the chosen one; before the first batch, those of the example."""
        if self._asked is None:
            return RuntimeRecord(None, PLAIN, self._bound, (Trial(PLAIN, 1.0, 0.0),))
        return self._decide(self._example)

    @property
    def word(self) -> str:
        """The name of the chosen runtime, because the features of another runtime differ."""
        return self.record.picked if self._asked == "auto" else self._asked or PLAIN

    def _decide(self, leaves: Sequence[Any]) -> RuntimeRecord:
        """Returns the earlier decision, or decides again if a tensor was replaced or written to since."""
        tensors = list(self._source.tensors_below.values())
        places = [(id(t), addresses(t), versions(t)) for t in tensors]
        if self._record is not None and self._versions == places:
            return self._record
        with torch.no_grad():
            benchmark = Benchmark(self._source, leaves, self._bound)
            candidates = benchmark.all() if self._asked == "auto" else [benchmark.candidate(str(self._asked))]
        if candidates[0].run is None:  # this never happens with "auto", whose first candidate is unchanged PyTorch
            raise self._refusal(candidates[0], benchmark) from candidates[0].cause
        picked = best(candidates)
        trials = tuple(each.trial for each in candidates)
        self._record = RuntimeRecord(self._asked, picked.trial.name, self._bound, trials)
        # The tensors are kept alive, so that no other tensor can get their identity.
        self._tensors, self._versions = tensors, places
        self._memo, self._runs = picked.memo, {_shapes(leaves): picked.run}
        self._forms = [(value.dtype, _layout(value)) for value in benchmark.want]
        if self._asked == "auto":
            _LOG.info("%s", self._record)
        return self._record

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


def _shapes(leaves: Sequence[Any]) -> tuple[Any, ...]:
    return tuple((leaf.shape, leaf.device) if isinstance(leaf, Tensor) else leaf for leaf in leaves)


def _layout(value: Tensor) -> torch.memory_format:
    last = torch.channels_last
    if value.dim() == 4 and not value.is_contiguous() and value.is_contiguous(memory_format=last):
        return last
    return torch.contiguous_format
