"""Optimizers and drivers with a plan beside an unmarked tree."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import frostline.jax as fj
from frostline import Plan
from frostline.errors import PlanMismatchError, ScheduleError, StructureError
from frostline.schedules import FreezeOut, HiFT, LinearProbe, ULMFiT
from only_jax.bits import bits, moved
from only_jax.training.stepped import gradients, net, raw, walked

WALK = ["b", "", "a", "ab", "b"]


def adamw() -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1, weight_decay=0.1))


def planned(frozen: str) -> Plan:
    return fj.plan(net(), *frozen) if frozen else fj.plan(net())


@pytest.mark.parametrize("moments", ["release", "keep"])
def test_a_walk_of_plans_is_a_walk_of_marks(moments: Any) -> None:
    """The same bytes of parameters and moments, in one structure of the tree throughout."""
    params, state = net(), None
    for number, frozen in enumerate(WALK):
        tx = fj.optimizer(adamw(), frozen=planned(frozen), moments=moments)
        state = tx.init(params) if state is None else tx.follow(state, params)
        before = params
        updates, state = tx.update(gradients(params, number), state, params)
        params = optax.apply_updates(params, updates)
        assert moved(before, params) == set("abc") - set(frozen)
        assert type(params) is dict
    marked_tx = fj.optimizer(adamw(), moments=moments)
    marked, marked_state = walked(marked_tx, WALK)
    assert bits(params) == bits(marked)
    assert raw(tx.save(state, params)) == raw(marked_tx.save(marked_state, marked))
    assert jax.tree.structure(state) == jax.tree.structure(marked_state)


def test_a_state_of_one_form_goes_on_in_the_other() -> None:
    marked_tx = fj.optimizer(adamw())
    marked, state = walked(marked_tx, ["b", "b"])
    tx = fj.optimizer(adamw(), frozen=planned("b"))
    params = fj.strip(marked)
    assert jax.tree.structure(tx.follow(state, params)) == jax.tree.structure(state)
    assert raw(tx.save(state, params)) == raw(marked_tx.save(state, marked))
    assert jax.tree.structure(tx.load(marked_tx.save(state, marked), params)) == jax.tree.structure(state)


def test_the_plan_as_an_argument_of_a_compiled_step() -> None:
    traces = []

    @jax.jit
    def step(params: Any, state: Any, plan: Plan, number: Any) -> Any:
        traces.append(len(plan.frozen))
        tx = fj.optimizer(adamw(), frozen=plan)
        updates, state = tx.update(gradients(params, number), state, params)
        return optax.apply_updates(params, updates), state

    params, state = net(), fj.optimizer(adamw(), frozen=planned("b")).init(net())
    for number, frozen in enumerate(["b", "b", "bc", "bc", "b"]):
        state = fj.optimizer(adamw(), frozen=planned(frozen)).follow(state, params)
        params, state = step(params, state, planned(frozen), number)
    assert traces == [1, 2, 1]  # The last one has a parameter in a cohort of its own.
    assert bits(params)["b"] == bits(net())["b"]


def test_trees_that_were_made_for_the_plain_tree_fit() -> None:
    """A mask of weight decay, labels, and an average of the parameters: with a plan, and with marks."""
    decayed = jax.tree.map(lambda leaf: leaf.ndim > 1, net())
    labels = {"a": "slow", "b": "fast", "c": "fast"}
    for transformation in (
        optax.adamw(0.1, mask=decayed),
        optax.partition({"slow": optax.sgd(0.1), "fast": optax.adam(0.1)}, labels),
        optax.masked(optax.adam(0.1), decayed),
    ):
        plan = planned("c")
        for tx, params in (
            (fj.optimizer(transformation, frozen=plan), net()),
            (fj.optimizer(transformation), fj.freeze(net(), "c")),
        ):
            updates, _ = tx.update(gradients(params, 0), tx.init(params), params)
            after = optax.apply_updates(params, updates)
            assert moved(params, after) == {"a", "b"}
            averaged = optax.incremental_update(fj.strip(after), net(), 0.5)
            assert bits(averaged)["c"] == bits(net())["c"]


@pytest.mark.parametrize("form", ["plan", "marks"])
@pytest.mark.parametrize("is_compiled", [False, True], ids=["eager", "jit"])
def test_an_update_names_a_parameter_with_a_new_shape(form: str, is_compiled: bool) -> None:
    """Points that are added in a run, as for splatting: the state is of the old ones."""
    plan = planned("c")
    tx = fj.optimizer(optax.adam(0.1), frozen=plan if form == "plan" else None)
    made = [net(), {**net(), "a": jnp.ones(7)}]
    before, after = made if form == "plan" else [fj.follow(each, plan) for each in made]
    update = jax.jit(tx.update) if is_compiled else tx.update
    with pytest.raises(StructureError, match=r"\n  a/0\.mu: \(2,\), now \(7,\)\n"):
        update(jax.tree.map(jnp.ones_like, after), tx.init(before), after)


def test_labels_made_of_a_mask() -> None:
    labels = jax.tree.map(lambda moves: "t" if moves else "f", fj.mask(fj.freeze(net(), "c")))
    tx = optax.partition({"t": optax.adam(0.1), "f": optax.set_to_zero()}, labels)
    updates, _ = tx.update(gradients(net(), 0), tx.init(net()), net())
    assert moved(net(), optax.apply_updates(net(), updates)) == {"a", "b"}


@pytest.mark.parametrize("form", ["plan", "marks"])
def test_labels_made_of_a_mask_within_an_optimizer(form: str) -> None:
    """With marks, Optax's own transformations take the plain tree, or are given to `optimizer`."""
    params, plan = (fj.freeze(net(), "c"), None) if form == "marks" else (net(), planned("c"))
    labels = jax.tree.map(lambda moves: "t" if moves else "f", fj.mask(params, frozen=plan))
    masked = optax.masked(optax.add_decayed_weights(0.1), fj.mask(params, frozen=plan))
    tx = fj.optimizer(
        optax.chain(masked, optax.partition({"t": optax.adam(0.1), "f": optax.set_to_zero()}, labels)), frozen=plan
    )
    updates, _ = tx.update(jax.grad(quadratic)(params), tx.init(params), params)
    assert moved(params, optax.apply_updates(params, updates)) == {"a", "b"}


