"""The guard: it passes if nothing frozen moves, and names exactly the leaves that moved."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import frostline.jax as fj
from conformance.plain_net import BatchNorm1d, Linear, Sequential
from frostline import MovedError

OPTIMIZER_FIX = "  Give the optimizer the trainable part alone: tx = optimizer(tx), or tx.init(split(tree)[0])."


def tree() -> Any:
    return fj.freeze({"w": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "b": jnp.ones(2), "n": jnp.arange(2)}, "w")


def lines(watching_from: Any, after: Any, **options: Any) -> list[str]:
    with pytest.raises(MovedError) as caught, fj.guard(watching_from, **options) as watching:
        watching.verify(after)
    return str(caught.value).split("\n")


def test_weight_decay_by_an_optimizer_of_everything_is_found_and_named() -> None:
    """Negative control: freezing by hand, with stop_gradient and AdamW over everything."""
    params = {"w": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "b": jnp.ones(2)}
    tx = optax.adamw(0.1, weight_decay=0.1)

    def loss(params: Any) -> jax.Array:
        return (jax.lax.stop_gradient(params["w"]) @ params["b"]).sum()

    updates, _ = tx.update(jax.grad(loss)(params), tx.init(params), params)
    assert lines(fj.freeze(params, "w"), optax.apply_updates(params, updates)) == [
        "1 of 1 frozen tensors moved.",
        "'w' (parameter) moved. First difference: at [0, 0], 1.0 -> 0.9900000095367432; 4 of 4 values.",
        "  Likely cause: weight decay: all values were scaled by one factor, as by an optimizer over all leaves.",
        OPTIMIZER_FIX,
    ]


def test_one_moved_bit_is_found() -> None:
    after = {**tree(), "w": jnp.array([[1.0, 2.0], [3.0, np.nextafter(np.float32(4), np.float32(5))]])}
    assert lines(tree(), after)[1:] == [
        "'w' (parameter) moved. First difference: at [1, 1], 4.0 -> 4.000000476837158; 1 of 4 values.",
        "  Likely cause: an update of all leaves, as by an optimizer over all of them, or new state of a layer.",
        OPTIMIZER_FIX,
    ]


@pytest.mark.parametrize(("before", "after"), [(0.0, -0.0), (1e-40, 0.0)])
def test_equal_values_with_other_bytes_are_a_movement(before: float, after: float) -> None:
    frozen = fj.freeze({"w": np.array([before, 1.0], np.float32)})
    assert "1 of 2 values." in lines(frozen, {"w": np.array([after, 1.0], np.float32)})[1]


def test_a_cast_is_a_movement() -> None:
    assert lines(tree(), {**tree(), "w": tree()["w"].astype(jnp.bfloat16)})[1:] == [
        "'w' (parameter) moved. It was float32 of shape (2, 2) and is bfloat16 of shape (2, 2).",
        "  Likely cause: it was cast or reshaped.",
        "  Cast before the guarded block, or cast a copy for the loss.",
    ]


def test_a_missing_part_is_a_movement() -> None:
    assert lines(tree(), {"b": jnp.ones(2)})[1:] == [
        "'w' (parameter) moved. It is no longer in the tree.",
        "  Likely cause: verify got another tree, or a part of the tree was replaced or removed.",
        "  Show the whole tree: watching.verify(tree), or watching.verify(join(trainable, rest)).",
    ]


def test_a_counter_of_a_held_module_is_watched() -> None:
    frozen = fj.freeze({"norm": {"w": jnp.ones(2), "count": jnp.array(1)}, "head": jnp.ones(1)}, "norm")
    after = {"norm": {"w": jnp.ones(2), "count": jnp.array(2)}, "head": jnp.ones(1)}
    assert lines(frozen, after) == [
        "1 of 2 frozen tensors moved.",
        "'norm.count' (buffer) moved. First difference: at [], 1 -> 2; 1 of 1 values.",
        "  Likely cause: a layer in training mode returned new state, and the step put it into the tree.",
        "  Give the layer a bool leaf called inference, which freezing sets, or keep the old state of frozen layers.",
    ]


def test_movements_of_large_arrays_are_located_by_chunks_or_by_a_copy() -> None:
    big = np.zeros(600_000, np.float32)
    after = big.copy()
    after[300_000] = 1
    assert lines(fj.freeze({"w": big}), {"w": after})[1].endswith("among values 262144 to 524287 of 600000.")
    assert lines(fj.freeze({"w": big}), {"w": after}, copy=True)[1].endswith(
        "at [300000], 0.0 -> 1.0; 1 of 600000 values."
    )


def test_the_watched_paths() -> None:
    norm = BatchNorm1d(*(jnp.ones(2) for _ in range(4)))
    layer = Linear(jnp.ones((2, 2)), jnp.ones(2))
    model = fj.freeze(
        Sequential(Sequential(layer, norm), fj.Frozen(layer), Linear(jnp.ones((2, 2)), jnp.ones(2))), "[0][1]"
    )
    of_norm = {"0.1.weight", "0.1.bias", "0.1.running_mean", "0.1.running_var"}
    # A tied frozen use of a layer that trains elsewhere may move.
    tied = fj.tie(fj.tie(model, "[0][0].weight", "[1].weight"), "[0][0].bias", "[1].bias")
    for tree, paths in ((model, of_norm | {"1.weight", "1.bias"}), (tied, of_norm)):
        with fj.guard(tree) as watching:
            watching.verify(tree)
        assert watching.paths == paths


def test_every_dtype_has_bytes() -> None:
    kinds = [jnp.bfloat16, jnp.float16, jnp.float32, jnp.complex64, jnp.float8_e4m3fn]
    arrays: dict[str, Any] = {f"a{i}": jnp.ones((2, 2), kind) for i, kind in enumerate(kinds)}
    frozen = fj.freeze(arrays | {"key": jax.random.key(0), "empty": jnp.zeros((0, 3)), "scalar": jnp.ones(())})
    with fj.guard(frozen) as watching:
        watching.verify(frozen)
    assert len(watching.paths) == 8
    with pytest.raises(MovedError) as caught, fj.guard(frozen) as watching:
        watching.verify({**arrays, "key": jax.random.key(1), "empty": jnp.zeros((0, 3)), "scalar": jnp.ones(())})
    assert [movement.path for movement in caught.value.moved] == ["key"]


def test_a_write_into_memory_in_place_is_found() -> None:
    params = {"w": np.ones(3, np.float32)}
    frozen = fj.freeze(params)
    with fj.guard(frozen) as watching:
        watching.verify(frozen)
        params["w"][0] = 2
        with pytest.raises(MovedError):
            watching.verify(frozen)


def test_an_exception_from_inside_is_passed_on_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), fj.guard(tree()):
        _ = 1 / 0
