"""An optimizer that follows what is frozen: the marks of a tree, or a plan beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, cast, final

import jax
import optax

from frostline._core.plan import Plan
from frostline._core.rules import Rule
from frostline.jax._training.arguments import (
    FOLLOW,
    check_arguments,
    check_is_tree,
    check_marks,
    check_shapes,
    check_state,
    check_trainable,
    transformation,
)
from frostline.jax._training.cohorts import (
    Moments,
    OptimizerState,
    arranged,
    check_moments,
    check_separate,
    divided_state,
    moved,
    stepped,
)
from frostline.jax._training.flax_state import register_state
from frostline.jax._training.moments import StateLayout, state_layouts
from frostline.jax._training.named_state import LOAD, SAVE, loaded, saved, were_frozen
from frostline.jax._training.rates import rates, scaled
from frostline.jax._training.updates import UPDATE, ParamPlaces, places


@final
class Optimizer(optax.GradientTransformationExtraArgs):
    """The result of :func:`optimizer`: an Optax transformation whose state is saved and loaded by name."""

    def save(self, state: OptimizerState, params: Any) -> dict[str, Any]:
        """Returns the state as a dict of arrays by name, which any file of arrays can hold.

        ``"body.w/0.mu"`` is the array at ``state.inner[0].mu`` for the parameter body.w, ``"body.w/0.count"`` the count
        of its steps, and ``"/1.count"`` a number of the run. ``"body.w/cohort"`` is the number of its cohort; below 0
        the parameter is frozen, and -1 means that nothing is kept for it.

        Args:
            state: the state. Parked moments are saved, too.
            params: the tree that is optimized, whatever is frozen in it.

        Returns:
            The arrays of the state, not copies. Write them before an update that donates the state.

        Raises:
            StructureError: it is not a state of ``optimizer(tx)``.
            BindError: the state is of other parameters.
            UnsupportedError: `tx` keeps one array for all parameters.

        Example:
            >>> params = freeze({"w": jnp.ones(2), "b": jnp.zeros(2)}, "w")
            >>> tx = optimizer(optax.sgd(0.1, momentum=0.9))
            >>> sorted(tx.save(tx.init(params), params))
            ['b/0.trace', 'b/cohort', 'w/cohort']
        """
        check_state(SAVE, state)
        layout = self._follower.layout_of(self._follower.places(params), params)
        check_separate(layout, SAVE, "cannot save by name")
        return saved(divided_state(state, layout), layout)

    def load(self, saved: Mapping[str, Any], params: Any) -> OptimizerState:
        """Loads a state that was saved by name, whatever was frozen then and is frozen now. Call it outside ``jit``.

        A parameter that trains now has its saved moments and counts, or starts with fresh ones if none were saved. The
        moments of frozen parameters are kept, moved or dropped, as `moments` says.

        Args:
            saved: the result of ``save``, of an optimizer with the same transformation; its arrays are copied.
            params: the tree to optimize.

        Raises:
            BindError: it is not such a state, or it is of other parameters, another transformation or other shapes.
            StructureError: what was frozen then trains now, but no ``thaw`` has said so: the tree lost its marks.
            UnsupportedError: `tx` keeps one array for all parameters.

        Example:
            >>> params = {"w": jnp.ones(2), "b": jnp.zeros(2)}
            >>> tx = optimizer(optax.adam(0.1))
            >>> frozen = freeze(params, "b")
            >>> state = tx.load(tx.save(tx.init(frozen), frozen), freeze(thaw(frozen), "w"))
            >>> state.cohorts
            (('b',),)
        """
        return self._follower.loaded(saved, params)

    def follow(self, state: OptimizerState, params: Any) -> OptimizerState:
        """Returns the state for the present frozen set, as the next ``update`` would make it.

        Called outside ``jit`` after each change of the frozen set, it saves compiled steps one of two traces. It also
        makes a resumed run bitwise equal, because both runs then use the same compiled programs: a step in which
        ``update`` changes the state inside ``jit`` is another program than a step with a loaded state.

        Args:
            state: the state.
            params: the tree that is optimized, as it is frozen now.

        Raises:
            StructureError: it is not a state of ``optimizer(tx)``; or the tree has lost its marks on the way.
            UnsupportedError: the trainable set has changed, and `tx` keeps one array for all parameters.

        Example:
            >>> params = {"w": jnp.ones(2), "b": jnp.zeros(2)}
            >>> tx = optimizer(optax.adam(0.1))
            >>> tx.follow(tx.init(params), freeze(params, "w")).cohorts
            (('b',),)
        """
        check_state(FOLLOW, state)
        held = self._follower.places(params)
        check_marks(FOLLOW, state.plan.frozen, held, "state.plan")
        return self._follower.follow(state, held, params)

    def beside(self, plan: Plan | None) -> Optimizer:
        """Returns the same optimizer with another plan beside the tree; with None, marks say what is frozen.

        Args:
            plan: the plan.

        Example:
            >>> tx, params = optimizer(optax.adam(0.1)), {"w": jnp.ones(2), "b": jnp.zeros(2)}
            >>> tx.beside(plan(params, "w")).init(params).cohorts
            (('b',),)
        """
        follower = copy(self._follower)
        follower.frozen = plan
        return Optimizer(follower.init, follower.update)

    @property
    def wrapped(self) -> optax.GradientTransformation:
        """The transformation that it wraps."""
        return self._follower.tx

    @property
    def _follower(self) -> _Follower:
        # A copy of a named tuple has only its fields.
        return cast(Any, self.init).__self__


def optimizer(
    tx: optax.GradientTransformation,
    *,
    frozen: Plan | None = None,
    rules: Sequence[Rule] = (),
    moments: Moments = "release",
) -> Optimizer:
    """Wraps a transformation for a tree with frozen arrays, which never reach `tx`.

    Whatever `tx` does, frozen arrays keep their bytes and have no state, and clipping sees the norm of the trainable
    part alone. The gradients may be those of ``value_and_grad``, with None at frozen leaves, or those of
    ``jax.value_and_grad`` over the whole tree, with any numbers there.

    The frozen set may change between two updates. A parameter that is frozen loses its state, or has it parked. One
    that thaws for the first time starts as with a fresh optimizer, in a cohort with a step count of its own: in the
    count of the others, Adam would move it at up to five times the learning rate. One that thaws with parked state
    continues where it stopped, also in a cohort of its own, because its count did not advance. All others keep their
    moments bitwise. Schedules, injected hyperparameters and the global norm are those of the run. Marks are part of the
    structure of the tree. So under ``jit`` the first update after a change is one trace, and the following updates are
    another; a frozen set that comes back needs no new trace.

    The updates have the shape of the gradients. At frozen leaves that are not None they leave the bytes unchanged in
    ``optax.apply_updates(params, updates)``. For a tree with modules of Equinox they are None there, as
    ``eqx.apply_updates(params, updates)`` needs it, also with the gradients of ``eqx.filter_grad``. Optax accepts no
    None; for gradients with None use ``join(optax.apply_updates(split(params)[0], updates), split(params)[1])``.

    `tx` gets the plain tree with None at frozen leaves. So masks and labels may be trees that were made before
    freezing, or functions of the tree. Extra arguments of ``update`` are passed on: a tree of the shape of the
    parameters as its trainable part, a function of the parameters as one of the trainable part. Two names of an array
    are one parameter only if :func:`tie` has said so.

    Args:
        tx: any Optax transformation, including ``optax.MultiSteps``.
        frozen: a plan beside an unmarked tree, ``plan(params, "encoder")``. Without it the marks of the tree say what
            is frozen. When the plan changes, make the transformation again and keep the state:
            ``optimizer(tx, frozen=other).follow(state, params)``.
        rules: factors of the learning rate by selector, ``Rule("encoder", lr_scale=0.1)``; `layerwise` makes the ones
            of layer-wise decay. The last rule that matches decides. Rules scale the updates of `tx`, so clipping and
            schedules inside `tx` are those of the run. They also hold for parameters that thaw later. Set all other
            options for each parameter inside `tx`, by masks and labels.
        moments: the fate of the state of frozen parameters. ``"release"`` drops it: AdamW then holds exactly 8 bytes
            for each trainable float32 value, beside its counts. ``"keep"`` parks it in the state until the parameter
            thaws, bitwise and with its counts. ``"cpu"`` parks it in main memory: as JAX arrays of the memory kind
            ``pinned_host``, also under ``jit``. Where JAX runs on the CPU this is the same as ``"keep"``.

    Returns:
        An Optax transformation. ``init(params)`` makes an `OptimizerState` in which `inner` is the state of `tx`.
        ``update(grads, state, params)`` needs `params`, also with a plan. ``save(state, params)`` and
        ``load(saved, params)`` save and load by name.

    Raises:
        UnsupportedError: `tx` is not a transformation.
        BindError: a rule has an option other than `lr_scale`, or `moments` is not one of the three words.
        NoMatchError, SelectorError, TiedError: in ``init`` and ``update``: as in :func:`freeze`, for `rules`.
        NothingTrainableError: in ``init``: the tree has nothing to train.
        StructureError: in ``update``: the gradients do not fit the parameters, the parameters are missing, the state
            is of another transformation, or what was frozen trains although no ``thaw`` has said so: the tree lost its
            marks on the way.
        UnsupportedError: in ``update``: the frozen set has changed, and `tx` keeps one array for all parameters.
        SamePathError: two leaves of the tree have one name.

    Source:
        https://github.com/google-deepmind/optax/issues/159,
        https://github.com/google-deepmind/optax/issues/290

    Example:
        >>> params = freeze({"w": jnp.ones(2), "b": jnp.zeros(2)}, "w")
        >>> tx = optimizer(optax.adamw(0.1))
        >>> state = tx.init(params)
        >>> grads = jax.grad(lambda p, x: (p["w"] * x + p["b"]).sum())(params, 2.0)
        >>> updates, state = tx.update(grads, state, params)
        >>> params = optax.apply_updates(params, updates)
        >>> params["w"], params["b"].round(3)
        (Array([1., 1.], dtype=float32), Array([-0.1, -0.1], dtype=float32))
    """
    check_moments(moments)
    follower = _Follower(transformation(tx), frozen, rules, moments)
    return Optimizer(follower.init, follower.update)


@final
class _Follower:
    """The two functions of the transformation, with the cached state_layouts and rates of `tx`."""

    def __init__(
        self, tx: optax.GradientTransformation, frozen: Plan | None, rules: Sequence[Rule], moments: Moments
    ) -> None:
        self.tx, self.frozen, self._moments = optax.with_extra_args_support(tx), frozen, moments
        self._layouts, self._rates = state_layouts(self.tx.init), rates(rules)

    def places(self, params: Any) -> ParamPlaces:
        """The places of the parameters of a tree."""
        return places(params, self.frozen)

    def init(self, params: Any) -> OptimizerState:
        check_is_tree(params)
        register_state()
        held = self.places(params)
        check_trainable(held, params)
        self._rates(params)
        inner = self.tx.init(held.trained(params))
        self.layout_of(held, params).note(inner)
        return OptimizerState(inner, (), (held.trained_names,), held.plan)

    def update(self, grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, OptimizerState]:
        check_arguments(state, params)
        held = self.places(params)
        check_marks(UPDATE, state.plan.frozen, held, "state.plan")
        trained, gradients = held.trained(params), held.checked(grads, params)
        state = self.follow(state, held, params)
        extra = {name: held.fitted(argument, params) for name, argument in extra.items()}

        def run(before: Any) -> tuple[Any, Any]:
            return self.tx.update(gradients, before, trained, **extra)

        if len(state.cohorts) > 1:
            updates, state = stepped(run, state, self.layout_of(held, params).arrays, held.trained_names)
        else:
            updates, after = run(state.inner)
            state = replace(state, inner=after)
        return held.updates(scaled(updates, held.trained_names, self._rates(params)), grads), state

    def follow(self, state: OptimizerState, held: ParamPlaces, params: Any) -> OptimizerState:
        """The state for the present trainable set."""
        layout = self.layout_of(held, params)
        if state.names == held.trainable and jax.tree.structure(state.inner) == layout.structure:
            check_shapes(state, layout)
            return state if state.plan == held.plan else replace(state, plan=held.plan)
        fresh = self.tx.init(held.trained(params))
        layout.note(fresh)
        return moved(state, fresh, layout, held.trained_names, held.plan, self._moments)

    def loaded(self, state: Mapping[str, Any], params: Any) -> OptimizerState:
        held = self.places(params)
        layout, trained = self.layout_of(held, params), held.trained(params)
        check_separate(layout, LOAD, "cannot load by name")
        arrays = dict(zip(held.names, jax.tree.leaves(held.all(params)), strict=True))
        parts = loaded(state, layout, arrays)
        check_marks(LOAD, were_frozen(state, layout), held, "plan")
        return arranged(parts, self.tx.init(trained), layout, held.trained_names, held.plan, self._moments)

    def layout_of(self, held: ParamPlaces, params: Any) -> StateLayout:
        """The layout of the state that `tx` keeps for a tree."""
        return self._layouts(held.all(params), held.names, held.trainable)
