"""The cost of a step, as predicted and as measured."""

from __future__ import annotations

import json
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from jax import lax

import frostline.jax as fj
from frostline import NothingTrainableError
from frostline._core.reporting.bill import Bill
from frostline.errors import CostError
from only_jax.cost.costed import (
    FLAT,
    MODELS,
    PLACES,
    SQUARE,
    convolved,
    data,
    made,
    predicted,
    products,
    really_saved,
    stack,
    weights,
)

gelu = stack(jax.nn.gelu)
# A step that is not compiled runs slowly: every model is run in one place, and two of them in all places.
REAL = [(model, "middle") for model in MODELS if model not in {"strided", "grouped"}]
REAL += [(model, place) for model in ("gelu", "residual") for place in PLACES if place != "middle"]
everywhere = pytest.mark.parametrize("place", PLACES)


def flops(bill: Bill) -> tuple[int, int, int]:
    return bill.forward_flops, bill.input_gradient_flops, bill.weight_gradient_flops


@pytest.mark.parametrize(("model", "place"), REAL)
def test_saved_bytes_are_those_of_a_real_step(model: str, place: str) -> None:
    loss, tree, x = made(model, place)
    found, real = predicted(loss, tree, x), really_saved(loss, tree, x)
    # A real step saves some constants of a few bytes as arrays.
    assert 0 <= real - found <= 64
    assert found >= 0.99 * real


@everywhere
def test_flops_are_those_of_xla(place: str) -> None:
    """XLA also counts the final sum: 127 additions."""
    tree, x = fj.freeze(weights(*SQUARE), PLACES[place]), data(*FLAT)
    trained, rest = fj.split(tree)

    def step(trained: Any, rest: Any, x: Any) -> Any:
        return jax.value_and_grad(lambda trained: products(fj.strip(fj.join(trained, rest)), x))(trained)

    counted = jax.jit(step).lower(trained, rest, x).compile().cost_analysis()["flops"]
    assert fj.cost(products, tree, x).now.flops + 127 == counted


@pytest.mark.parametrize(
    ("place", "now"),
    [
        ("prefix", (8192, 2048, 4096)),
        ("middle", (8192, 6144, 4096)),
        ("suffix", (8192, 6144, 2048)),
        ("scattered", (8192, 6144, 6144)),
    ],
)
def test_flops_as_literals(place: str, now: tuple[int, int, int]) -> None:
    """Each product has 16 rows, 8 columns and 8 terms: 2048 operations."""
    found = fj.cost(gelu, fj.freeze(weights(*SQUARE), PLACES[place]), data(*FLAT))
    assert flops(found.now) == flops(found.limit) == now
    assert flops(found.all_trained) == (8192, 6144, 8192)


@pytest.mark.parametrize(
    ("stride", "groups", "forward"),
    [
        (1, 1, 4 * 2 * 2 * 81 * 8 * 72),  # four convolutions of 2 images, 81 places, 8 channels of 9 · 8 terms
        (1, 4, 4 * 2 * 2 * 81 * 8 * 18),
        (1, 8, 4 * 2 * 2 * 81 * 8 * 9),
        (2, 1, 2 * 2 * (25 + 9 + 4 + 1) * 8 * 72),
    ],
)
def test_flops_of_convolutions(stride: int, groups: int, forward: int) -> None:
    found = fj.cost(convolved(stride, groups), weights(3, 3, 8, 8), data(2, 9, 9, 8))
    first = 2 * 2 * (81 if stride == 1 else 25) * 8 * 72 // groups
    assert flops(found.now) == (forward, forward - first, forward)


def test_a_transposed_convolution_costs_its_input() -> None:
    found = fj.cost(lambda w, x: lax.conv_transpose(x, w, (2, 2), "SAME").sum(), data(3, 3, 8, 4), data(2, 5, 5, 8))
    assert flops(found.now) == (2 * 2 * 25 * 8 * 9 * 4, 0, 2 * 2 * 25 * 8 * 9 * 4)


def test_work_that_is_done_twice_is_counted_twice() -> None:
    found = fj.cost(*made("repeated", "middle"))
    assert flops(found.now) == (2 * 16384, 14336, 8192)
    assert flops(found.limit) == (16384, 14336, 8192)
    assert found.flop_percent == pytest.approx(70.37, abs=0.01)


def test_a_transposed_convolution_that_is_computed_twice() -> None:
    def loss(w: Any, x: Any) -> Any:
        return jax.checkpoint(lambda w, x: jnp.tanh(lax.conv_transpose(x, w, (2, 2), "SAME")))(w, x).sum()

    once = 2 * 2 * 25 * 8 * 9 * 4
    assert flops(fj.cost(loss, data(3, 3, 8, 4), data(2, 5, 5, 8)).now) == (2 * once, 0, once)


