"""The frost line: its place, and its two sides, which together equal the function."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.interpreters import partial_eval

import frostline.jax as fj
from frostline.errors import LineError
from frostline.features.boundary import Boundary
from only_jax.line.lined import SEQUENCES, X, bits, check_gradient, check_same, net, weights
from only_jax.trees import chain, frozen_use

PREFIX = fj.freeze(weights("a", "b", "c"), "a")


def test_a_prefix() -> None:
    line = check_same(net, PREFIX, X)
    check_gradient(net, line, PREFIX, X)
    assert line.boundary == (Boundary("tanh", (4,), "float32", 16),)
    assert line.flops == 2 * 4 * 4
    assert repr(line) == "<FrostLine at tanh: 16 bytes and 32 FLOPs a sample>"


def test_two_layers_and_a_skip_connection() -> None:
    line = check_same(net, fj.freeze(weights("a", "b", "c"), "a", "b"), X)
    assert line.boundary == (Boundary("sin", (4,), "float32", 16),)
    assert line.flops == 2 * 2 * 4 * 4


def test_a_frozen_layer_above_a_trainable_one_is_above() -> None:
    line = check_same(net, fj.freeze(weights("a", "b", "c"), "a", "c"), X)
    assert line.flops == 2 * 4 * 4


def test_a_skip_over_the_line_crosses_it() -> None:
    def skipping(params: Any, x: Array) -> Array:
        first = jnp.tanh(x @ params["a"])
        second = jnp.tanh(first @ params["b"])
        return (second @ params["c"]) * first + second

    tree = fj.freeze(weights("a", "b", "c"), "a", "b")
    line = check_same(skipping, tree, X)
    check_gradient(skipping, line, tree, X)
    assert [each.name for each in line.boundary] == ["tanh", "tanh_2"]


def test_an_output_that_is_below_crosses_and_comes_back() -> None:
    def two(params: Any, x: Array) -> dict[str, Array]:
        first = jnp.tanh(x @ params["a"])
        return {"features": first, "out": first @ params["b"]}

    assert [each.name for each in check_same(two, fj.freeze(weights("a", "b"), "a"), X).boundary] == ["tanh"]


def test_casts_masks_and_copies_are_computed_again_above() -> None:
    def masked(params: Any, x: Array, is_kept: Array) -> Array:
        first = jnp.tanh(x @ params["a"])
        mask = jnp.broadcast_to(jnp.where(is_kept[:, None, None], 0.0, -1e9), (*is_kept.shape, 5, 4))
        spread = jnp.broadcast_to(first[:, None], (len(x), 5, 4)).astype(jnp.float16).astype(jnp.float32)
        return jax.nn.softmax(spread @ params["b"] + first[:, None] + mask)

    line = check_same(masked, fj.freeze(weights("a", "b"), "a"), X, jnp.array([True, False, True]))
    assert line.boundary == (Boundary("tanh", (4,), "float32", 16), Boundary("broadcast_in_dim", (1, 1), "bool", 1))


def test_the_two_numbers_of_a_normalisation_are_computed_again() -> None:
    def normed(params: Any, x: Array) -> Array:
        first = jnp.tanh(x @ params["a"])
        mean, scale = first.mean(-1, keepdims=True), jax.lax.rsqrt(first.var(-1, keepdims=True) + 1e-6)
        return (first * params["b"][0] - mean) * scale

    line = check_same(normed, fj.freeze(weights("a", "b"), "a"), X)
    assert line.boundary == (Boundary("tanh", (4,), "float32", 16),)


def test_values_that_do_not_depend_on_a_sample_are_not_stored() -> None:
    def rotary(params: Any, x: Array) -> Array:
        table = jnp.sin(jnp.arange(5.0)[:, None] @ params["frequencies"])
        return (jnp.tanh(x @ params["a"]) * table) @ params["b"]

    tree = fj.freeze(weights("a", "b") | {"frequencies": jnp.ones((1, 4))}, "a", "frequencies")
    assert check_same(rotary, tree, SEQUENCES).boundary == (Boundary("mul", (5, 4), "float32", 80),)


def test_a_mean_over_samples_directly_at_the_line_is_above() -> None:
    line = fj.frostline(lambda p, x: (x @ p["a"]).mean(0) @ p["b"], PREFIX, X)
    assert [each.name for each in line.boundary] == ["dot_general"]


def test_samples_that_are_not_first_and_samples_that_are_merged_with_steps() -> None:
    def time_first(params: Any, x: Array) -> Array:
        first = jnp.tanh(jnp.swapaxes(x, 0, 1) @ params["a"])
        return jnp.swapaxes(first @ params["b"], 0, 1)

    def merged(params: Any, x: Array) -> Array:
        rows = jnp.tanh(x.reshape(-1, 4) @ params["a"])
        return (rows @ params["b"]).reshape(x.shape)

    for fn in (time_first, merged):
        line = check_same(fn, fj.freeze(weights("a", "b"), "a"), SEQUENCES)
        assert line.boundary == (Boundary("tanh", (5, 4), "float32", 80),)


def test_a_function_that_is_compiled_as_one_is_opened() -> None:
    """The outputs are equal up to the last bits, because XLA fuses the whole function differently from its sides."""
    line = fj.frostline(jax.jit(net), PREFIX, X)
    assert line.boundary == (Boundary("tanh", (4,), "float32", 16),)
    np.testing.assert_array_max_ulp(line.above(PREFIX, *line.below(X)), jax.jit(net)(PREFIX, X), maxulp=4)


def test_separately_compiled_sides() -> None:
    line = fj.frostline(net, PREFIX, X)
    (value,) = jax.jit(line.below)(X)
    np.testing.assert_array_max_ulp(jax.jit(line.above)(PREFIX, value), jax.jit(net)(PREFIX, X), maxulp=4)
    loss = jax.jit(fj.value_and_grad(lambda tree, value: line.above(tree, value).sum()))
    assert [leaf is None for leaf in loss(PREFIX, value)[1].values()] == [True, False, False]


def test_a_jax_function_that_combines_two_operations() -> None:
    """A float times a bool is a cast and a product; compiled together, a negative zero becomes positive."""

    def masked(params: Any, x: Array) -> Array:
        return jnp.tanh(x @ params["a"]) @ params["b"] * (x > 0)

    tree = fj.freeze(weights("a", "b"), "a")
    line = fj.frostline(masked, tree, X)
    np.testing.assert_array_max_ulp(line.above(tree, *line.below(X)), masked(fj.strip(tree), X), maxulp=0)


def recurrent(params: Any, x: Array) -> Array:
    """Two recurrent layers in one loop."""

    def step(carried: tuple[Array, Array], row: Array) -> tuple[tuple[Array, Array], Array]:
        low, high = carried
        low = jnp.tanh(row @ params["a"] + low)
        high = jnp.tanh(low @ params["b"] + high)
        return (low, high), high

    start = jnp.zeros((len(x), 4)), jnp.zeros((len(x), 4))
    return jnp.swapaxes(jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))[1], 0, 1) @ params["c"]


def test_a_loop_becomes_two_loops() -> None:
    """The output of the lower layer crosses at each step; the compiled loop above is equal up to the last bits."""
    tree = fj.freeze(weights("a", "b", "c"), "a")
    line = fj.frostline(recurrent, tree, SEQUENCES)
    assert line.boundary == (Boundary("scan", (5, 4), "float32", 80),)
    assert line.flops == 5 * 2 * 4 * 4
    np.testing.assert_array_max_ulp(line.above(tree, *line.below(SEQUENCES)), recurrent(tree, SEQUENCES), maxulp=8)


def test_a_loop_that_is_completely_below_or_above_stays() -> None:
    tree = fj.freeze(weights("a", "b", "c"), "a", "b")
    line = check_same(recurrent, tree, SEQUENCES)
    check_gradient(recurrent, line, tree, SEQUENCES)
    assert line.flops == 5 * 2 * 2 * 4 * 4

    def layers(params: Any, x: Array) -> Array:
        first = jnp.tanh(x @ params["a"])
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), first, params["stack"])[0]

    tree = fj.freeze(weights("a") | {"stack": jnp.stack(list(weights("b", "c").values()))}, "a")
    assert check_same(layers, tree, X).boundary == (Boundary("tanh", (4,), "float32", 16),)


def test_a_loop_over_frozen_layers_is_below() -> None:
    def layers(params: Any, x: Array) -> Array:
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params["stack"])[0] @ params["a"]

    tree = fj.freeze(weights("a") | {"stack": jnp.stack(list(weights("b", "c").values()))}, "stack")
    assert check_same(layers, tree, X).flops == 2 * 2 * 4 * 4


def test_a_checkpoint_is_opened_and_its_trainable_part_stays_a_checkpoint() -> None:
    block = jax.checkpoint(lambda params, x: jnp.sin(jnp.tanh(x @ params["a"]) @ params["b"]) @ params["c"])
    line = fj.frostline(block, PREFIX, X)
    assert line.boundary == (Boundary("tanh", (4,), "float32", 16),)
    (value,) = line.below(X)
    np.testing.assert_array_max_ulp(line.above(PREFIX, value), block(PREFIX, X), maxulp=4)
    backward = jax.make_jaxpr(fj.grad(lambda tree, value: line.above(tree, value).sum()))(PREFIX, value)
    assert "remat2" in str(backward)


@jax.custom_jvp
def straight_through(x: Array) -> Array:
    return jnp.round(x)


straight_through.defjvp(lambda primals, tangents: (straight_through(*primals), tangents[0]))


@jax.custom_vjp
def halved(x: Array, w: Array) -> Array:
    return x @ w


halved.defvjp(lambda x, w: (x @ w, (x, w)), lambda kept, slope: (slope @ kept[1].T, kept[0].T @ slope / 2))


def test_user_defined_rules_are_kept_above() -> None:
    def ruled(params: Any, x: Array) -> Array:
        return straight_through(halved(jnp.tanh(x @ params["a"]), params["b"]) * 3) * 0.5

    tree = fj.freeze(weights("a", "b"), "a")
    line = check_same(ruled, tree, X)
    check_gradient(ruled, line, tree, X)
    gradient = fj.grad(lambda tree, value: line.above(tree, value).sum())(tree, *line.below(X))
    # Without its rule rounding has no gradient, as after the partial evaluation of JAX.
    assert np.abs(gradient["b"]).min() > 0


def test_partial_evaluation_of_jax_drops_the_rule() -> None:
    """This is why frostline divides a function itself: if JAX ever keeps the rules, that code can go."""
    traced = jax.make_jaxpr(lambda w, x: straight_through(x * w))(2.0, 2.0)
    assert "custom_jvp_call" in str(traced)
    fun = jax.extend.linear_util.wrap_init(
        lambda w, x: [straight_through(x * w)],
        debug_info=jax.api_util.debug_info("test", lambda w, x: None, (2.0, 2.0), {}),
    )
    known, unknown = partial_eval.PartialVal.known(2.0), partial_eval.PartialVal.unknown(traced.in_avals[0])
    assert "custom_jvp_call" not in str(partial_eval.trace_to_jaxpr_nounits(fun, [unknown, known])[0])


def test_a_cond_and_a_while_are_not_opened() -> None:
    def choosing(params: Any, x: Array) -> Array:
        first = jnp.tanh(x @ params["a"])
        second = jax.lax.cond(params["c"][0, 0] > 0, lambda: first @ params["b"], lambda: first)
        return jax.lax.while_loop(lambda state: state[0] < 2, lambda state: (state[0] + 1, second), (0, second))[1]

    tree = fj.freeze(weights("a", "b", "c"), "a", "c")
    line = fj.frostline(choosing, tree, X)
    assert line.boundary == (Boundary("tanh", (4,), "float32", 16),)
    assert bits(line.above(tree, *line.below(X))) == bits(choosing(fj.strip(tree), X))


def test_frozen_uses_ties_and_modules_that_are_called() -> None:
    def called(model: Any, x: Array) -> Array:
        return model(x)

    def three(params: Any, x: Array) -> Array:
        return (x @ params["low"]) @ params["mid"] @ params["top"]

    integers = np.random.default_rng(0).integers(-2, 3, (2, 3)).astype(np.float32)
    model = frozen_use(chain())
    tree = fj.freeze(model, "layers[0]")
    line = check_same(called, tree, jnp.asarray(integers))
    assert line.flops == 2 * 2 * 3 * 3
    shared = weights("a", "b")
    tied = fj.freeze({"low": shared["a"], "mid": shared["b"], "top": shared["a"]}, "low", "top")
    line = check_same(three, tied, X)
    check_gradient(three, line, tied, X)
    assert line.flops == 2 * 4 * 4


def test_settings_and_nested_inputs() -> None:
    def scaled(params: Any, batch: dict[str, Any]) -> Array:
        return net(params, batch["x"]) * batch["scale"]

    line = fj.frostline(scaled, PREFIX, {"x": X, "scale": 2.0})
    assert bits(line.above(PREFIX, *line.below({"x": X, "scale": 2.0}))) == bits(net(PREFIX, X) * 2)
    with pytest.raises(LineError, match="got float32"):
        line.below({"x": X, "scale": 3.0})


def test_a_key_in_the_tree_makes_other_masks_at_the_line_and_above_it_in_each_step() -> None:
    def dropping(tree: Any, x: Array) -> Array:
        low, high = jax.random.split(tree["key"])
        first = jnp.tanh(x @ tree["net"]["a"])
        first = jnp.where(jax.random.bernoulli(low, 0.5, first.shape), first, 0) @ tree["net"]["b"]
        return jnp.where(jax.random.bernoulli(high, 0.5, first.shape), first, 0)

    tree = fj.freeze({"net": weights("a", "b"), "key": jax.random.key(0)}, "net.a")
    line = fj.frostline(dropping, tree, X)
    (value,) = line.below(X)
    one, other = (line.above({**fj.strip(tree), "key": jax.random.key(seed)}, value) for seed in (0, 1))
    assert bits(one) == bits(dropping(tree, X))
    assert bits(one) != bits(other)


def test_numpy_arrays() -> None:
    tree = fj.freeze({name: np.asarray(leaf) for name, leaf in weights("a", "b", "c").items()}, "a")
    line = fj.frostline(net, tree, np.asarray(X, np.float64))
    assert bits(line.above(tree, *line.below(np.asarray(X)))) == bits(net(PREFIX, X))
