"""A position in a schedule or a policy: a driver advances it, and a checkpoint saves it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, final

from frostline._core import document
from frostline._core.errors import ScheduleError
from frostline._core.errors.base import counted
from frostline._core.inventory import Inventory
from frostline._core.plan import Change, Plan
from frostline.schedules.arguments import whole
from frostline.schedules.kept import plan_beside
from frostline.schedules.phase import Phase
from frostline.schedules.policy import Policy, State
from frostline.schedules.schedule import Schedule

KIND = "driver"
_LOAD = "driver.load_state_dict(state)"
_FIX = "Load what driver.state_dict() gave, into a driver with the same schedule."


@final
@dataclass(frozen=True)
class ScheduleCursor:
    """A position in a schedule or a policy, as a value.

    Attributes:
        along: the schedule or the policy.
        step: the number of the training step; the first step is 0.
        state: the state of the policy.
        phase: the phase of this step; it stays the same object until the phase changes.
        kept: the paths that stay frozen in each phase, because they were frozen before.

    Example:
        >>> from frostline.schedules import LinearProbe, Phase, Plateau
        >>> walk = begin(LinearProbe(["head"], steps=2))
        >>> [walk := walk.onward({}) for _ in range(3)][-1].phase.name
        'fine-tune'
        >>> walk = begin(Plateau([Phase(["**", "!head"]), Phase()], patience=1))
        >>> walk.onward({"loss": 0.5}).onward({}).onward({"loss": 0.6}).phase
        Phase()
    """

    along: Schedule | Policy
    step: int
    state: State | None
    phase: Phase
    # The first later step at which the phase of a schedule may change.
    _until: int | None
    kept: frozenset[str] = frozenset()

    def onward(self, observation: Mapping[str, float]) -> ScheduleCursor:
        """Returns the position at the next step.

        Args:
            observation: numbers by name. If it is empty, the state of a policy does not change; a schedule ignores it.

        Raises:
            ScheduleError: a number that the policy needs is missing or not finite.
        """
        step = self.step + 1
        if isinstance(self.along, Policy):
            if not observation:
                return replace(self, step=step)
            assert self.state is not None
            state, phase = self.along.update(self.state, observation)
            return replace(self, step=step, state=state, phase=self._same(phase))
        if self._until is None or step < self._until:
            return replace(self, step=step)
        after = _in_schedule(self.along, step)
        return replace(after, phase=self._same(after.phase), kept=self.kept)

    def keeping(self, kept: AbstractSet[str]) -> ScheduleCursor:
        """Returns the position at which these paths stay frozen in each phase."""
        return replace(self, kept=frozenset(kept))

    def plan(self, inventory: Inventory) -> Plan:
        """Returns the plan of the phase for a model.

        Raises:
            ConstantError: every parameter that the phase would train stays frozen.
        """
        return plan_beside(self.along, self.phase, inventory, self.kept)

    def to_dict(self, plan: Plan) -> dict[str, object]:
        """Returns the position as data for JSON.

        Args:
            plan: the plan of the phase for the model.
        """
        place = {"schedule": self.along.to_dict(), "step": self.step, "state": self.state, "plan": plan.to_dict()}
        return document.stamped(KIND, place | ({"kept": sorted(self.kept)} if self.kept else {}))

    def _same(self, phase: Phase) -> Phase:
        return self.phase if phase == self.phase else phase


def begin(along: object) -> ScheduleCursor:
    """Returns the position at the first step.

    Raises:
        ScheduleError: `along` is neither a schedule nor a policy.
    """
    if isinstance(along, Schedule):
        return _in_schedule(along, 0)
    if isinstance(along, Policy):
        return _in_policy(along, 0, along.init())
    name = along.__name__ if isinstance(along, type) else type(along).__name__
    problem = f"got {along!r}, which is neither a schedule nor a policy."
    fix = "Pass a schedule: Driver(LinearProbe(['head'], steps=500), ...)."
    raise ScheduleError(f"Driver({name}, ...)", problem, (), fix)


def resume(along: Schedule | Policy, saved: object, inventory: Inventory) -> ScheduleCursor:
    """Returns the position that `ScheduleCursor.to_dict` saved.

    Args:
        along: the schedule or the policy. A policy must equal the saved one; a schedule must have the same phases at
            the steps that were taken, and may go on in another way.
        saved: the data.
        inventory: the model; its plan at this position must equal the saved plan.

    Raises:
        ScheduleError: `saved` is not such data, or its schedule or its plan differs.
        PlanMismatchError: the model has other paths than the saved one.
        PlanError: the saved plan cannot be read.
        ConstantError: every parameter that the phase would train stays frozen.
    """
    more = ("kept",) if isinstance(saved, dict) and "kept" in saved else ()
    try:
        data = document.fields(saved, KIND, ("schedule", "step", "state", "plan", *more))
        kept = frozenset(document.texts("kept", data.get("kept", [])))
    except ValueError as error:
        raise ScheduleError(_LOAD, f"got data that is not the state of a driver: {error}.", (), _FIX) from error
    step = whole("driver.load_state_dict", "step", data["step"])
    before = None if data["schedule"] == along.to_dict() else _with_the_same_past(along, data["schedule"], step)
    walk = _in_policy(along, step, data["state"]) if isinstance(along, Policy) else _in_schedule(along, step)
    walk = walk.keeping(kept)
    here = walk if before is None else _in_schedule(before, step).keeping(kept)
    _check_plan(here.plan(inventory), Plan.from_dict(data["plan"]), step)
    return walk


def check(along: Schedule | Policy, inventory: Inventory) -> None:
    """Resolves all known phases, so that a selector without a match is found before the first step.

    Raises:
        NoMatchError: a selector matches nothing in the model.
        TiedError: in a phase, one name of a tensor is frozen and another is not.
    """
    phases = along.foreseen
    for frozen in dict.fromkeys(phase.frozen for phase in phases):
        Phase(frozen).plan(inventory)
    for selector in dict.fromkeys(selector for phase in phases for selector, _ in phase.rates):
        Phase(rates=[(selector, 1.0)]).factors(inventory)


def stays(along: Schedule | Policy) -> bool:
    """Whether the phase never changes."""
    return isinstance(along, Schedule) and along.next_change(0) is None


def line(walk: ScheduleCursor, change: Change) -> str:
    """Returns the log line for a change.

    Example:
        >>> from frostline.schedules import LinearProbe
        >>> line(begin(LinearProbe(["head"], steps=2)), Change(freeze={"body.weight"}))
        'step 0: freeze 1 (body.weight); probe'
    """
    return f"step {walk.step}: {change}" + (f"; {walk.phase.name}" if walk.phase.name else "")


def _in_schedule(along: Schedule, step: int) -> ScheduleCursor:
    return ScheduleCursor(along, step, None, along.at(step), along.boundary(step))


def _in_policy(along: Policy, step: int, state: Any) -> ScheduleCursor:
    return ScheduleCursor(along, step, state, along.phase(state), None)


def _with_the_same_past(along: Schedule | Policy, saved: Any, steps: int) -> Schedule:
    """Returns the schedule that was saved, if its phases at the first `steps` steps are those of `along`.

    Raises:
        ScheduleError: they differ, or one of the two is a policy.
    """
    here, given = along.to_dict(), saved if isinstance(saved, dict) else {}
    kinds = [next((data[noun] for noun in ("schedule", "policy") if noun in data), None) for data in (given, here)]
    found = []
    if isinstance(along, Schedule) and "schedule" in given:
        before = Schedule.from_dict(given)
        differs = _first_difference(before, along, steps)
        if differs is None:
            return before
        found = [f"  at step {differs}: saved {before.at(differs)}, here {along.at(differs)}"]
    if kinds[0] != kinds[1]:
        problem = f"got the state of {kinds[0]} for {kinds[1]}."
        raise ScheduleError(_LOAD, problem, tuple(found), _FIX)
    names = sorted(here.keys() | given.keys())
    differ = [name for name in names if given.get(name) != here.get(name)]
    found = [*(f"  {name}: saved {given.get(name)!r}, here {here.get(name)!r}" for name in differ), *found]
    problem = f"got the state of another {kinds[1]}: it differs in {counted(len(differ), 'field')}."
    raise ScheduleError(_LOAD, problem, tuple(found), _FIX)


def _first_difference(one: Schedule, other: Schedule, steps: int) -> int | None:
    """Returns the first step below `steps` at which two schedules freeze something else or train at other rates."""
    changes = {step for each in (one, other) for step, _ in each.changes(steps)}
    for step in sorted(changes):
        phases = one.at(step), other.at(step)
        if phases[0].frozen != phases[1].frozen or phases[0].rates != phases[1].rates:
            return step
    return None


def _check_plan(here: Plan, saved: Plan, step: int) -> None:
    change = saved.change_to(here)
    if change:
        problem = f"got the state of another model: at step {step} the same phase gives another plan here."
        fix = "Load it into a model with the same ties and the same frozen uses."
        raise ScheduleError(_LOAD, problem, (f"  against the saved plan: {change}",), fix)