def test_scans_branches_and_while_loops() -> None:
    def looped(tree: Any, x: Any) -> Any:
        x, _ = lax.scan(lambda x, _: (x @ tree["w"], None), x, None, length=7)
        x = lax.switch(0, [lambda x: x, lambda x: x @ tree["w"], lambda x: x @ tree["w"] @ tree["w"]], x)
        return lax.while_loop(lambda x: x[0, 0] < 0, lambda x: x @ lax.stop_gradient(tree["w"]), lax.stop_gradient(x))

    found = fj.cost(looped, {"w": data(8, 8), "b": data(8)}, data(16, 8))
    # No gradient reaches the parameters: it is stopped at the end.
    assert flops(found.now) == ((7 + 2 + 1) * 2048, 0, 0)


def test_no_gradient_is_counted_behind_a_stop() -> None:
    """An example is a teacher with the same parameters, which no gradient reaches through it."""

    def loss(tree: Any, x: Any) -> Any:
        target = jax.jit(lambda x: lax.stop_gradient(products(tree, x)))(x)
        return (products(tree[:1], x) - target) ** 2

    assert flops(fj.cost(loss, weights(8, 8), data(16, 8)).now) == (5 * 2048, 0, 2048)


def test_a_custom_rule_costs_its_own_operations() -> None:
    @jax.custom_vjp
    def product(x: Any, w: Any) -> Any:
        return x @ w

    # It computes the product again, and both gradients.
    product.defvjp(
        lambda x, w: (x @ w, (x, w)), lambda kept, g: (g @ kept[1].T * (kept[0] @ kept[1]).sum(), kept[0].T @ g)
    )
    found = fj.cost(lambda w, x: product(jnp.tanh(x @ w), w).sum(), data(8, 8), data(16, 8))
    assert flops(found.now) == (2 * 2048, 3 * 2048, 2048)


def test_units_add_up_and_have_their_own_work() -> None:
    tree = {"body": {"w": data(8, 8), "b": data(8)}, "head": {"w": data(8, 8)}, "scale": data(8)}

    def loss(t: Any, x: Any) -> Any:
        return (jax.nn.gelu(x @ t["body"]["w"] + t["body"]["b"]) @ t["head"]["w"] * t["scale"]).sum()

    found = fj.cost(loss, fj.freeze(tree, "body.w"), data(16, 8), tx=optax.adamw(1e-3))
    assert [unit.path for unit in found.units] == ["body", "head", ""]
    for name in ("now", "all_trained", "limit"):
        parts, total = Bill.total(getattr(unit, name) for unit in found.units), getattr(found, name)
        assert {**parts.to_dict(), "peak_bytes": 0} == {**total.to_dict(), "peak_bytes": 0}
    units = {unit.path: unit.now for unit in found.units}
    assert flops(units["body"]) == (2048, 0, 0)
    assert flops(units["head"]) == (2048, 2048, 2048)
    assert [units[path].gradient_bytes for path in ("body", "head", "")] == [32, 256, 32]
    assert [units[path].optimizer_bytes for path in ("body", "head", "")] == [64, 512, 64]


def test_the_short_prediction_equals_cost() -> None:
    assert predicted(*made("residual", "middle")) == fj.cost(*made("residual", "middle")).now.saved_bytes


def test_optimizer_bytes_are_those_of_a_state() -> None:
    tree = fj.freeze(weights(8, 8), "[1:]")
    for tx in (optax.adamw(1e-3), fj.optimizer(optax.adamw(1e-3))):
        found = fj.cost(gelu, tree, data(16, 8), tx=tx)
        assert (found.now.optimizer_bytes, found.all_trained.optimizer_bytes) == (2 * 256, 8 * 256)
    assert fj.cost(gelu, tree, data(16, 8), tx=optax.sgd(1e-3)).now.optimizer_bytes == 0


def test_peak_is_arguments_and_state_and_saved_bytes() -> None:
    now = fj.cost(gelu, fj.freeze(weights(8, 8), "[1:]"), data(16, 8), tx=optax.adamw(1e-3)).now
    assert now.peak_bytes == 4 * 256 + 512 + now.optimizer_bytes + now.saved_bytes


def test_the_limit_equals_the_bytes_of_lean() -> None:
    loss, tree, x = made("gelu", "middle")
    found = fj.cost(loss, tree, x)
    assert (found.now.saved_bytes, found.limit.saved_bytes) == (11264, 5120)
    assert fj.cost(fj.lean(loss), tree, x).now.saved_bytes == 5120
    # A flag of a mask needs one bit: 4 masks of 128 flags.
    relu = fj.cost(*made("relu", "middle"))
    assert relu.now.saved_bytes - relu.limit.saved_bytes == 4 * 128 - 4 * 16


