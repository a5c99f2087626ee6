"""The state of an optimizer by name: a tree with another frozen set can load it."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import frostline.jax as fj
from frostline import FrostlineError
from frostline.jax._training.optimizer import optimizer
from only_jax.bits import bits
from only_jax.training.stepped import follow, kept_of, net, raw, step, walked

RATE = 0.1
Saved = dict[str, Any]


def labelled(params: Any) -> Any:
    return jax.tree.map(lambda leaf: "vector" if leaf.ndim == 1 else "matrix", params)


# name: the transformation, and the saved state of one parameter, the matrix b.
KINDS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "sgd": (lambda: optax.sgd(RATE), []),
    "momentum": (lambda: optax.sgd(RATE, momentum=0.9), ["0.trace"]),
    "adamw": (lambda: optax.adamw(RATE), ["0.mu", "0.nu", "0.count"]),
    "scheduled": (lambda: optax.adam(optax.linear_schedule(0.1, 0.0, 9)), ["0.mu", "0.nu", "0.count"]),
    "adafactor": (
        lambda: optax.adafactor(RATE, momentum=0.9),
        ["0.v_row", "0.v_col", "0.v", "4.ema", "0.count", "4.count"],
    ),
    "lists of moments": (lambda: optax.sm3(RATE), ["0.mu/0", "0.mu/1", "0.nu"]),
    "accumulation": (
        lambda: optax.MultiSteps(optax.sgd(RATE, momentum=0.9), 2),
        ["inner_opt_state.0.trace", "acc_grads", "mini_step", "gradient_step"],
    ),
    "partitioned": (
        lambda: optax.partition({"vector": optax.sgd(RATE, 0.9), "matrix": optax.adam(RATE)}, labelled),
        [f"inner_states.matrix.inner_state.0.{part}" for part in ("mu", "nu", "count")],
    ),
}
each = pytest.mark.parametrize("name", KINDS)


def made(name: str, moments: Any = "keep") -> Any:
    return optimizer(KINDS[name][0](), moments=moments)


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal in structure, types and bits."""
    leaves = [[(leaf.dtype, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(state)] for state in (one, other)]
    return jax.tree.structure(one) == jax.tree.structure(other) and leaves[0] == leaves[1]


class TestSaved:
    @each
    def test_everything_has_a_name(self, name: str) -> None:
        tx = made(name)
        params, state = walked(tx, ["", "b"])
        saved = tx.save(state, params)
        assert [key for key in saved if key.startswith("b/")] == [f"b/{part}" for part in ("cohort", *KINDS[name][1])]
        assert [key for key in saved if not key.startswith(("a/", "b/", "c/", "/"))] == []
        assert all(isinstance(array, jax.Array | np.ndarray) for array in saved.values())

    def test_the_numbers_of_the_run_and_of_each_parameter(self) -> None:
        tx = made("scheduled")
        params, state = walked(tx, ["bc", "c", "ac"])
        numbers = {key: int(array) for key, array in tx.save(state, params).items() if array.ndim == 0}
        assert numbers == {
            "/0.count": 2,
            "/1.count": 3,
            # Parked.
            "a/cohort": -2,
            "a/0.count": 2,
            "b/cohort": 0,
            "b/0.count": 2,
            "c/cohort": -1,
        }

    def test_frozen_uses_and_names_of_any_depth(self) -> None:
        params = {"mlp/~/linear": [jnp.ones(2)], "use": fj.Frozen({"w": jnp.ones(1)}), "steps": jnp.arange(2)}
        tx = made("momentum")
        saved = tx.save(tx.init(params), params)
        assert list(saved) == ["mlp/~/linear.0/cohort", "mlp/~/linear.0/0.trace", "use.w/cohort"]
        plain = fj.thaw(fj.strip(params))
        assert tx.load(saved, plain).cohorts == (("mlp/~/linear.0", "use.w"),)

    def test_a_tied_array_is_saved_once(self) -> None:
        table = jnp.ones((2, 2))
        params = fj.tie({"embed": table, "out": table})
        tx = made("momentum")
        assert list(tx.save(tx.init(params), params)) == ["embed/cohort", "embed/0.trace"]

    def test_an_array_is_a_tree(self) -> None:
        tx = made("adamw")
        _, state = step_of_ones(tx, jnp.ones(3))
        saved = tx.save(state, jnp.ones(3))
        assert list(saved) == ["/0.count", "/cohort", "/0.mu", "/0.nu"]
        assert same(tx.load(saved, jnp.ones(3)), state)

    def test_a_file_of_arrays_can_store_the_state(self, tmp_path: Path) -> None:
        tx = made("adamw")
        params, state = walked(tx, ["", "b", "c"])
        np.savez(tmp_path / "state.npz", **{name: np.asarray(a) for name, a in tx.save(state, params).items()})
        with np.load(tmp_path / "state.npz") as file:
            assert same(tx.load(file, params), state)


class TestLoaded:
    @each
    @pytest.mark.parametrize("moments", ["keep", "cpu"])
    def test_the_same_frozen_set_gives_the_same_state(self, name: str, moments: Any) -> None:
        tx = made(name, moments)
        params, state = walked(tx, ["bc", "", "a", "ab", "a"])
        assert same(tx.load(tx.save(state, params), params), state)

    @pytest.mark.parametrize(
        ("then", "now"), list(itertools.product(["", "a", "b", "bc"], ["", "a", "bc", "abc"])), ids=str
    )
    def test_the_state_of_one_frozen_set_loads_into_another(self, then: str, now: str) -> None:
        tx = made("adamw")
        params, state = walked(tx, ["", "a", then])
        saved = tx.save(state, params)
        other = follow(net(), now)
        loaded = tx.load(saved, other)
        again = tx.save(loaded, other)
        assert {name: kept_of(again, name) for name in "abc"} == {name: kept_of(saved, name) for name in "abc"}
        assert loaded.names == set("abc") - set(now)
        assert sorted(name for cohort in loaded.parked for name in cohort.moments) == sorted(now)

    def test_after_loading_each_parameter_continues_from_its_own_state(self) -> None:
        tx = made("adamw")
        params, state = walked(tx, ["c", "c", "b"])
        saved = tx.save(state, params)
        _, loaded = step(tx, fj.thaw(params), tx.load(saved, fj.thaw(params)), 3)
        _, thawed = step(tx, fj.thaw(params), state, 3)
        assert same(loaded, thawed)
        # a was never frozen, b is back from the shelf, c began to train when b froze.
        counts = [int(loaded.inner[0].count), *(int(counts["[0].count"]) for counts in loaded.counts)]
        assert (loaded.cohorts, counts) == ((("a",), ("c",), ("b",)), [4, 2, 3])

    def test_loading_by_position_mixes_up_states(self) -> None:
        """Negative control: without names, the state of one frozen set loads silently into another."""
        params = {name: jnp.ones(2) for name in "abc"}
        trained, others = (fj.split(fj.freeze(params, name))[0] for name in "ac")
        _, state = step_of_ones(optax.adam(RATE), trained)
        mixed = jax.tree.unflatten(jax.tree.structure(optax.adam(RATE).init(others)), jax.tree.leaves(state))
        assert bits(mixed[0].mu)["a"] == bits(state[0].mu)["b"]

    def test_released_moments_start_again(self) -> None:
        tx = made("adamw", "release")
        params, state = walked(tx, ["", "b"])
        saved = tx.save(state, params)
        assert kept_of(saved, "b") == {}
        loaded = tx.load(saved, fj.thaw(params))
        assert loaded.cohorts == (("a", "c"), ("b",))
        assert (int(loaded.counts[0]["[0].count"]), bits(loaded.inner[0].mu)["b"]) == (0, bytes(8))
        # Parked moments are dropped if frozen parameters must have none.
        kept = made("adamw")
        _, state = walked(kept, ["", "b"])
        dropped = tx.load(kept.save(state, params), follow(net(), "ab"))
        assert (dropped.cohorts, dropped.parked) == ((("c",),), ())

    @pytest.mark.parametrize("moments", ["keep", "release"])
    @pytest.mark.parametrize("name", ["adamw", "scheduled", "momentum"])
    def test_a_resumed_run_equals_an_uninterrupted_one(self, name: str, moments: Any) -> None:
        """The run is cut after any step, also where nothing trains; weights and state are bitwise equal."""
        sets = ["b", "", "ab", "abc", "c", "", "a"]
        tx = made(name, moments)
        runs = [walked(tx, sets[:1])]
        for number, frozen in enumerate(sets[1:], start=1):
            runs.append(walked(tx, [frozen], *runs[-1], number))
        whole, state = runs[-1]
        for cut, (params, before) in enumerate(runs[:-1], start=1):
            saved = {key: np.asarray(array) for key, array in tx.save(before, params).items()}
            weights = jax.tree.map(np.array, fj.strip(params))
            params, fresh = follow(jax.tree.map(jnp.asarray, weights), sets[cut - 1]), made(name, moments)
            params, after = walked(fresh, sets[cut:], params, fresh.load(saved, params), cut)
            assert bits(params) == bits(whole)
            assert same(after, state)

    def test_arrays_are_copies(self) -> None:
        tx = made("adamw")
        params, state = walked(tx, ["", "b"])
        saved = {name: np.array(array) for name, array in tx.save(state, params).items()}
        loaded = tx.load(saved, params)
        for array in saved.values():
            array[...] = 7
        assert same(loaded, state)
        other = tx.load(tx.save(state, params), params)
        jax.jit(tx.update, donate_argnums=1)(params, other, params)
        assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))

    def test_moments_are_loaded_to_the_devices_of_their_parameters(self) -> None:
        mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
        where = NamedSharding(mesh, PartitionSpec("x"))
        params = jax.tree.map(lambda leaf: jax.device_put(leaf, where), {"a": jnp.ones(4), "b": jnp.ones(2)})
        tx = made("adamw")
        _, state = step_of_ones(tx, params)
        saved = {name: np.asarray(array) for name, array in tx.save(state, params).items()}
        loaded = tx.load(saved, fj.freeze(params, "b"))
        assert fj.strip(loaded.inner[0].mu)["a"].sharding == where
        assert loaded.parked[0].moments["b"]["[0].nu['b']"].sharding == where
        thawed = fj.thaw(params)
        _, after = jax.jit(tx.update)(thawed, loaded, thawed)
        assert after.inner[0].mu["b"].sharding == where

    def test_a_copy_of_the_transformation_saves_and_loads(self) -> None:
        tx = made("momentum")
        params, state = walked(tx, [""])
        again = jax.tree.unflatten(jax.tree.structure(tx), jax.tree.leaves(tx))
        assert same(again.load(again.save(state, params), params), state)


