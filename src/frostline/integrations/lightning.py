"""Lightning: a callback that freezes, and thaws by a schedule; a run resumes with nothing else to write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal, final

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:  # under its older name
    from pytorch_lightning import Callback, LightningModule, Trainer  # type: ignore[assignment]

from frostline import Rule
from frostline.integrations._callback_arguments import check_arguments, frozen_throughout
from frostline.integrations._lightning_numbers import numbers_of
from frostline.integrations._lightning_optimizers import bound, complete, release_earlier
from frostline.integrations._resumed import check_same
from frostline.schedules import Phase, Phases, Span
from frostline.schedules.policy import Policy
from frostline.schedules.schedule import Schedule
from frostline.torch import Driver
from frostline.torch._freezing.constants import frozen_before
from frostline.torch._freezing.selection import Choice, flat
from frostline.torch._freezing.survey import survey
from frostline.torch._inspection.guard import Guard

_NOTHING_MORE = Phases([Span(0, None, Phase())])


@final
class Freezing(Callback):
    """Freezes parts of a module for a fit, and thaws them by a schedule, in place of ``BackboneFinetuning``.

    The module is frozen in ``setup``, so the learning-rate finder and wrappers such as DDP see it as it will train.
    If ``configure_optimizers`` leaves out what is frozen, it is called again with all that thaws later, so that groups
    and schedulers know it from the start. The optimizers are bound, and ``trainer.fit(ckpt_path=...)`` resumes in the
    middle of any phase. After the fit the module stays as it was in the last phase.

    Steps are counted as by ``max_steps``: steps of optimizers, not batches, and of all optimizers together.

    Args:
        selectors: what stays frozen throughout, as in ``freeze(module, *selectors)``.
        schedule: a schedule or a policy for the rest. A policy gets the numbers that ``training_step`` returns, or,
            with ``unit="epoch"``, those that were logged.
        unit: what the schedule counts.
        rules: options by selector, as in ``bind``. If ``configure_optimizers`` makes a scheduler, call
            ``bind(optimizer, self, rules=rules)`` there, before the scheduler is made.
        guard: whether to prove at each change, and at the end, that nothing frozen has moved.

    Attributes:
        driver: the driver of the fit, with the bindings of the optimizers.

    Raises:
        SelectorError: there are neither selectors nor a schedule.
        ScheduleError: `schedule` is not a schedule, or `unit` is neither "step" nor "epoch".

    Example:
        >>> from frostline.schedules import LinearProbe
        >>> callback = Freezing("embed", schedule=LinearProbe(["head"], steps=500))
        >>> trainer = Trainer(callbacks=[callback], logger=False, barebones=True)
    """

    driver: Driver

    def __init__(
        self,
        *selectors: Choice,
        schedule: Schedule | Policy | None = None,
        unit: Literal["step", "epoch"] = "step",
        rules: Sequence[Rule] | None = None,
        guard: bool = False,
    ) -> None:
        check_arguments(selectors, schedule, unit, "head")
        self._selectors, self._unit, self._rules, self._guards = flat(selectors), unit, tuple(rules or ()), guard
        self._schedule = _NOTHING_MORE if schedule is None else schedule
        self._still: frozenset[str] = frozenset()
        self._is_fit = False
        self._guard: Guard | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freezes, before there is an optimizer."""
        self._is_fit = stage == "fit"
        if self._is_fit:
            with ExitStack() as undone:
                if self._selectors:
                    undone.enter_context(frozen_throughout(pl_module, self._selectors, "head"))
                self.driver = Driver(self._schedule, pl_module, [])
                undone.pop_all()
            self._still, self._guard = frozen_before(survey(pl_module)), None
            release_earlier(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Binds the optimizers, before their states are loaded."""
        complete(trainer, pl_module, self._still)
        place = self.driver.state_dict()
        # With what is around it, such as DDP, which would ignore a change and is refused.
        self.driver = Driver(self._schedule, trainer.model or pl_module, bound(trainer, pl_module, self._rules))
        self.driver.load_state_dict(place)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins the proof."""
        self._guard = Guard(pl_module, copy=False) if self._guards else None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Catches up with a trainer that has trained before, and with a checkpoint that was saved amid a step."""
        self._walk(trainer, pl_module, trainer.global_step if self._unit == "step" else trainer.current_epoch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Notes the steps that the optimizers took."""
        if self._unit == "step":
            numbers = outputs if isinstance(outputs, Mapping) else {"loss": outputs}
            self._walk(trainer, pl_module, trainer.global_step, numbers)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes the epoch."""
        if self._unit == "epoch":
            self._walk(trainer, pl_module, trainer.current_epoch + 1, trainer.callback_metrics)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Proves that nothing frozen has moved since the last change."""
        if self._guard is not None:
            self._guard.verify()

    def state_dict(self) -> dict[str, Any]:
        """Returns the place in the schedule, as plain data; nothing before the first fit."""
        place = self.driver.state_dict() if hasattr(self, "driver") else None
        return {"unit": self._unit, "frozen": sorted(self._still), "driver": place} if place else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on at a place, before the optimizers are made."""
        if self._is_fit:
            check_same("trainer.fit(ckpt_path=...)", state_dict, self._unit, self._still)
            self.driver.load_state_dict(state_dict["driver"])

    def _walk(
        self, trainer: Trainer, module: LightningModule, end: int, given: Mapping[str, Any] | None = None
    ) -> None:
        """Takes the driver to step `end`; of the step before it a policy gets what was `given`."""
        while self.driver.steps < end:
            is_seen = given is not None and self.driver.steps == end - 1 and isinstance(self._schedule, Policy)
            phase = self.driver.phase
            self.driver.step(**(numbers_of(trainer, given or {}) if is_seen else {}))
            if self._guard is not None and self.driver.phase is not phase:
                self._guard.verify()
                self._guard = Guard(module, copy=False)
