"""An optimizer that knows what is frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast, final

import jax
import optax

from frostline._core.errors import NothingTrainableError, StructureError, UnsupportedError
from frostline._core.rules import Rule
from frostline.jax._arrays import described
from frostline.jax._freezing.survey import survey
from frostline.jax._training.cohorts import OptimizerState, arranged, check_apart, moved, stepped, taken_apart
from frostline.jax._training.moments import Chart, charts
from frostline.jax._training.named_state import LOAD, SAVE, loaded, saved
from frostline.jax._training.rates import rates, scaled
from frostline.jax._training.shelf import Moments, check_moments
from frostline.jax._training.updates import UPDATE, Places, places


@final
class Optimizer(optax.GradientTransformationExtraArgs):
    """What :func:`optimizer` returns: a transformation of Optax, whose state is saved and loaded by name."""

    def save(self, state: OptimizerState, params: Any) -> dict[str, Any]:
        """The state by name, as arrays alone: any file of arrays can hold it.

        ``"body.w/0.mu"`` is the array at ``state.inner[0].mu`` of the parameter body.w, ``"body.w/0.count"`` the count
        of its steps, ``"/1.count"`` a number of the run. ``"body.w/cohort"`` says with which others it is counted; -1
        that nothing is kept of it, as it is frozen.

        Args:
            state: the state. What is on its shelf is saved, too.
            params: the tree that is optimized, whatever is frozen in it.

        Returns:
            The arrays of the state, not copies: write them before an update that donates the state.

        Raises:
            StructureError: it is no state of ``optimizer(tx)``.
            BindError: the state is of other parameters.
            UnsupportedError: `tx` keeps one array for all parameters.

        Example:
            >>> params = freeze({"w": jnp.ones(2), "b": jnp.zeros(2)}, "w")
            >>> tx = optimizer(optax.sgd(0.1, momentum=0.9))
            >>> sorted(tx.save(tx.init(params), params))
            ['b/0.trace', 'b/cohort', 'w/cohort']
        """
        _check_state(SAVE, state)
        chart = self._follower.chart_of(places(params), params)
        check_apart(chart, SAVE, "is to save by name")
        return saved(taken_apart(state, chart), chart)

    def load(self, saved: Mapping[str, Any], params: Any) -> OptimizerState:
        """The state that was saved by name, whatever was frozen then and is frozen now; outside of ``jit``.

        What trains now has its moments and counts from then, or begins anew if none were kept. Those of what is frozen
        now are kept, moved or dropped, as the optimizer does.

        Args:
            saved: what ``save`` made, of an optimizer of the same transformation; its arrays are copied.
            params: the tree to optimize.

        Raises:
            BindError: it is no such state, or it is of other parameters, another transformation or other shapes.
            UnsupportedError: `tx` keeps one array for all parameters.

        Example:
            >>> params = {"w": jnp.ones(2), "b": jnp.zeros(2)}
            >>> tx = optimizer(optax.adam(0.1))
            >>> frozen = freeze(params, "b")
            >>> state = tx.load(tx.save(tx.init(frozen), frozen), freeze(params, "w"))
            >>> state.cohorts
            (('b',),)
        """
        return self._follower.loaded(saved, params)

    def follow(self, state: OptimizerState, params: Any) -> OptimizerState:
        """The state for what trains now, as the next ``update`` would make it; the same one, if nothing has changed.

        Called outside of ``jit`` after each change of what is frozen, it spares compiled steps one of two traces. A run
        that is loaded then goes on with the very programs of the one that was saved, and so with its bits: where
        ``update`` makes the state anew within ``jit``, that step is another program than the one of a loaded state.

        Args:
            state: the state.
            params: the tree that is optimized, as it is frozen now.

        Raises:
            StructureError: it is no state of ``optimizer(tx)``.
            UnsupportedError: what trains has changed, and `tx` keeps one array for all parameters.

        Example:
            >>> params = {"w": jnp.ones(2), "b": jnp.zeros(2)}
            >>> tx = optimizer(optax.adam(0.1))
            >>> tx.follow(tx.init(params), freeze(params, "w")).cohorts
            (('b',),)
        """
        _check_state("tx.follow(state, params)", state)
        return self._follower.follow(state, places(params), params)

    @property
    def _follower(self) -> _Follower:
        # Copies of a named tuple are made of its fields alone.
        return cast(Any, self.init).__self__


def optimizer(
    tx: optax.GradientTransformation, *, rules: Sequence[Rule] = (), moments: Moments = "release"
) -> Optimizer:
    """The transformation, for a tree in which some is frozen: what is frozen never reaches `tx`.

    So whatever `tx` does, frozen arrays keep their bytes and have no state, and the norm that clipping sees is that of
    what trains. The gradients may be those of ``value_and_grad``, with None where frozen, or those of
    ``jax.value_and_grad`` over the whole tree, with any numbers where frozen.

    The frozen set may change between two updates. What is frozen loses its state, or has it kept. What is thawed for
    the first time starts as if with a fresh optimizer: it is a cohort with a count of its own, for in the count of the
    others Adam would move it at up to five times the learning rate. What was frozen and has its state back goes on
    where it stopped, in a cohort of its own, too: its count has stood still. The others keep their moments to the bit.
    Schedules, injected hyperparameters and the global norm stay those of the run. Marks are part of the structure of
    the tree, so under ``jit`` the first update after a change and the updates that follow it are a trace each; coming
    back to a set and its cohorts is none.

    The updates have the shape of the gradients. Where frozen and not None, they leave the bytes as they are in
    ``optax.apply_updates(params, updates)``. Equinox maps over the updates, and wants None there:
    ``eqx.apply_updates(params, updates)`` is for gradients of ``value_and_grad``; Optax wants no None, so for these
    use ``join(optax.apply_updates(split(params)[0], updates), split(params)[1])`` where Equinox is not at hand.

    Masks and labels, as of ``optax.masked``, are best functions of the tree; it has None where frozen. Further
    arguments of ``update`` are handed on. An array under several names is one only where ``freeze`` or ``thaw`` has
    noted it, outside of ``jit``.

    Args:
        tx: any transformation of Optax, ``optax.MultiSteps`` too.
        rules: factors of the learning rate by selector, ``Rule("encoder", lr_scale=0.1)``; `layerwise` makes the ones
            of layer-wise decay. Of two rules the later one decides. They scale the updates of `tx`, so clipping and
            schedules inside are those of the run, and they hold for what thaws later, too. What else differs from
            parameter to parameter is said inside of `tx`, by masks and labels.
        moments: what happens to the state of what is frozen. ``"release"``: it is gone, and AdamW holds exactly 8
            bytes for each trainable float32 value, beside its counts. ``"keep"``: it stays, on the shelf of the state,
            and is there again when it thaws, bit for bit, with its counts. ``"cpu"``: the same, in the main memory:
            arrays of JAX of the memory kind ``pinned_host``, also under ``jit``. Where JAX runs on the processor they
            are there already, and it is ``"keep"``.

    Returns:
        A transformation of Optax. ``init(params)`` makes an `OptimizerState`, in which `inner` is the state of `tx`;
        ``update(grads, state, params)`` needs `params`, which hold the marks. It also has ``save(state, params)`` and
        ``load(saved, params)``, by name.

    Raises:
        UnsupportedError: `tx` is no transformation.
        BindError: a rule has another option than `lr_scale`, or `moments` is none of the three.
        NoMatchError, SelectorError, TiedError: in ``init`` and ``update``: as in :func:`freeze`, for `rules`.
        NothingTrainableError: in ``init``: the tree has nothing to train.
        StructureError: in ``update``: the gradients are not those of the parameters, the parameters are left out, or
            the state is of another transformation.
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
    follower = _Follower(_checked(tx), rules, moments)
    return Optimizer(follower.init, follower.update)