def step_of_ones(tx: Any, params: Any) -> tuple[Any, Any]:
    return tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)


FIX = "Save it by tx.save(state, params), with the same model and the same transformation."


def saved_by(name: str = "adamw", frozen: str = "c", params: Any = None) -> Saved:
    tx = made(name)
    params = follow(params or net(), frozen)
    return tx.save(tx.init(params), params)


def loading(saved: Any) -> Any:
    return made("adamw").load(saved, net())


ONE_VECTOR = "the state of tx has 2 arrays for several parameters at once, the first at state.inner[0].mu."
APART = (
    "Freeze and thaw before state = optimizer(tx).init(params), or use a transformation with an array for each "
    "parameter: optimizer(tx) in place of optimizer(optax.flatten(tx))."
)

TEXTS: dict[str, tuple[Callable[[], object], list[str]]] = {
    "a state that is none": (
        lambda: made("adamw").save(optax.adam(RATE).init(net()), net()),
        [
            "tx.save(state, params) got a tuple, which is not a state of optimizer(tx).",
            "Make it with the same transformation: state = optimizer(tx).init(params).",
        ],
    ),
    "saved for other parameters": (
        lambda: (tx := made("adamw")).save(tx.init(net()), {"a": jnp.ones(2), "d": jnp.ones(2)}),
        [
            "tx.save(state, params) got a state of other parameters: 0 missing, 2 unknown.",
            "  unknown: b",
            "  unknown: c",
            "Pass the parameters that the state belongs to.",
        ],
    ),
    "saved where one array is for all": (
        lambda: (tx := optimizer(optax.flatten(optax.adam(RATE)))).save(tx.init(net()), net()),
        [f"tx.save(state, params) cannot save by name: {ONE_VECTOR}", APART],
    ),
    "loaded where one array is for all": (
        lambda: optimizer(optax.flatten(optax.adam(RATE))).load(saved_by(), net()),
        [f"tx.load(saved, params) cannot load by name: {ONE_VECTOR}", APART],
    ),
    "a state in place of what was saved": (
        lambda: loading(made("adamw").init(net())),
        ["tx.load(saved, params) got an OptimizerState, but takes a dict of arrays by name.", FIX],
    ),
    "of other parameters": (
        lambda: loading(saved_by(params={"a": jnp.ones(2), "c": jnp.ones(1), "d": {"w": jnp.ones(2)}})),
        [
            "tx.load(saved, params) got a state of other parameters: 1 missing, 1 unknown.",
            "  missing: b",
            "  unknown: d.w",
            FIX,
        ],
    ),
    "of nothing": (
        lambda: loading({}),
        [
            "tx.load(saved, params) got a state of other parameters: 3 missing, 0 unknown.",
            "  missing: a",
            "  missing: b",
            "  missing: c",
            FIX,
        ],
    ),
    "of another transformation": (
        lambda: loading(saved_by("momentum")),
        [
            "tx.load(saved, params) got the state of another transformation: 7 arrays missing, 2 unknown.",
            "  missing: /0.count",
            "  missing: a/0.count",
            "  missing: a/0.mu",
            "  unknown: a/0.trace",
            "  unknown: b/0.trace",
            FIX,
        ],
    ),
    "with a moment too few": (
        lambda: loading({name: array for name, array in saved_by().items() if name != "a/0.nu"}),
        [
            "tx.load(saved, params) got the state of another transformation: 1 array missing, 0 unknown.",
            "  missing: a/0.nu",
            FIX,
        ],
    ),
    "with moments of what has none": (
        lambda: loading(saved_by() | {"c/0.mu": jnp.ones(1)}),
        [
            "tx.load(saved, params) got the state of another transformation: 0 arrays missing, 1 unknown.",
            "  unknown: c/0.mu",
            FIX,
        ],
    ),
    "of other shapes and types": (
        lambda: loading(saved_by() | {"a/0.mu": jnp.ones(3), "b/0.nu": jnp.ones((1, 2), jnp.bfloat16), "/0.count": 3}),
        [
            "tx.load(saved, params) got 3 arrays of another shape or type.",
            "  /0.count: saved an int, here int32 ()",
            "  a/0.mu: saved float32 (3,), here float32 (2,)",
            "  b/0.nu: saved bfloat16 (1, 2), here float32 (1, 2)",
            FIX,
        ],
    ),
    "with a cohort that is not a number": (
        lambda: loading(saved_by() | {"a/cohort": jnp.ones(2)}),
        [
            "tx.load(saved, params) got 1 array of another shape or type.",
            "  a/cohort: saved float32 (2,), here int32 ()",
            FIX,
        ],
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_whole_text(name: str) -> None:
    act, lines = TEXTS[name]
    with pytest.raises(FrostlineError) as caught:
        act()
    assert str(caught.value).split("\n") == lines
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_state_built_by_hand_gets_a_cohort_for_each_count() -> None:
    """The number of a cohort is a label: different counts are never merged."""
    saved = saved_by(frozen="") | {"b/0.count": jnp.array(5, jnp.int32), "b/cohort": np.asarray(0, np.int32)}
    loaded = loading(saved)
    assert sorted(loaded.cohorts) == [("a", "c"), ("b",)]
    assert sorted([int(loaded.inner[0].count), int(loaded.counts[0]["[0].count"])]) == [0, 5]


def test_saving_changes_nothing() -> None:
    tx = made("adamw")
    params, state = walked(tx, ["", "b"])
    before = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]
    assert raw(tx.save(state, params)) == raw(tx.save(state, params))
    assert [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)] == before