def test_labels_made_of_a_mask_of_a_list() -> None:
    layers = [{"w": jnp.ones(2)}, {"w": jnp.ones(2), "steps": 3}]
    assert fj.mask(fj.freeze(layers, "[0]")) == [{"w": False}, {"w": True, "steps": False}]
    arrays = [{"w": jnp.ones(2)}, {"w": jnp.ones(2)}]
    labels = jax.tree.map(str, fj.mask(fj.freeze(arrays, "[0]")))
    tx = optax.partition({"True": optax.sgd(0.5), "False": optax.set_to_zero()}, labels)
    updates, _ = tx.update(arrays, tx.init(arrays), arrays)
    assert jax.tree.map(jnp.sum, updates) == [{"w": 0.0}, {"w": -1.0}]


def quadratic(params: Any) -> jax.Array:
    return jnp.sum((params["a"] - 3) ** 2) + jnp.sum((params["b"] * params["c"] - 1) ** 2)


@pytest.mark.parametrize("form", ["plan", "marks"])
class TestExtraArguments:
    """Trees and functions of the parameters are those of the trainable part within the transformation."""

    @staticmethod
    def made(form: str, transformation: Any) -> tuple[Any, Any]:
        if form == "plan":
            return fj.optimizer(transformation, frozen=planned("c")), net()
        return fj.optimizer(transformation), fj.freeze(net(), "c")

    def test_a_line_search(self, form: str) -> None:
        tx, params = self.made(form, optax.lbfgs())
        state = tx.init(params)
        for _ in range(6):
            value, grad = jax.value_and_grad(quadratic)(params)
            updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=quadratic)
            params = optax.apply_updates(params, updates)
        assert bits(params)["c"] == bits(net())["c"]
        assert float(quadratic(params)) < 1e-6

    def test_sharpness_aware_minimisation(self, form: str) -> None:
        """Its function of the gradients gets and returns whole trees, as it was written for."""
        opaque = optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05), sync_period=2, opaque_mode=True)
        tx, params = self.made(form, opaque)
        asked: list[set[str]] = []

        def slopes(params: Any, _: Any) -> Any:
            asked.append(set(bits(jax.tree.map(jnp.shape, params))) | set(params))
            return jax.grad(quadratic)(params)

        updates, _ = tx.update(jax.grad(quadratic)(params), tx.init(params), params, grad_fn=slopes)
        after = optax.apply_updates(params, updates)
        assert asked[0] == {"a", "b", "c"}
        assert moved(params, after) == {"a", "b"}

    @pytest.mark.parametrize("is_opaque", [True, False], ids=["opaque", "plain"])
    def test_it_takes_the_steps_of_the_trainable_part_alone(self, form: str, is_opaque: bool) -> None:
        adversary = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
        sam = optax.contrib.sam(optax.sgd(0.1, momentum=0.9), adversary, sync_period=2, opaque_mode=is_opaque)
        tx, params = self.made(form, sam)
        trained, rest = fj.split(net(), "a", "b")
        states = tx.init(params), sam.init(trained)

        def apart(trained: Any) -> jax.Array:
            return quadratic(fj.join(trained, rest))

        for _ in range(4):
            more = [{"grad_fn": lambda p, _, f=f: jax.grad(f)(p)} if is_opaque else {} for f in (quadratic, apart)]
            updates, one = tx.update(jax.grad(quadratic)(params), states[0], params, **more[0])
            params = optax.apply_updates(params, updates)
            steps, other = sam.update(jax.grad(apart)(trained), states[1], trained, **more[1])
            trained, states = optax.apply_updates(trained, steps), (one, other)
        assert bits(params) == bits(fj.join(trained, rest))


