"""Freezing in the ``Trainer`` of transformers, and in those that are built on it: one callback."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, cast, final

from torch import nn
from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.training_args import ParallelMode

from frostline import Rule
from frostline._core.errors import ScheduleError, SelectorError
from frostline.integrations._trainer_run import TrainerRun, check_fits, frozen_throughout
from frostline.integrations._transformers_binding import bound
from frostline.schedules.arguments import choice
from frostline.schedules.policy import Policy
from frostline.schedules.schedule import Schedule
from frostline.torch import Driver, Handle
from frostline.torch._freezing.selection import Choice

# Under this name the trainer's own state, trainer_state.json, has what the callback needs to go on.
_KEY = "frostline"
_SCHEDULE = 'Freezing(schedule=LinearProbe(["classifier"], steps=500))'


@final
class Freezing(TrainerCallback):
    """Freezes parts of a model while a ``Trainer`` trains it, for good or by a schedule.

    ``trainer.train(resume_from_checkpoint=...)`` goes on bitwise where the run was, with nothing else to do: the place
    in the schedule is in the checkpoint's ``trainer_state.json``, and the moments are in its optimizer file by name.
    What thaws trains in the group that the trainer has put it in, with weight decay or without. A step is one of
    ``global_step``, however many batches it accumulates. Trainers that are built on this one, such as that of
    sentence-transformers, take the callback, too. What does not fit the model is an error before the first step.

    Args:
        selectors: what stays frozen throughout, as in ``freeze(model, *selectors)``.
        schedule: a schedule for the rest. Or a policy, which decides in the step after each evaluation, from its
            metrics and what was logged last: ``Plateau(..., watch="eval_loss")``.
        unit: what a schedule counts.
        rules: options by selector, as in ``bind``: a factor ``lr_scale``, or what a group of the trainer has, such as
            ``weight_decay=0.0``.
        guard: whether to prove at each change, and at the end of each epoch, that nothing frozen has moved.

    Raises:
        SelectorError: there are neither selectors nor a schedule.
        ScheduleError: `schedule` is not a schedule, or `unit` is neither "step" nor "epoch".

    Example:
        >>> from frostline.schedules import LinearProbe
        >>> callback = Freezing("bert.embeddings", schedule=LinearProbe(["classifier"], steps=500))
    """

    def __init__(
        self,
        *selectors: Choice,
        schedule: Schedule | Policy | None = None,
        unit: Literal["step", "epoch"] = "step",
        rules: Sequence[Rule] | None = None,
        guard: bool = False,
    ) -> None:
        if not selectors and schedule is None:
            fix = f'Write Freezing("**", "!classifier"), or {_SCHEDULE}.'
            raise SelectorError("Freezing()", "has neither selectors nor a schedule.", fix)
        if not isinstance(schedule, Schedule | Policy | None):
            problem = "is neither a schedule nor a policy."
            raise ScheduleError(f"Freezing(schedule={schedule!r})", problem, (), f"Write {_SCHEDULE}.")
        self._selectors, self._schedule, self._rules, self._guards = selectors, schedule, tuple(rules or ()), guard
        self._unit = choice("Freezing", "unit", unit, ("step", "epoch"))
        self._frozen: tuple[nn.Module, Handle] | None = None
        self._run: TrainerRun | None = None
        self._logged: dict[str, Any] = {}

    @property
    def driver(self) -> Driver | None:
        """The driver of the schedule, while the trainer trains."""
        return None if self._run is None else self._run.driver

    def on_init_end(self, args: TrainingArguments, *_: Any, model: Any = None, **__: Any) -> None:
        """Checks that all fits the model."""
        self._check(args, model)
        if args.parallel_mode == ParallelMode.DISTRIBUTED:
            # The wrapper for several processes notes what trains when it is made.
            self._freeze(model)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, *_: Any, model: Any = None, optimizer: Any = None, **__: Any
    ) -> None:
        """Begins, or goes on, with an optimizer that has loaded its state."""
        self.on_train_end()  # of a run that was interrupted
        self._check(args, model)
        notes = cast(dict[str, Any], state.stateful_callbacks)
        saved = notes.get(_KEY, {}) if state.global_step else {}
        handle = self._freeze(model)
        try:
            bind = partial(bound, optimizer, model, self._rules, args.weight_decay, thaws=self._schedule is not None)
            self._run = TrainerRun(model, self._schedule, self._unit, saved, bind, guards=self._guards)
        except BaseException:
            if handle is not None:
                handle.undo()
                self._frozen = None
            raise
        self._run.follow(self._place(state))
        notes[_KEY], self._logged = self._run.saved, {}

    def on_step_end(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """Takes the schedule on."""
        if self._run is not None:
            self._run.follow(self._place(state))

    def on_log(self, *_: Any, logs: Any = None, **__: Any) -> None:
        """Keeps what a policy may want to know."""
        self._logged |= logs or {}

    def on_evaluate(self, *_: Any, metrics: Any = None, **__: Any) -> None:
        """Shows a policy the metrics."""
        if self._run is not None and isinstance(self._schedule, Policy):
            self._run.observe({**self._logged, **(metrics or {})})

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """Proves that nothing frozen has moved; at the end of the run the best weights may have been loaded."""
        if self._run is not None:
            self._run.verify()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Releases the optimizer."""
        if self._run is not None:
            self._run.end()
            self._run = None

    def _check(self, args: TrainingArguments, model: nn.Module) -> None:
        check_fits(model, self._selectors, self._schedule, self._rules)
        if isinstance(self._schedule, Policy) and args.eval_strategy == "no":
            problem = "decides after each evaluation, and the trainer makes none."
            fix = 'Write TrainingArguments(..., eval_strategy="epoch").'
            raise ScheduleError(f"Freezing(schedule={self._schedule!r})", problem, (), fix)

    def _freeze(self, model: nn.Module) -> Handle | None:
        if not self._selectors or (self._frozen is not None and self._frozen[0] is model):
            return None
        self._frozen = model, frozen_throughout(model, self._selectors)
        return self._frozen[1]

    def _place(self, state: TrainerState) -> int:
        by_epoch = self._unit == "epoch" and not isinstance(self._schedule, Policy)
        return int(state.epoch) if by_epoch else state.global_step
