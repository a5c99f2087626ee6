"""The errors of frostline; each is also the builtin that a caller would expect.

    FrostlineError
    ├── SelectorError (ValueError)              a selector that cannot be read
    ├── NoMatchError (LookupError)              a selector that matches nothing
    ├── CountError (ValueError)                 another number of parameters than expect= says
    ├── TiedError (ValueError)                  two verdicts on one tensor
    ├── UnsupportedError (NotImplementedError)  what frostline cannot do, and does not pretend to
    ├── PlanError (ValueError)                  a text or a value that is no plan
    │   └── PlanMismatchError                   plans, or a plan and a model, that speak of different paths
    ├── ModeError (ValueError)                  a mode that is neither "eval" nor "follow"
    ├── BindError (ValueError)                  an optimizer and a model that do not go together
    ├── CostError (ValueError)                  a model whose cost cannot be told with this example
    ├── DeltaError (ValueError)                 a delta checkpoint that does not go with a model
    ├── CacheError (ValueError)                 a feature cache that does not go with a model, a dataset or a folder
    │   ├── StaleCacheError (RuntimeError)      what is below the line changed after the cache was opened
    │   └── DamagedCacheError (RuntimeError)    features that are not what was stored
    ├── CacheBudgetError (ValueError)           a feature cache larger than its budget
    ├── CacheSpaceError (OSError)               a disk without room for a feature cache
    ├── ScheduleError (ValueError)              a schedule or policy that cannot be made, read or walked
    ├── LineError (ValueError)                  a model without a frost line, or what does not go with its line
    │   └── UntraceableError                    a model that a trace cannot follow
    ├── RuntimeChoiceError (ValueError)         a runtime that is not there, does not run, or is too far off
    ├── NothingFrozenError (ValueError)         making frozen parts cheap where nothing is frozen
    ├── BudgetError (ValueError)                a memory budget that cannot be kept
    ├── BudgetValueError (ValueError)           a memory budget that is neither bytes nor a fraction
    ├── LayerError (TypeError)                  what is no layer, held or called as one
    ├── NothingTrainableError (ValueError)      training with nothing left to train
    ├── SamePathError (ValueError)              two leaves of a tree with one name
    ├── StructureError (ValueError)             a tree of another structure than the one it goes with
    ├── UnprovenError (RuntimeError)            a guard that was never shown the tree after the steps
    ├── PinnedError (ValueError)                thawing what a frozen use holds
    ├── WrappedError (RuntimeError)             a change that the wrapper around the model would ignore
    ├── MovedError (RuntimeError)               something frozen moved
    ├── CheckError (RuntimeError)               findings that are meant to stop the program
    └── FileFormatError (ValueError)            a file that is not what it should be

A message has four parts: the user's own expression, what is wrong with numbers, what was there instead, and the fix
as code. The arguments of an error are its data, so that it survives pickling; its text is built when it is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from frostline._core.errors.base import FrostlineError, counted, listed
from frostline._core.errors.budgets import BudgetValueError
from frostline._core.errors.cache import (
    CacheBudgetError,
    CacheError,
    CacheSpaceError,
    DamagedCacheError,
    StaleCacheError,
)
from frostline._core.errors.cost import BudgetError, NothingFrozenError
from frostline._core.errors.costs import CostError
from frostline._core.errors.line import LineError, UntraceableError
from frostline._core.errors.runtime import RuntimeChoiceError
from frostline._core.errors.schedules import ScheduleError
from frostline._core.errors.selectors import CountError, NoMatchError, SelectorError, TiedError, UnsupportedError
from frostline._core.errors.training import BindError, DeltaError
from frostline._core.errors.trees import (
    LayerError,
    NothingTrainableError,
    SamePathError,
    StructureError,
    UnprovenError,
)

if TYPE_CHECKING:
    from frostline._core.findings import Finding
    from frostline._core.movement import Movement

__all__ = [
    "BindError",
    "BudgetError",
    "BudgetValueError",
    "CacheBudgetError",
    "CacheError",
    "CacheSpaceError",
    "CheckError",
    "CostError",
    "CountError",
    "DamagedCacheError",
    "DeltaError",
    "FileFormatError",
    "FrostlineError",
    "LayerError",
    "LineError",
    "ModeError",
    "MovedError",
    "NoMatchError",
    "NothingFrozenError",
    "NothingTrainableError",
    "PinnedError",
    "PlanError",
    "PlanMismatchError",
    "RuntimeChoiceError",
    "SamePathError",
    "ScheduleError",
    "SelectorError",
    "StaleCacheError",
    "StructureError",
    "TiedError",
    "UnprovenError",
    "UnsupportedError",
    "UntraceableError",
    "WrappedError",
]


class PlanError(FrostlineError, ValueError):
    """A text or a value that is no plan.

    Attributes:
        problem: what is wrong, as a sentence.
        fix: what to do about it.
    """

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem, fix)
        self.problem, self.fix = problem, fix


class PlanMismatchError(PlanError):
    """Two plans, or a plan and a model, that speak of different paths.

    Attributes:
        missing: paths that only the plan speaks of.
        unknown: paths that only the other side speaks of.
    """

    def __init__(self, missing: Iterable[str], unknown: Iterable[str]) -> None:
        self.missing, self.unknown = tuple(sorted(missing)), tuple(sorted(unknown))
        numbers = f"{len(self.missing)} missing, {len(self.unknown)} unknown"
        super().__init__(
            f"The plan and what it is compared with do not speak of the same paths: {numbers}.",
            "Make both from the same model, for example with plan(model).",
        )
        self.args = (self.missing, self.unknown)

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        yield self.problem
        if self.missing:
            yield "Missing (only in the plan):"
            yield from listed(self.missing, 5)
        if self.unknown:
            yield "Unknown (not in the plan):"
            yield from listed(self.unknown, 5)
        yield self.fix


class ModeError(FrostlineError, ValueError):
    """A mode that is neither "eval" nor "follow".

    Attributes:
        mode: what was given.
    """

    def __init__(self, mode: object) -> None:
        super().__init__(mode)
        self.mode = mode

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        return [
            f"mode={self.mode!r} is none of the 2 modes.",
            "There are:",
            '  mode="eval"    what is frozen computes as in evaluation',
            '  mode="follow"  what is frozen follows train() and eval(), but still moves nothing',
            'Pass mode="eval", or leave it out.',
        ]


class PinnedError(FrostlineError, ValueError):
    """Thawing what a frozen use holds.

    Attributes:
        selectors: what was asked for, as its author wrote it.
        paths: the parameters inside frozen uses that it names.
    """

    def __init__(self, selectors: str, paths: tuple[str, ...]) -> None:
        super().__init__(selectors, paths)
        self.selectors, self.paths = selectors, paths

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        yield f"{self.selectors} names {counted(len(self.paths), 'parameter')}, all inside a frozen use, Frozen(layer)."
        yield "They are:"
        yield from listed(self.paths, 5)
        yield "Build the model with layer in place of Frozen(layer), or train the layer where it is used as it is."


class WrappedError(FrostlineError, RuntimeError):
    """A change that the wrapper around the model would ignore.

    Attributes:
        wrapper: the class of the wrapper.
        path: where it is in the model; "" is the model itself.
    """

    def __init__(self, wrapper: str, path: str) -> None:
        super().__init__(wrapper, path)
        self.wrapper, self.path = wrapper, path

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        where = f"{self.path!r}" if self.path else "the model"
        return [
            f"{where} is wrapped in {self.wrapper}, which noted what is trainable when it was made.",
            "It would wait for the gradients of what is frozen now, and not average those of what is thawed now.",
            f"Freeze first, then wrap: freeze(model, ...); model = {self.wrapper}(model).",
        ]


class MovedError(FrostlineError, RuntimeError):
    """Something frozen moved.

    Attributes:
        moved: a `Movement` for each parameter and buffer that moved.
        watched: how many were watched.
    """

    def __init__(self, moved: tuple[Movement, ...], watched: int) -> None:
        super().__init__(moved, watched)
        self.moved, self.watched = moved, watched

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        yield f"{len(self.moved)} of {self.watched} frozen tensors moved."
        for movement in self.moved[:5]:
            yield f"{movement.path!r} ({movement.kind}) moved. {movement.difference}"
            yield f"  Likely cause: {movement.cause}."
            yield f"  {movement.fix}"
        if len(self.moved) > 5:
            yield f"... and {len(self.moved) - 5} more"


class CheckError(FrostlineError, RuntimeError):
    """Findings that are meant to stop the program.

    Attributes:
        findings: all of them.
    """

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        super().__init__(findings)
        self.findings = findings

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        yield f"{counted(len(self.findings), 'finding')}."
        yield from map(str, self.findings)


class FileFormatError(FrostlineError, ValueError):
    """A file, or a text from one, that is not what it should be.

    Attributes:
        file: its name.
        problem: what is wrong with it.
        fix: what to do about it.
    """

    def __init__(self, file: str, problem: str, fix: str) -> None:
        super().__init__(file, problem, fix)
        self.file, self.problem, self.fix = file, problem, fix

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        return [f"{self.file!r} cannot be read: {self.problem}.", self.fix]