class TestTheCulprit:
    def test_a_bias_at_the_input(self) -> None:
        tree = [{"w": w, "b": jnp.zeros(8)} for w in weights(8, 8)]

        def loss(t: Any, x: Any) -> Any:
            for layer in t:
                x = jax.nn.gelu(x @ layer["w"] + layer["b"])
            return x.sum()

        frozen = fj.freeze(tree, "[:3]", "![0].b")
        found = fj.cost(loss, frozen, data(16, 8))
        assert found.culprit is not None
        assert found.culprit.paths == ("0.b",)
        assert (found.culprit.chain_flops, found.culprit.flops, found.culprit.flops_without) == (4096, 16384, 10240)
        assert found.culprit.fix == 'tree = fj.freeze(tree, "0")'
        without = fj.cost(loss, fj.freeze(frozen, "[0].b"), data(16, 8))
        assert without.now.flops == 10240
        assert without.culprit is None

    def test_no_culprit_if_every_layer_trains_a_little(self) -> None:
        tree = [{"w": w * n, "a": jnp.ones((8, 1)), "b": jnp.ones((1, 8))} for n in range(6) for w in weights(8, 8)]

        def loss(t: Any, x: Any) -> Any:
            for layer in t:
                x = x @ layer["w"] + x @ layer["a"] @ layer["b"]
            return x.sum()

        assert fj.cost(loss, fj.freeze(tree, "*.w"), data(16, 8)).culprit is None


def test_seventy_billion_parameters() -> None:
    """Shapes are enough: nothing is allocated, and the batch has no data."""
    wide = jax.ShapeDtypeStruct((80, 8192, 28672), jnp.bfloat16), jax.ShapeDtypeStruct((80, 28672, 8192), jnp.bfloat16)
    tree = {"up": wide[0], "down": wide[1], "soft": jax.ShapeDtypeStruct((16, 8192), jnp.bfloat16)}

    def loss(t: Any, x: Any) -> Any:
        x = jnp.concatenate([t["soft"], x])
        return lax.scan(lambda x, w: (x + jax.nn.silu(x @ w[0]) @ w[1], None), x, (t["up"], t["down"]))[0].sum()

    found = fj.cost(loss, fj.freeze(tree, "up", "down"), jax.ShapeDtypeStruct((2032, 8192), jnp.bfloat16))
    forward = 80 * 2 * 2 * 2048 * 8192 * 28672
    assert flops(found.now) == (forward, forward, 0)
    assert found.now.gradient_bytes == 16 * 8192 * 2


def test_frozen_uses_and_other_leaves() -> None:
    model = [data(8, 8), fj.Frozen({"w": data(8, 8), "steps": 3}), jnp.arange(3), jax.nn.gelu]
    found = fj.cost(lambda m, x: (m[3](x @ m[0]) @ m[1]["w"]).sum(), model, data(16, 8))
    assert flops(found.now) == (4096, 2048, 2048)
    assert flops(found.all_trained) == (4096, 2048, 4096)


def test_a_cost_converts_to_data_and_text() -> None:
    found = fj.cost(*made("gelu", "suffix"))
    assert json.loads(json.dumps(found.to_dict()))["now"]["saved_bytes"] == 10752
    assert str(found).splitlines()[-1] == "100 % of the FLOP limit, 43 % of the byte limit."


class TestErrors:
    def test_an_example_of_the_wrong_shape(self) -> None:
        with pytest.raises(CostError) as raised:
            fj.cost(gelu, {"w": data(8, 8)}["w"][None], data(16, 5))
        error = pickle.loads(pickle.dumps(raised.value))
        assert str(error).splitlines() == [
            "cost(fn, tree, float32[16, 5]) stops with TypeError: dot_general requires contracting dimensions to have "
            "the same shape, got (5,) and (8,).",
            "   is float32[1, 8, 8]",
            "Call it as in training: cost(fn, tree, *batch), where fn(tree, *batch) runs.",
        ]

    def test_an_output_without_a_gradient(self) -> None:
        with pytest.raises(CostError) as raised:
            fj.cost(lambda tree, x, n: (x > 0).sum(), weights(8, 8), data(16, 8), n={"k": (1, "a")})
        assert str(raised.value).splitlines() == [
            "cost(fn, tree, float32[16, 8], n={'k': (1, 'a')}) returns no floating array, but only floating "
            "arrays have gradients.",
            "Return the value to differentiate: cost(lambda tree, x: apply(tree, x).mean(), tree, x).",
        ]

    def test_nothing_to_train(self) -> None:
        with pytest.raises(NothingTrainableError, match=r"^cost\(fn, tree\) has nothing to train"):
            fj.cost(gelu, fj.freeze(weights(8, 8)), data(16, 8))
