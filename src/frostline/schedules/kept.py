"""Parameters that a schedule leaves frozen: constants, and those that the user froze before."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from itertools import chain, islice

from frostline._core.errors import ConstantError
from frostline._core.errors.base import counted
from frostline._core.inventory import Inventory
from frostline._core.plan import Plan
from frostline._core.selecting.named import named
from frostline._core.selecting.resolve import resolve
from frostline.schedules.phase import Phase
from frostline.schedules.phases import Phases
from frostline.schedules.policy import Policy
from frostline.schedules.schedule import Schedule

_MOST_CHECKED = 24


def kept_of(along: Schedule | Policy, frozen: AbstractSet[str], inventory: Inventory) -> frozenset[str]:
    """Returns the paths that stay frozen through a whole schedule: those frozen before it that it does not name.

    A schedule names a parameter by its own path, as one of its parts or as a trainable selector of a phase,
    ``Phase(["**", "!pos"])``.

    Args:
        along: the schedule or policy.
        frozen: the paths that were frozen before the schedule.
        inventory: the model.

    Example:
        >>> from frostline._core.param import Param
        >>> from frostline.schedules import LinearProbe
        >>> model = Inventory(tuple(Param(path, (2,), "float32", 4) for path in ("pos", "scale", "head.weight")))
        >>> sorted(kept_of(LinearProbe(["head", "scale"], steps=5), {"pos", "scale"}, model))
        ['pos']
    """
    words = [word.removeprefix("!") for phase in along.foreseen for word in phase.frozen if word.startswith("!")]
    # The parts of `Phases` are all selectors of its phases, including those that they freeze.
    if isinstance(along, Schedule) and not isinstance(along, Phases):
        words += along.parts
    return frozenset(frozen) - named(words, inventory)


def plan_beside(along: Schedule | Policy, phase: Phase, inventory: Inventory, kept: AbstractSet[str]) -> Plan:
    """Returns the plan of a phase for a model in which some parameters stay frozen.

    Raises:
        ConstantError: every parameter that the phase would train stays frozen, and the schedule names one of them.
    """
    plan = phase.plan(inventory)
    left = plan.trainable & kept
    params = {param.path for param in inventory.params}
    if left and not (plan.trainable - left) & params:
        words = {word.removeprefix("!") for each in along.foreseen for word in each.frozen} - {"**"}
        # A phase that freezes every selector of its schedule, as the last phase of `FreezeOut`, may train nothing.
        if meant := left.intersection(chain.from_iterable(resolve([word], inventory) for word in words)):
            problem = f"would train {counted(len(meant), 'parameter')}, all of which were frozen before the schedule:"
            fix = 'Thaw what it is to train before the driver is made: thaw(model, "head", constants=True).'
            raise ConstantError(repr(phase), problem, tuple(sorted(meant)), fix)
    return plan.freeze(left)


def check_phases(along: Schedule | Policy, inventory: Inventory, kept: AbstractSet[str]) -> None:
    """Checks that each of the first phases of a schedule trains a parameter that does not stay frozen.

    Raises:
        ConstantError: a phase trains none.
    """
    if kept and isinstance(along, Schedule):
        for _, phase in islice(along.changes(along.horizon + 1), _MOST_CHECKED):
            plan_beside(along, phase, inventory, kept)


def freezes_nothing(along: Schedule | Policy) -> bool:
    """Whether no phase freezes anything: then what was frozen before is all that is, and nothing need be said of it."""
    return not any(phase.frozen for phase in along.foreseen)


def line_of(left: AbstractSet[str]) -> str:
    """Returns the log line for parameters that a schedule leaves frozen although a phase would train them.

    Example:
        >>> line_of({"pos"})
        'leaves 1 parameter frozen that was frozen before the schedule (pos)'
    """
    first = ", ".join(sorted(left)[:3]) + (", ..." if len(left) > 3 else "")
    were = "was" if len(left) == 1 else "were"
    return f"leaves {counted(len(left), 'parameter')} frozen that {were} frozen before the schedule ({first})"
