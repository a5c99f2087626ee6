"""A driver: carries out a schedule on a tree, step by step."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, final

import jax

from frostline._core.errors import ScheduleError, StructureError
from frostline._core.inventory import Inventory
from frostline._core.plan import Plan
from frostline.jax._freezing.freezing import follow
from frostline.jax._freezing.survey import survey
from frostline.jax._training.rates import Factors
from frostline.schedules.kept import check_phases, freezes_nothing, kept_of, line_of
from frostline.schedules.phase import Phase
from frostline.schedules.policy import Policy
from frostline.schedules.schedule import Schedule
from frostline.schedules.walk import ScheduleCursor, begin, check, line, resume

_LOG = logging.getLogger("frostline")


@final
class Driver:
    """Carries out a schedule on a tree: it freezes and thaws, and says at which rates the rest trains.

    Trees are values, so each call returns the tree to use from then on. `start` returns the tree of step 0, and `step`
    is called after each update. The state of ``optimizer(tx)`` follows in its next update. Better, change it at once by
    ``state = tx.follow(state, params)``, which saves a trace and makes resumed runs bitwise equal. The frozen set is
    part of the structure of the tree, so a compiled function is traced once for each set. Each change is one line in
    the log called "frostline". A step without a change returns the same tree.

    What is frozen in the tree that `start` gets stays frozen, unless the schedule names a parameter by its own path; a
    later `thaw` of it is followed at the next change of the phase. Pass ``thaw(tree)`` to start anew.

    With ``marks=False`` the trees stay as they are, and the plan stands beside them: `plan` says what is frozen at the
    present step, for ``grad(loss, frozen=driver.plan)`` and ``optimizer(tx, frozen=driver.plan)``. Pass it to compiled
    code as an argument.

    A schedule that changes learning rates provides `factors`, a value to pass to compiled code: call
    ``factors.scaled(updates)`` after the update of the optimizer. New factors need no new trace.

    Args:
        schedule: a schedule or a policy.
        marks: whether the trees that it returns have marks.

    Attributes:
        schedule: the schedule or policy.

    Raises:
        ScheduleError: `schedule` is neither.

    Example:
        >>> from frostline.schedules import LinearProbe
        >>> driver = Driver(LinearProbe(["head"], steps=2))
        >>> params = driver.start({"body": jnp.ones(2), "head": jnp.ones(2)})
        >>> tx = optimizer(optax.sgd(0.1))
        >>> state = tx.init(params)
        >>> for _ in range(3):
        ...     grads = grad(lambda params: params["body"] @ params["head"])(params)
        ...     updates, state = tx.update(grads, state, params)
        ...     trained, rest = split(params)
        ...     params = driver.step(join(optax.apply_updates(trained, updates), rest))
        ...     state = tx.follow(state, params)
        ...     print(driver.steps, sorted(trainable(params)))
        1 ['head']
        2 ['body', 'head']
        3 ['body', 'head']

        The same with the plan beside the tree:

        >>> driver = Driver(LinearProbe(["head"], steps=2), marks=False)
        >>> params = driver.start({"body": jnp.ones(2), "head": jnp.ones(2)})
        >>> state = optimizer(optax.sgd(0.1), frozen=driver.plan).init(params)
        >>> @jax.jit
        ... def train(params, state, plan):
        ...     grads = grad(lambda params: params["body"] @ params["head"], frozen=plan)(params)
        ...     tx = optimizer(optax.sgd(0.1), frozen=plan)
        ...     updates, state = tx.update(grads, state, params)
        ...     trained, rest = split(params, frozen=plan)
        ...     return join(optax.apply_updates(trained, updates), rest), state
        >>> for _ in range(3):
        ...     params, state = train(params, state, driver.plan)
        ...     params = driver.step(params)
        ...     print(driver.steps, driver.plan)
        1 Plan(frozen=1, trainable=1)
        2 Plan(frozen=0, trainable=2)
        3 Plan(frozen=0, trainable=2)
    """

    def __init__(self, schedule: Schedule | Policy, *, marks: bool = True) -> None:
        self._walk: ScheduleCursor = begin(schedule)
        self.schedule = schedule
        self._started: _Started | None = None
        self._said = freezes_nothing(schedule)
        self._marks = marks

    @property
    def steps(self) -> int:
        """The number of steps taken, which is the number of the next step; the first is 0."""
        return self._walk.step

    @property
    def phase(self) -> Phase:
        """The present phase."""
        return self._walk.phase

    @property
    def plan(self) -> Plan:
        """What is frozen at the present step.

        Raises:
            ScheduleError: the driver has not been started.
        """
        return self._held("driver.plan").plan

    @property
    def factors(self) -> Factors:
        """The present factor of the learning rate for each parameter; pass it to compiled code as an argument.

        Raises:
            ScheduleError: the driver has not been started.

        Example:
            >>> from frostline.schedules import ULMFiT
            >>> driver = Driver(ULMFiT(["body", "head"], period=1, decay=2))
            >>> params = driver.start({"body": jnp.ones(2), "head": jnp.ones(2)})
            >>> tx = optimizer(optax.sgd(0.25))
            >>> @jax.jit
            ... def train(params, state, factors):
            ...     grads = grad(lambda params: params["body"].sum() + params["head"].sum())(params)
            ...     updates, state = tx.update(grads, state, params)
            ...     trained, rest = split(params)
            ...     return join(optax.apply_updates(trained, factors.scaled(updates)), rest), state
            >>> params, state = train(params, tx.init(params), driver.factors)
            >>> params = driver.step(params)
            >>> params, state = train(params, state, driver.factors)
            >>> params["body"], params["head"]
            (Array([0.875, 0.875], dtype=float32), Array([0.5, 0.5], dtype=float32))
        """
        held = self._held("driver.factors")
        held.factors_read = True
        return held.factors

    def start(self, tree: Any, *, frozen: Plan | None = None) -> Any:
        """Returns the tree as it is frozen at step 0.

        Args:
            tree: the tree.
            frozen: a plan beside an unmarked tree; what is frozen in it stays frozen, as what is marked in a tree.

        Raises:
            NoMatchError, TiedError: a phase, however late, does not fit the tree.
            ConstantError: a phase would train nothing but what is frozen in the tree. At a later phase `step` raises
                it.
            PinnedError, SamePathError: as in :func:`follow`.
            StructureError: it is called in compiled code.
        """
        inventory = _inventory("driver.start(tree)", tree)
        check(self.schedule, inventory)
        read = survey(tree, frozen)
        kept = kept_of(self.schedule, read.plan.frozen - read.pinned, inventory)
        check_phases(self.schedule, inventory, kept)
        self._said = freezes_nothing(self.schedule)
        return self._enacted(begin(self.schedule).keeping(kept), tree, inventory, read.plan)

    def step(self, tree: Any, **observation: float) -> Any:
        """Returns the tree as it is frozen at the next step. Call it after each update, outside ``jit``.

        Args:
            tree: the tree after the update.
            observation: the signals of a policy as plain numbers, ``driver.step(params, loss=float(loss))``. A policy
                counts each step for which it gets them. A schedule needs none.

        Raises:
            ScheduleError: the driver has not been started; a signal is missing or not finite; or the phase has factors
                of the learning rates that were not read in this step.
            PlanMismatchError: the tree has other paths than when the driver was started.
            StructureError: it is called in compiled code.
        """
        _check_outside("driver.step(tree)", tree)
        held = self._held("driver.step(tree)")
        held.check_factors_read(self.phase)
        walk = self._walk.onward(observation)
        if walk.phase is self._walk.phase:
            self._walk, held.factors_read = walk, False
            return tree
        same_set = walk.phase.frozen == self.phase.frozen
        before = held.plan if same_set or not self._marks else survey(tree).plan
        if self._marks and walk.kept and not same_set:
            # A tree that lost its marks on the way is no thaw.
            walk = walk.keeping(walk.kept - survey(tree).thawed)
        return self._enacted(walk, tree, held.inventory, before, same_set=same_set)

    def state_dict(self) -> dict[str, object]:
        """The step, the schedule, the state of a policy and the plan, as data for JSON.

        A checkpoint consists of this, the arrays of ``strip(params)``, and those of ``tx.save(state, params)``.

        Raises:
            ScheduleError: the driver has not been started.
        """
        return self._walk.to_dict(self._held("driver.state_dict()").plan)

    def load_state_dict(self, state: object, tree: Any) -> Any:
        """Returns the tree as it was frozen when the state was saved. The driver continues from there, without `start`.

        Args:
            state: the result of `state_dict`, also after a round trip through JSON.
            tree: the tree, with or without marks.

        Raises:
            ScheduleError: it is not such a state, or it is of another schedule, or has another plan for this tree.
            PlanMismatchError: the state and the tree have different paths.
            PlanError: the plan in it cannot be read.
            StructureError: it is called in compiled code.

        Example:
            >>> from frostline.schedules import LinearProbe
            >>> params = {"body": jnp.ones(2), "head": jnp.ones(2)}
            >>> driver, other = Driver(LinearProbe(["head"], steps=2)), Driver(LinearProbe(["head"], steps=2))
            >>> saved = driver.step(driver.start(params))
            >>> again = other.load_state_dict(driver.state_dict(), params)
            >>> other.steps, plan(again) == plan(saved)
            (1, True)
        """
        inventory = _inventory("driver.load_state_dict(state, tree)", tree)
        return self._enacted(resume(self.schedule, state, inventory), tree, inventory, survey(tree).plan)

    def __repr__(self) -> str:
        return f"Driver({self.schedule!r}, step {self.steps})"

    def _enacted(
        self, walk: ScheduleCursor, tree: Any, inventory: Inventory, before: Plan, *, same_set: bool = False
    ) -> Any:
        held = _Started(inventory, walk.plan(inventory), _factors(walk.phase, inventory))
        after = tree if same_set or not self._marks else follow(tree, held.plan)
        if not same_set and (change := before.change_to(held.plan)):
            _LOG.info("%s", line(walk, change))
        if not self._said and (left := walk.phase.plan(inventory).trainable & walk.kept):
            _LOG.warning("step %d: %s", walk.step, line_of(left))
            self._said = True
        self._walk, self._started = walk, held
        return after

    def _held(self, expression: str) -> _Started:
        if self._started is None:
            problem = "is called before the driver was started with a tree."
            raise ScheduleError(expression, problem, (), "Start it first: params = driver.start(params).")
        return self._started


@dataclass
class _Started:
    """The phase of a step, applied to a tree.

    Attributes:
        inventory: the parameters of the tree.
        plan: the plan of the phase.
        factors: the factors of the learning rates.
        factors_read: whether `factors` was read in this step.
    """

    inventory: Inventory
    plan: Plan
    factors: Factors
    factors_read: bool = False

    def check_factors_read(self, phase: Phase) -> None:
        """Raises if the phase changes learning rates and its factors were not read: the run would ignore them."""
        if self.factors_read or not phase.rates:
            return
        factors = zip(self.factors.names, self.factors.values.tolist(), strict=True)
        changed = [(path, factor) for path, factor in factors if path in self.plan.trainable and factor != 1.0]
        if changed:
            numbers = f"{len(changed)} of {len(self.plan.trainable)}"
            problem = f"ends a step in which driver.factors was not read; {numbers} trainable parameters have a factor:"
            found = tuple(f"  {path}: {factor!r}" for path, factor in changed[:5])
            fix = "Apply them in each step: updates = factors.scaled(updates), with factors = driver.factors."
            raise ScheduleError("driver.step(tree)", problem, found, fix)


def _factors(phase: Phase, inventory: Inventory) -> Factors:
    """The factor for each name, including all names of tied arrays."""
    factors = phase.factors(inventory)
    return Factors.of({name: factors[param.path] for param in inventory.params for name in param.names})


def _inventory(expression: str, tree: Any) -> Inventory:
    _check_outside(expression, tree)
    return survey(tree).inventory


def _check_outside(expression: str, tree: Any) -> None:
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree)):
        problem = "is called in compiled code, where it would run only once, while the code is traced."
        raise StructureError(expression, problem, (), "Call it between the steps, outside jit.")