@final
class _Follower:
    """The two functions of the transformation, and what is known of `tx`."""

    def __init__(self, tx: optax.GradientTransformation, rules: Sequence[Rule], moments: Moments) -> None:
        self._tx, self._moments = optax.with_extra_args_support(tx), moments
        self._charts, self._rates = charts(self._tx.init), rates(rules)

    def init(self, params: Any) -> OptimizerState:
        held = places(params)
        _check_trainable(held, params)
        self._rates(params)
        return OptimizerState(self._tx.init(held.trained(params)), (), (held.trained_names,))

    def update(self, grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, OptimizerState]:
        _check_arguments(state, params)
        held = places(params)
        trained, gradients = held.trained(params), held.checked(grads, params)
        state = self.follow(state, held, params)

        def run(before: Any) -> tuple[Any, Any]:
            return self._tx.update(gradients, before, trained, **extra)

        if len(state.cohorts) > 1:
            updates, state = stepped(run, state, self.chart_of(held, params).entries, held.trained_names)
        else:
            updates, after = run(state.inner)
            state = replace(state, inner=after)
        return held.updates(scaled(updates, held.trained_names, self._rates(params)), grads), state

    def follow(self, state: OptimizerState, held: Places, params: Any) -> OptimizerState:
        """The state for what trains now."""
        chart = self.chart_of(held, params)
        if state.names == held.trainable and jax.tree.structure(state.inner) == chart.structure:
            return state
        return moved(state, self._tx.init(held.trained(params)), chart, held.trained_names, self._moments)

    def loaded(self, state: Mapping[str, Any], params: Any) -> OptimizerState:
        held = places(params)
        chart, trained = self.chart_of(held, params), held.trained(params)
        check_apart(chart, LOAD, "is to load by name")
        arrays = dict(zip(held.names, jax.tree.leaves(held.all(params)), strict=True))
        parts = loaded(state, chart, arrays)
        return arranged(parts, self._tx.init(trained), chart, held.trained_names, self._moments)

    def chart_of(self, held: Places, params: Any) -> Chart:
        """What `tx` keeps for a tree."""
        return self._charts(held.all(params), held.names, held.trainable)


def _checked(tx: Any) -> optax.GradientTransformation:
    if isinstance(tx, optax.MultiSteps):
        # Its own gradient_transformation() would lose further arguments.
        return optax.GradientTransformationExtraArgs(tx.init, tx.update)
    if isinstance(tx, optax.GradientTransformation):
        return tx
    name = getattr(tx, "__name__", "tx")
    raise UnsupportedError(
        f"optimizer({name})",
        f"is handed {described(tx)}, and takes a transformation of Optax.",
        f"Call it first: optimizer(optax.{name}(1e-3))."
        if callable(tx)
        else "For example: optimizer(optax.adamw(1e-3)).",
    )


def _check_trainable(held: Places, params: Any) -> None:
    if not held.trainable:
        read = survey(params)
        expression = "optimizer(tx).init(params)"
        raise NothingTrainableError(expression, len(read.places), len(read.pinned), len(read.leaves))


def _check_arguments(state: Any, params: Any) -> None:
    if params is None:
        problem = "got no parameters, and they say what is frozen."
        fix = "Hand them over: updates, state = tx.update(grads, state, params)."
        raise StructureError(UPDATE.replace(", params", ""), problem, (), fix)
    _check_state(UPDATE, state)


def _check_state(expression: str, state: Any) -> None:
    if not isinstance(state, OptimizerState):
        problem = f"got {described(state)} for a state, and it is none of optimizer(tx)."
        fix = "Make it with the same transformation: state = optimizer(tx).init(params)."
        raise StructureError(expression, problem, (), fix)
