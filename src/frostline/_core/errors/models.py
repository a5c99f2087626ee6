"""Errors about a model, its plan, or a file of either."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field

from frostline._core.errors.base import ExpressionError, FrostlineError, counted, listed


class PlanError(FrostlineError, ValueError):
    """A text or a value that is not a plan.

    Attributes:
        problem: what is wrong, as a sentence.
        fix: what to do about it.
    """

    problem: str
    fix: str


class PlanMismatchError(PlanError):
    """Two plans, or a plan and a model, with different paths.

    Attributes:
        missing: paths that only the plan has.
        unknown: paths that only the other side has.
    """

    problem: str = field(init=False)
    fix: str = field(init=False)
    missing: Iterable[str]
    unknown: Iterable[str]

    def __post_init__(self) -> None:
        self.missing, self.unknown = tuple(sorted(self.missing)), tuple(sorted(self.unknown))
        numbers = f"{len(self.missing)} missing, {len(self.unknown)} unknown"
        self.problem = f"The plan and what it is compared with have different paths: {numbers}."
        self.fix = "Make both from the same model, for example with plan(model)."
        super().__post_init__()

    def _lines(self) -> Iterable[str]:
        yield self.problem
        if missing := tuple(self.missing):
            yield "Missing (only in the plan):"
            yield from listed(missing, 5)
        if unknown := tuple(self.unknown):
            yield "Unknown (not in the plan):"
            yield from listed(unknown, 5)
        yield self.fix


class ModeError(FrostlineError, ValueError):
    """A mode that is neither "eval" nor "follow".

    Attributes:
        mode: what was given.
    """

    mode: object

    def _lines(self) -> Iterable[str]:
        return [
            f"mode={self.mode!r} is not one of the 2 modes.",
            "There are:",
            '  mode="eval"    frozen modules compute as in evaluation',
            '  mode="follow"  frozen modules follow train() and eval(), but still nothing in them moves',
            'Pass mode="eval", or leave it out.',
        ]


class PinnedError(FrostlineError, ValueError):
    """Thawing parameters that a frozen use holds.

    Attributes:
        selectors: what was asked for, as its author wrote it.
        paths: the parameters inside frozen uses that it names.
    """

    selectors: str
    paths: tuple[str, ...]

    def _lines(self) -> Iterable[str]:
        yield f"{self.selectors} names {counted(len(self.paths), 'parameter')}, all inside a frozen use, Frozen(layer)."
        yield "They are:"
        yield from listed(self.paths, 5)
        yield "Build the model with layer in place of Frozen(layer), or train the layer where it is used as it is."


class ConstantError(ExpressionError, ValueError):
    """Thawing nothing but parameters that were constant before frostline froze anything, or that can never train."""


class WrappedError(FrostlineError, RuntimeError):
    """A change that the wrapper around the model would ignore.

    Attributes:
        wrapper: the class of the wrapper.
        path: where it is in the model; "" is the model itself.
        frozen: the parameters in it that the change would freeze.
        thawed: those that it would thaw.
        fix: what to do about it, as code.
    """

    wrapper: str
    path: str
    frozen: tuple[str, ...]
    thawed: tuple[str, ...]
    fix: str

    def _lines(self) -> Iterable[str]:
        where = f"{self.path!r}" if self.path else "the model"
        yield f"{where} is wrapped in {self.wrapper}, which noted the trainable parameters when it was made."
        if self.frozen:
            yield f"It would wait for the gradients of {counted(len(self.frozen), 'parameter')} to be frozen now:"
            yield from listed(self.frozen, 5)
        if self.thawed:
            yield f"It would not average the gradients of {counted(len(self.thawed), 'parameter')} to be thawed now:"
            yield from listed(self.thawed, 5)
        if not self.frozen and not self.thawed:
            yield "It would wait for the gradients of what is frozen later, and not average those of what thaws later."
        yield self.fix


class RankError(ExpressionError, RuntimeError):
    """Ranks that would do different things where all must do the same."""


class FileFormatError(FrostlineError, ValueError):
    """A file, or a text from one, that is not what it should be.

    Attributes:
        file: its name.
        problem: what is wrong with it.
        fix: what to do about it.
    """

    file: str
    problem: str
    fix: str

    def _lines(self) -> Iterable[str]:
        return [f"{self.file!r} cannot be read: {self.problem}.", self.fix]
