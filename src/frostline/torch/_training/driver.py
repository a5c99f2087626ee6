"""The driver, which takes a model and its optimizers through a schedule, step by step."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import final

from torch import nn
from torch.optim import Optimizer

from frostline._core.errors import BindError
from frostline.schedules.kept import check_phases, freezes_nothing, kept_of, line_of
from frostline.schedules.phase import Phase
from frostline.schedules.policy import Policy
from frostline.schedules.schedule import Schedule
from frostline.schedules.walk import ScheduleCursor, begin, check, line, resume, stays
from frostline.torch._freezing.constants import frozen_before
from frostline.torch._freezing.freezing import follow_plan
from frostline.torch._freezing.survey import Survey, survey
from frostline.torch._freezing.wrapped import check_follows
from frostline.torch._training.bind import bind
from frostline.torch._training.binding import Binding
from frostline.torch._training.compiled_blocks import call_alike
from frostline.torch._training.together import averaged
from frostline.torch._wrappers import unwrapped

_LOG = logging.getLogger("frostline")


@final
class Driver:
    """Takes a model and its optimizer through a schedule: what is frozen, and at which rates the rest trains.

    As with PyTorch's learning-rate schedulers, making it enacts step 0, and `step` is called after each
    ``optimizer.step()``. Each change is one line in the log called "frostline"; a step without one costs next to
    nothing. Factors of the learning rates hold only while the optimizer takes its step, so schedulers never see them,
    and it does not matter which of the two is made first.

    Constants, and what ``freeze`` froze before the driver was made, stay frozen, unless the schedule names a parameter
    by its own path; undoing such a freeze, or thawing, ends that. What another driver or `follow` froze does not.

    Blocks that were compiled one by one with ``block.compile()``, before the driver was made, are called so that each
    needs two compiled variants at most, one frozen and one trainable, whatever is frozen below it; the first block
    that trains pays for it with the gradient of its input.

    Args:
        schedule: a schedule or a policy.
        model: the model.
        optimizer: the optimizer, which is bound to the model; or a binding that `bind` returned; or several of those,
            each for a part of the model.

    Attributes:
        schedule: the schedule or policy.
        bindings: of the optimizers; they save their states by name.

    Raises:
        ScheduleError: `schedule` is not a schedule.
        NoMatchError, TiedError: a phase does not fit the model, however late it comes. Nothing is changed then.
        ConstantError: a phase would train nothing but what was frozen before. At a later phase `step` raises it.
        BindError, UnsupportedError: as in :func:`bind`; or a binding is of another model.
        WrappedError: the model is inside a wrapper that would ignore a change.

    Example:
        >>> from frostline.schedules import LinearProbe
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        >>> driver = Driver(LinearProbe(["[1]"], steps=2), model, optimizer)
        >>> for step in range(4):
        ...     optimizer.zero_grad()
        ...     model(torch.ones(1, 4)).sum().backward()
        ...     optimizer.step()
        ...     driver.step()
        ...     print(driver.steps, len(trainable(model)))
        1 2
        2 4
        3 4
        4 4
    """

    def __init__(
        self, schedule: Schedule | Policy, model: nn.Module, optimizer: Optimizer | Binding | Sequence[Binding]
    ) -> None:
        read = survey(model)
        walk = begin(schedule)
        check(schedule, read.inventory)
        self._own = frozen_before(read)
        self._said = freezes_nothing(schedule)
        walk = walk.keeping(kept_of(schedule, self._own, read.inventory))
        plan = walk.plan(read.inventory)
        check_phases(schedule, read.inventory, walk.kept)
        if not stays(schedule):
            check_follows(model, read, read.parameters, {})
        self.schedule = schedule
        self.bindings = _bound(optimizer, model, read)
        self._model, self._inventory, self._walk, self._plan = model, read.inventory, walk, plan
        self._enact(walk)

    @property
    def steps(self) -> int:
        """The number of steps that were taken, which is the number of the next one: the first is 0."""
        return self._walk.step

    @property
    def phase(self) -> Phase:
        """The phase that holds now."""
        return self._walk.phase

    def step(self, **observation: float) -> None:
        """Enacts the next step, in place; call it after each step of the optimizer.

        Args:
            observation: the plain numbers by which a policy decides, ``driver.step(loss=loss.item())``. It looks at
                each step that has them. A schedule needs none. Processes that train one model, in a data-parallel
                wrapper or in shards, decide by the mean over all of them.

        Raises:
            ScheduleError: the policy misses a number, or one is not finite. Nothing is changed then.
            RankError: another rank has passed other numbers, or makes another change. Nothing is changed then.
            PlanMismatchError: the model has other paths than when the driver was made.

        Example:
            >>> from frostline.schedules import Phase, Plateau
            >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
            >>> optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
            >>> driver = Driver(Plateau([Phase(["[0]"]), Phase()], patience=1), model, optimizer)
            >>> driver.step(loss=0.5)
            >>> driver.step(loss=0.5)
            >>> len(trainable(model))
            4
        """
        if isinstance(self.schedule, Policy):
            observation = dict(averaged(unwrapped(self._model), observation))
        walk = self._walk.onward(observation)
        if walk.phase is self._walk.phase:
            self._walk = walk
        else:
            self._enact(walk, same_set=walk.phase.frozen == self._walk.phase.frozen)

    def state_dict(self) -> dict[str, object]:
        """Returns the step, the schedule, the state of a policy and the plan, as data for JSON.

        A checkpoint is this, ``model.state_dict()``, and ``state_dict()`` of each binding and learning-rate scheduler.
        """
        return self._walk.to_dict(self._plan)

    def load_state_dict(self, state: object) -> None:
        """Goes on where a state was saved, in place: the model is frozen as it was then.

        Weights and the optimizer's state are loaded separately, before or after.

        Args:
            state: of `state_dict`, as it is or through JSON.

        Raises:
            ScheduleError: it is not such a state, or of another schedule, or means another plan for this model.
            PlanMismatchError: it speaks of other paths than the model has.
            PlanError: the plan in it cannot be read.

        Example:
            >>> import json
            >>> from frostline.schedules import LinearProbe
            >>> def made():
            ...     model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
            ...     optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
            ...     return Driver(LinearProbe(["[1]"], steps=2), model, optimizer)
            >>> driver, other = made(), made()
            >>> for _ in range(5):
            ...     driver.step()
            >>> other.load_state_dict(json.loads(json.dumps(driver.state_dict())))
            >>> other.steps, other.phase.name
            (5, 'fine-tune')
        """
        walk = resume(self.schedule, state, self._inventory)
        self._enact(walk.keeping(walk.kept | self._walk.kept))

    def __repr__(self) -> str:
        return f"Driver({self.schedule!r}, step {self.steps})"

    def _enact(self, walk: ScheduleCursor, *, same_set: bool = False) -> None:
        factors = walk.phase.factors(self._inventory)
        if not same_set:
            read = survey(self._model)
            own = frozen_before(read)
            walk = walk.keeping(walk.kept - (self._own - own))
            plan = walk.plan(self._inventory)
            left = walk.phase.plan(self._inventory).trainable & walk.kept
            change = follow_plan(self._model, read, plan, constants=True, unclaimed=left & own)
            self._own &= own
            call_alike(self._model)
            self._plan = plan
            if change:
                _LOG.info("%s", line(walk, change))
            if left and not self._said:
                _LOG.warning("step %d: %s", walk.step, line_of(left))
                self._said = True
        for binding in self.bindings:
            binding.scale({path: factors[path] for path in binding.names if path in factors})
        self._walk = walk


def _bound(optimizer: Optimizer | Binding | Sequence[Binding], model: nn.Module, read: Survey) -> tuple[Binding, ...]:
    if not isinstance(optimizer, Binding | Sequence):
        return (bind(optimizer, model),)
    bindings = (optimizer,) if isinstance(optimizer, Binding) else tuple(optimizer)
    for each in bindings:
        if not isinstance(each, Binding):
            problem = f"is handed {len(bindings)} optimizers, and {type(each).__name__} is not bound to its part."
            fix = 'Bind each first: Driver(schedule, model, [bind(one, model, "encoder"), bind(other, model, "head")]).'
            raise BindError("Driver(schedule, model, [...])", problem, (), fix)
        each.sync()
        if foreign := [path for path, site in each._members.sites.items() if site not in read.sites.get(path, ())]:
            problem = f"is handed a binding with {len(foreign)} of {len(each.names)} parameters of another model:"
            fix = "Bind to the same model: Driver(schedule, model, bind(optimizer, model))."
            raise BindError("Driver(schedule, model, binding)", problem, tuple(foreign), fix)
    return bindings