class TestDriver:
    def test_the_tree_stays_as_it_is(self) -> None:
        driver = fj.Driver(ULMFiT(["a", "b", "c"], period=1, decay=1), marks=False)
        params = net()
        assert driver.start(params) is params
        found = [sorted(driver.plan.trainable)]
        for _ in range(2):
            assert driver.step(params) is params
            found.append(sorted(driver.plan.trainable))
        assert found == [["c"], ["b", "c"], ["a", "b", "c"]]

    def test_what_moves_is_what_a_driver_with_marks_moves(self) -> None:
        driver, marking = fj.Driver(HiFT(["a", "b", "c"]), marks=False), fj.Driver(HiFT(["a", "b", "c"]))
        params, marked = driver.start(net()), marking.start(net())
        tx, marked_tx = fj.optimizer(adamw(), frozen=driver.plan), fj.optimizer(adamw())
        state, marked_state = tx.init(params), marked_tx.init(marked)
        for number in range(4):
            updates, state = tx.update(gradients(params, number), state, params)
            params = driver.step(optax.apply_updates(params, updates))
            tx = fj.optimizer(adamw(), frozen=driver.plan)
            state = tx.follow(state, params)
            updates, marked_state = marked_tx.update(gradients(marked, number), marked_state, marked)
            marked = marking.step(optax.apply_updates(marked, updates))
            marked_state = marked_tx.follow(marked_state, marked)
            assert driver.plan == marking.plan == fj.plan(marked)
            assert bits(params) == bits(marked)
        assert raw(tx.save(state, params)) == raw(marked_tx.save(marked_state, marked))

    def test_it_resumes(self) -> None:
        driver = fj.Driver(LinearProbe(["c"], steps=3), marks=False)
        params = driver.step(driver.start(net()))
        again = fj.Driver(LinearProbe(["c"], steps=3), marks=False)
        assert again.load_state_dict(driver.state_dict(), params) is params
        assert (again.steps, again.plan) == (1, driver.plan)

    def test_what_was_frozen_beside_the_tree_stays_so(self) -> None:
        nested = {"body": net(), "head": jnp.ones(1)}
        driver = fj.Driver(LinearProbe(["head"], steps=1), marks=False)
        params = driver.step(driver.start(nested, frozen=fj.plan(nested, "body.b")))
        assert params is nested
        assert driver.plan == fj.plan(nested, "body.b")

    def test_rates_are_checked_as_with_marks(self) -> None:
        driver = fj.Driver(FreezeOut(["a", "b"], steps=8, t0=1.0, scaled=False, rest="train"), marks=False)
        for _ in range(2):
            driver.start(net())
            driver.factors  # noqa: B018
            driver.step(net())
        with pytest.raises(ScheduleError, match=r"driver\.factors was not read"):
            driver.step(net())

    def test_before_it_was_started(self) -> None:
        with pytest.raises(ScheduleError) as caught:
            _ = fj.Driver(HiFT(["a"]), marks=False).plan
        assert str(caught.value) == (
            "driver.plan is called before the driver was started with a tree.\n"
            "Start it first: params = driver.start(params)."
        )


def test_the_cost_and_the_report_of_a_run() -> None:
    plan, marked = planned("b"), fj.freeze(net(), "b")
    tx = fj.optimizer(optax.adam(0.1), frozen=plan)
    beside = fj.cost(quadratic, net(), tx=tx, frozen=plan)
    assert beside == fj.cost(quadratic, marked, tx=fj.optimizer(optax.adam(0.1)))
    assert (beside.now.optimizer_bytes, beside.all_trained.optimizer_bytes) == (24, 40)
    assert str(fj.report(net(), tx.init(net()), frozen=plan)) == str(fj.report(marked, tx.init(net())))


def test_a_tied_tree() -> None:
    """The tie is in the structure of the tree, the plan beside it; the array moves once, under both names."""
    shared = jnp.ones((2, 2))
    tied = fj.tie({"embed": shared, "out": shared, "c": jnp.ones((2, 2))})
    tx = fj.optimizer(adamw(), frozen=fj.plan(tied, "c"))
    state = tx.init(tied)
    assert state.cohorts == (("embed",),)
    for slopes in (jax.grad, lambda loss: fj.grad(loss, frozen=fj.plan(tied, "c"))):
        grads = slopes(lambda t: (t["embed"] @ t["out"] @ t["c"]).sum())(tied)
        updates, _ = tx.update(grads, state, tied)
        trained, rest = fj.split(tied, frozen=fj.plan(tied, "c"))
        after = fj.join(optax.apply_updates(trained, updates), rest)
        assert moved(tied, after) == {"embed", "out"}
        assert after["embed"] is after["out"]


def test_the_plan_of_another_tree() -> None:
    with pytest.raises(PlanMismatchError):
        fj.optimizer(adamw(), frozen=planned("b")).init({"a": jnp.ones(1)})
