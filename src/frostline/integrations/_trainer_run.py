"""One run of a trainer: the binding, a driver that follows the trainer's count, and a guard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, final

from torch import nn

from frostline import Rule
from frostline._core.errors import SelectorError
from frostline._core.rules import options_by_path
from frostline.integrations._resumed import check_same
from frostline.schedules.policy import Policy
from frostline.schedules.schedule import Schedule
from frostline.schedules.walk import check, resume
from frostline.torch import Binding, Driver, Handle, freeze, select, trainable
from frostline.torch._freezing.constants import frozen_before
from frostline.torch._freezing.selection import Choice, written
from frostline.torch._freezing.survey import survey
from frostline.torch._inspection.guard import Guard

_RESUME = "trainer.train(resume_from_checkpoint=...)"


def check_fits(
    model: nn.Module, selectors: Sequence[Choice], schedule: Schedule | Policy | None, rules: Sequence[Rule]
) -> None:
    """Checks that all selectors fit a model, however late they come.

    Raises:
        NoMatchError, TiedError, SelectorError: one does not.
    """
    inventory = survey(model).inventory
    if selectors:
        select(model, *selectors)
    if schedule is not None:
        check(schedule, inventory)
    options_by_path(rules, inventory)


def frozen_throughout(model: nn.Module, selectors: Sequence[Choice]) -> Handle:
    """Freezes what stays frozen for a whole run, in place.

    Raises:
        SelectorError: nothing is left to train. Nothing is changed then.
    """
    handle = freeze(model, *selectors)
    if not trainable(model):
        handle.undo()
        expression = f"Freezing({written('', selectors).removeprefix(', ')})"
        problem = f"freezes all {len(handle.plan.frozen)} parameters, and leaves nothing to train."
        raise SelectorError(expression, problem, 'Take something back: Freezing("**", "!classifier").')
    return handle


@final
class TrainerRun:
    """One run of a trainer, from its beginning to its end.

    Attributes:
        driver: the driver, if there is a schedule.
        saved: what a checkpoint must have, as data for JSON; the same object throughout.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule | Policy | None,
        unit: str,
        saved: Mapping[str, Any],
        bound: Callable[[], Binding],
        *,
        guards: bool,
    ) -> None:
        """Begins a run, or goes on with one.

        Args:
            model: the model, in which is frozen what stays frozen.
            schedule: the schedule or policy, if there is one.
            unit: what it counts.
            saved: of the run that goes on; empty at the beginning.
            bound: binds the optimizer.
            guards: whether to watch what is frozen.

        Raises:
            ScheduleError, PlanMismatchError, PlanError: the run that was saved is another one.
            ConstantError, BindError, WrappedError: as in :class:`Driver`. Nothing is changed in each case.
        """
        read = survey(model)
        still = frozen_before(read)
        if saved:
            check_same(_RESUME, saved, unit, still)
        place = saved.get("driver")
        if schedule is not None and place is not None:
            resume(schedule, place, read.inventory)
        self._model, self._guards = model, guards
        self._binding = bound()
        self.driver: Driver | None = None
        if schedule is not None:
            try:
                self.driver = Driver(schedule, model, self._binding)
            except BaseException:
                self._binding.release()
                raise
            if place is not None:
                self.driver.load_state_dict(place)
        self._seen: dict[str, float] = saved.get("seen", {})
        self.saved: dict[str, Any] = {"unit": unit, "frozen": sorted(still)}
        self._note()
        self._watching = Guard(model, copy=False) if guards else None

    def follow(self, place: int) -> None:
        """Takes the driver on to the trainer's count of steps or epochs, in place."""
        if self.driver is None or self.driver.steps >= place:
            return
        before, has_seen = self.driver.phase, bool(self._seen)
        while self.driver.steps < place:
            self.driver.step(**self._seen)
            self._seen = {}
        if self.driver.phase is not before:
            self.verify()
            self._watching = Guard(self._model, copy=False) if self._guards else None
        if has_seen or self.driver.phase is not before:
            self._note()
        self.saved["driver"]["step"] = self.driver.steps

    def observe(self, values: Mapping[str, Any]) -> None:
        """Keeps the numbers by which a policy decides in the next step."""
        self._seen = {name: float(value) for name, value in values.items() if isinstance(value, Real)}
        self.saved["seen"] = self._seen

    def verify(self) -> None:
        """Proves that nothing frozen has moved since the last change, if that is wanted.

        Raises:
            MovedError: something has moved.
        """
        if self._watching is not None:
            self._watching.verify()

    def end(self) -> None:
        """Releases the optimizer. What is frozen stays frozen."""
        self._binding.release()

    def _note(self) -> None:
        if self.driver is not None:
            self.saved |= {"driver": self.driver.state_dict(), "seen": self._seen}
