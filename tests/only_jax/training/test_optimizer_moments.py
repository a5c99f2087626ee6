"""Moments of frozen parameters: kept, parked or released; parked moments return bitwise."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import frostline.jax as fj
from frostline.errors import BindError
from frostline.jax._training.moments import state_bytes
from frostline.jax._training.optimizer import optimizer
from only_jax.bits import bits
from only_jax.training.stepped import follow, gradients, kept_of, net, raw, step, walked

RATE = 0.1


def labelled(params: Any) -> Any:
    return jax.tree.map(lambda leaf: "vector" if leaf.ndim == 1 else "matrix", params)


KINDS: dict[str, Callable[[], Any]] = {
    "adamw": lambda: optax.adamw(RATE, weight_decay=0.0),
    "amsgrad": lambda: optax.amsgrad(RATE),
    "momentum": lambda: optax.sgd(RATE, momentum=0.9),
    "adafactor": lambda: optax.adafactor(RATE, multiply_by_parameter_scale=False, momentum=0.9),
    "injected": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=RATE),
    "only if finite": lambda: optax.apply_if_finite(optax.adam(RATE), 3),
    "accumulation": lambda: optax.MultiSteps(optax.adam(RATE), 2),
    "partitioned": lambda: optax.partition({"vector": optax.sgd(RATE, 0.9), "matrix": optax.adam(RATE)}, labelled),
}
each = pytest.mark.parametrize("name", KINDS)
both = pytest.mark.parametrize("kept", ["keep", "cpu"])


def of_b(tree: Any) -> bytes:
    return bits(tree)["b"]


def alike(ours: Any, alone: Any, sets: list[str]) -> list[bool]:
    """For each step of b, whether its update is that of plain Optax on b alone, which sees only these steps."""
    params, lone, same = follow(net(), sets[0]), {"b": net()["b"]}, []
    state, lone_state = ours.init(params), alone.init(lone)
    # The rounding of XLA depends on the operations that it compiles together.
    with jax.disable_jit():
        for number, frozen in enumerate(sets):
            params = follow(params, frozen)
            grads = gradients(params, number)
            updates, state = ours.update(grads, state, params)
            if "b" not in frozen:
                theirs, lone_state = alone.update({"b": fj.strip(grads)["b"]}, lone_state, lone)
                same.append(of_b(updates) == of_b(theirs))
    return same


class TestKept:
    @each
    @both
    def test_a_thawed_parameter_continues_as_if_it_had_never_been_frozen(self, name: str, kept: Any) -> None:
        sets = ["", "", "", "b", "b", "", "", "b", "ab", "a", ""]
        assert alike(optimizer(KINDS[name](), moments=kept), KINDS[name](), sets) == [True] * 7

    @each
    def test_a_parameter_with_released_moments_starts_again(self, name: str) -> None:
        """Negative control: the same run without keeping moments."""
        assert alike(optimizer(KINDS[name]()), KINDS[name](), ["", "", "", "b", ""]) == [True, True, True, False]

    @both
    @pytest.mark.parametrize("under", [jax.jit, lambda update: update], ids=["jit", "eager"])
    def test_parked_moments_do_not_change(self, kept: Any, under: Callable[[Any], Any]) -> None:
        tx = optimizer(optax.adamw(RATE), moments=kept)
        update = under(tx.update)
        params, state = walked(tx, ["", ""])
        before = kept_of(tx.save(state, params), "b")
        frozen = follow(params, "b")
        for number in range(2, 5):
            updates, state = update(gradients(frozen, number), state, frozen)
            frozen = optax.apply_updates(frozen, updates)
            assert kept_of(tx.save(state, frozen), "b") == before
        assert list(before) == ["b/0.mu", "b/0.nu", "b/0.count"]
        assert [cohort.moments.keys() for cohort in state.parked] == [{"b"}]
        assert int(state.parked[0].counts["[0].count"]) == 2

    def test_the_moments_of_the_others_do_not_change(self) -> None:
        sets = ["", "b", "b", "", "b", ""]
        kept, state = walked(optimizer(optax.adamw(RATE), moments="keep"), sets)
        released, other = walked(optimizer(optax.adamw(RATE)), sets)
        never, lone = walked(optimizer(optax.adamw(RATE)), ["b"] * 6)
        for one, its in ((kept, state), (released, other)):
            assert {name: bits(one)[name] for name in "ac"} == {name: bits(never)[name] for name in "ac"}
            for moment in ("mu", "nu"):
                ours, theirs = getattr(its.inner[0], moment), getattr(lone.inner[0], moment)
                assert {name: bits(ours)[name] for name in "ac"} == bits(theirs)

    def test_counts_of_cohorts_that_start_and_end(self) -> None:
        tx = optimizer(optax.adam(RATE), moments="keep")
        update, seen = jax.jit(tx.update), []
        params = follow(net(), "bc")
        state = tx.init(params)
        for number, frozen in enumerate(["bc", "c", "", "ab", "abc", "", "bc", "a", ""]):
            params = follow(params, frozen)
            updates, state = update(gradients(params, number), state, params)
            params = optax.apply_updates(params, updates)
            live = [int(state.inner[0].count), *(int(counts["[0].count"]) for counts in state.counts)]
            parked = [(*cohort.moments, int(cohort.counts["[0].count"])) for cohort in state.parked]
            seen.append((["".join(cohort) for cohort in state.cohorts], live, parked))
        assert seen == [
            (["a"], [1], []),
            (["a", "b"], [2, 1], []),
            (["a", "b", "c"], [3, 2, 1], []),
            (["c"], [2], [("a", 3), ("b", 2)]),
            # Nothing trains, so no count continues.
            ([], [3], [("a", 3), ("b", 2), ("c", 2)]),
            (["a", "b", "c"], [4, 3, 3], []),
            (["a"], [5], [("b", 3), ("c", 3)]),
            (["b", "c"], [4, 4], [("a", 5)]),
            (["b", "c", "a"], [5, 5, 6], []),
        ]

    def test_parameters_frozen_together_thaw_together_or_separately(self) -> None:
        tx = optimizer(optax.adam(RATE), moments="keep")
        params, state = walked(tx, ["", "bc"])
        _, together = walked(tx, [""], params, state, 2)
        _, separate = walked(tx, ["c", ""], params, state, 2)
        assert (together.cohorts, separate.cohorts) == ((("a",), ("b", "c")), (("a",), ("b",), ("c",)))

    def test_without_counts_there_is_one_cohort(self) -> None:
        tx = optimizer(optax.sgd(RATE, momentum=0.9), moments="keep")
        params, state = walked(tx, ["", "b", "bc", "abc"])
        assert [sorted(cohort.moments) for cohort in state.parked] == [["a", "b", "c"]]
        _, state = walked(tx, [""], params, state, 4)
        assert (state.cohorts, state.counts, state.parked) == ((("a", "b", "c"),), (), ())

    def test_schedules_stay_on_the_step_of_the_run(self) -> None:
        tx = optimizer(optax.adam(optax.linear_schedule(1.0, 0.0, 8)), moments="keep")
        params, state = walked(tx, ["", "b", "b", "b"])
        updates, state = tx.update(jax.tree.map(jnp.ones_like, fj.thaw(params)), state, fj.thaw(params))
        assert int(state.inner[1].count) == 5
        # One count of Adam for those that went on, one for b.
        assert [int(state.inner[0].count), int(state.counts[0]["[0].count"])] == [5, 2]
        assert 0.4 < -float(updates["b"][0, 0]) < 0.5

    def test_in_a_scan_and_an_ensemble(self) -> None:
        tx = optimizer(optax.adam(RATE), moments="keep")

        def trained(params: Any) -> Any:
            state = tx.init(params)
            params, state = step(tx, params, state, 0)
            params, state = step(tx, fj.freeze(params, "b"), state, 1)

            def body(carry: Any, number: Any) -> Any:
                return step(tx, *carry, number), None

            (params, state), _ = jax.lax.scan(body, (params, state), jnp.arange(2, 5))
            return step(tx, fj.thaw(params), state, 5)

        both_of_them = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), net())
        _, state = jax.jit(jax.vmap(trained))(both_of_them)
        assert state.counts[0]["[0].count"].tolist() == [2, 2]
        assert state.inner[0].count.tolist() == [6, 6]

    def test_traces(self) -> None:
        """A change needs one trace and the steps after it another; a return with all cohorts needs none."""
        tx = optimizer(optax.adam(RATE), moments="keep")
        traces = []

        @jax.jit
        def one_step(params: Any, state: Any) -> Any:
            traces.append(state.cohorts)
            return step(tx, params, state, 0)

        counted, params = [], follow(net(), "bc")
        state = tx.init(params)
        for frozen in ["bc", "ac", "ab"] * 3:
            params = follow(params, frozen)
            for _ in range(3):
                params, state = one_step(params, state)
            counted.append(len(traces))
        assert counted == [1, 3, 5, 7, 9, 10, 10, 10, 10]

    def test_the_state_can_be_donated(self) -> None:
        """No buffer occurs twice, although parameters that freeze or thaw separately have equal counts."""
        tx = optimizer(optax.adam(RATE), moments="keep")
        update = jax.jit(tx.update, donate_argnums=1)
        params, state = walked(tx, ["", "bc"])
        state = tx.load(tx.save(state, params), follow(params, "b"))
        for number, frozen in enumerate(["b", "bc", "c", "ac"]):
            params = follow(params, frozen)
            state = tx.follow(state, params)
            _, state = update(gradients(params, number), state, params)
        assert [int(cohort.counts["[0].count"]) for cohort in state.parked] == [5, 2]


class TestBytes:
    def test_eight_bytes_a_trainable_value_after_any_sequence_of_freezes(self) -> None:
        tx = optimizer(optax.adamw(RATE))
        bytes_of, dice = {"a": 16, "b": 16, "c": 8}, random.Random(0)
        params = net()
        state = tx.init(params)
        for number in range(12):
            frozen = "".join(name for name in "abc" if dice.random() < 0.4)
            params, state = step(tx, follow(params, frozen), state, number)
            counts = 4 * max(1, len(state.cohorts))
            held = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) - counts
            assert held == sum(size for name, size in bytes_of.items() if name not in frozen)
            assert state.parked == ()

    @both
    def test_kept_moments_need_more_bytes(self, kept: Any) -> None:
        """Negative control, with the numbers of a report."""
        tx = optimizer(optax.adamw(RATE), moments=kept)
        params, state = walked(tx, ["", "b"])
        # 40 bytes of moments, and the count of each cohort.
        assert sum(leaf.nbytes for leaf in jax.tree.leaves(state)) == 48
        assert state_bytes(state, params) == {"a": 16, "b": 16, "c": 8}
        released = walked(optimizer(optax.adamw(RATE)), ["", "b"])[1]
        assert sum(leaf.nbytes for leaf in jax.tree.leaves(released)) == 28
        assert state_bytes(released, params) == {"a": 16, "b": 0, "c": 8}

    def test_a_parameter_that_never_trained_has_no_moments(self) -> None:
        tx = optimizer(optax.adamw(RATE), moments="keep")
        params, state = walked(tx, ["b", "b"])
        assert state_bytes(state, params) == {"a": 16, "b": 0, "c": 8}
        assert state.parked == ()

    def test_the_moments_of_a_removed_parameter_are_removed(self) -> None:
        tx = optimizer(optax.adamw(RATE), moments="keep")
        params, state = walked(tx, ["", "bc"])
        rest = fj.thaw({name: fj.strip(params)[name] for name in "ab"})
        _, state = tx.update(rest, state, rest)
        assert (state.cohorts, state.parked) == ((("a",), ("b",)), ())


class TestMainMemory:
    """On a CPU all arrays are in main memory; here JAX is told otherwise."""

    @pytest.fixture
    def elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")

    @pytest.mark.usefixtures("elsewhere")
    @pytest.mark.parametrize("under", [jax.jit, lambda update: update], ids=["jit", "eager"])
    def test_moments_are_parked_in_main_memory_and_return(self, under: Callable[[Any], Any]) -> None:
        tx = optimizer(optax.adamw(RATE), moments="cpu")
        update, kinds = under(tx.update), []
        params, state = walked(tx, ["", ""])
        before = kept_of(tx.save(state, params), "b")
        for number, frozen in enumerate(["b", "b", ""]):
            params = follow(params, frozen)
            if not frozen:
                assert kept_of(tx.save(state, params), "b") == before
            _, state = update(gradients(params, number), state, params)
            kinds.append([leaf.sharding.memory_kind for leaf in jax.tree.leaves(state)])
        # The count and four moments of a and c; two moments of b, and its count.
        assert kinds[:2] == [["device"] * 5 + ["pinned_host"] * 2 + ["device"]] * 2
        assert kinds[2] == ["device"] * 8

    @pytest.mark.usefixtures("elsewhere")
    def test_the_run_does_not_depend_on_the_memory(self) -> None:
        sets = ["", "b", "bc", "a", "", "b", ""]
        one, state = walked(optimizer(optax.adamw(RATE), moments="cpu"), sets)
        other, kept = walked(optimizer(optax.adamw(RATE), moments="keep"), sets)
        assert bits(one) == bits(other)
        assert [leaf.tobytes() for leaf in map(np.asarray, jax.tree.leaves(state))] == [
            leaf.tobytes() for leaf in map(np.asarray, jax.tree.leaves(kept))
        ]

    @pytest.mark.usefixtures("elsewhere")
    def test_a_state_saved_from_main_memory_loads_anywhere(self) -> None:
        there, here = (optimizer(optax.adamw(RATE), moments=kept) for kept in ("cpu", "keep"))
        params, state = walked(there, ["", "b"])
        saved = there.save(state, params)
        thawed = here.load(saved, fj.thaw(params))
        assert {leaf.sharding.memory_kind for leaf in jax.tree.leaves(thawed)} == {"device"}
        again = there.load(saved, params)
        assert [leaf.sharding.memory_kind for leaf in jax.tree.leaves(again.parked[0].moments)] == ["pinned_host"] * 2
        assert raw(there.save(again, params)) == raw(saved)

    def test_on_a_cpu_moments_are_already_in_main_memory(self) -> None:
        _, state = walked(optimizer(optax.adamw(RATE), moments="cpu"), ["", "b"])
        assert {leaf.sharding.memory_kind for leaf in jax.tree.leaves(state)} == {"device"}


def test_an_unknown_value_of_moments_is_refused() -> None:
    with pytest.raises(BindError) as caught:
        optimizer(optax.sgd(RATE), moments="drop")  # type: ignore[arg-type]
    assert str(caught.value).split("\n") == [
        "optimizer(tx, moments='drop') is not one of the 3 ways to treat the moments of frozen parameters:",
        '  "keep"     they stay where they are',
        '  "cpu"      they move to main memory',
        '  "release"  they are dropped, and start at zero after a thaw',
        'Write moments="release", or leave it out.',
    ]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
