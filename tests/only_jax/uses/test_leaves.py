"""Other leaves of a tree, the names that a layer may use, paths, classes and precision (L5, L11)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.tree_util import keystr, register_dataclass, tree_flatten_with_path

import frostline.jax as fj
from only_jax.trees import Chain, Linear, Way, by_hand, chain, contents, each_way, inputs, linear, loss

X = inputs()
NAMES = ("bias", "child", "frostline", "inner", "marks", "pins", "seen", "ties")


@partial(register_dataclass, data_fields=[*NAMES], meta_fields=["kind"])
@dataclass(eq=False)
class Odd:
    """A layer that has the attribute names of the window around it."""

    bias: Any = 0.0
    child: Any = 1.0
    frostline: Any = 2.0
    inner: Any = 3.0
    marks: Any = 4.0
    pins: Any = 5.0
    seen: Any = 6.0
    ties: Any = 7.0
    kind: str = "odd"

    def __call__(self, x: Array) -> Array:
        return x * self.inner + self.marks

    def twice(self) -> Any:
        return 2 * self.child

    @property
    def total(self) -> Any:
        return sum(getattr(self, name) for name in NAMES)


def odd() -> Odd:
    return jax.tree.map(jnp.asarray, Odd())


@pytest.mark.parametrize(
    "window",
    [lambda: fj.Frozen(odd()), lambda: fj.freeze(odd()), lambda: fj.freeze(odd(), "inner"), lambda: [fj.Frozen(odd())]],
    ids=["use", "all marked", "one marked", "in a list"],
)
def test_no_name_of_a_layer_is_hidden(window: Any) -> None:
    layer = window()[0] if isinstance(window(), list) else window()
    assert [float(getattr(layer, name)) for name in NAMES] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert (layer.kind, float(layer.twice()), float(layer.total)) == ("odd", 2.0, 28.0)
    assert float(layer(2.0)) == 10.0
    with pytest.raises(AttributeError, match="'missing'"):
        _ = layer.missing


def test_every_access_through_a_use_stops_gradients() -> None:
    def through(layer: Odd) -> Array:
        use = fj.Frozen(layer)
        return use.inner + use.twice() + use.total + use(2.0)

    assert not any(leaf.any() for leaf in jax.tree.leaves(jax.grad(through)(odd())))


@each_way
def test_a_window_has_the_class_of_its_content(frozen: Way) -> None:
    tree = frozen(chain())
    assert isinstance(tree, Chain)
    assert [isinstance(layer, Linear) for layer in tree.layers] == [True, True, True]
    assert not isinstance(tree, Linear)
    assert isinstance(fj.freeze({"w": X}), dict)
    assert isinstance(fj.Frozen(chain()), fj.Frozen)


def test_mapping_over_layers_by_class_freezes_each() -> None:
    """This freezes functionally; repeating it changes nothing."""

    def is_layer(node: object) -> bool:
        return isinstance(node, Linear)

    once = jax.tree.map(fj.Frozen, chain(), is_leaf=is_layer)
    twice = jax.tree.map(fj.Frozen, once, is_leaf=is_layer)
    assert jax.tree.structure(once) == jax.tree.structure(twice)
    assert len(fj.plan(once).frozen) == 6


@each_way
def test_paths_are_those_of_the_unfrozen_model(frozen: Way) -> None:
    def paths(tree: Any) -> list[str]:
        return [keystr(path) for path, _ in tree_flatten_with_path(tree)[0]]

    assert paths(frozen(chain())) == paths(fj.freeze(fj.Frozen(chain()))) == paths(chain())
    assert paths(fj.mask(frozen(chain()))) == paths(chain())
    assert paths(fj.join(*fj.split(frozen(chain())))) == paths(chain())
    seen: list[str] = []
    jax.tree_util.tree_map_with_path(lambda path, _: seen.append(keystr(path)), frozen(chain()))
    assert seen == paths(chain())


def test_paths_with_a_separator_are_those_of_the_stripped_tree() -> None:
    """JAX needs a key for each child of a node, so the key of an array that is frozen alone is empty."""

    def paths(tree: Any) -> list[str]:
        return [keystr(path, simple=True, separator="/") for path, _ in tree_flatten_with_path(tree)[0]]

    layer = linear(1)
    assert paths([layer]) == ["0/weight", "0/bias"]
    assert paths([fj.Frozen(layer)]) == ["0/weight", "0/bias"]
    assert paths(fj.freeze([layer])) == ["0/weight", "0/bias"]
    assert paths([fj.Frozen(layer.bias)]) == ["0/"]
    assert paths(fj.strip([fj.Frozen(layer)])) == paths(fj.strip(fj.freeze([layer]))) == ["0/weight", "0/bias"]


def odd_leaves() -> dict[str, Any]:
    return {
        "w": jnp.array([1.0, 2.0]),
        "complex": jnp.array([1j]),
        "numpy": np.array([3.0], np.float32),
        "half": jnp.array([1.0], jnp.bfloat16),
        "counts": jnp.arange(2),
        "bools": np.array([True]),
        "key": jax.random.key(0),
        "old key": jax.random.PRNGKey(0),
        "none": None,
        "int": 3,
        "float": 0.5,
        "text": "relu",
        "fn": jnp.tanh,
        "inference": False,
        "empty": {},
    }


MOVES = {"w", "complex", "numpy", "half"}


def test_odd_leaves_survive_freeze_split_and_join() -> None:
    tree = odd_leaves()
    assert fj.trainable(tree).keys() == MOVES
    frozen = fj.freeze(tree, "numpy", "half")
    trained, rest = fj.split(frozen)
    assert contents(trained).keys() == {"['w']", "['complex']"}
    joined = fj.strip(fj.join(trained, rest))
    assert [name for name in tree if joined[name] is not tree[name]] == ["empty"]
    assert joined["empty"] == {}
    assert fj.strip(fj.mask(frozen)) == {
        **{name: name in {"w", "complex"} for name in tree},
        "none": None,
        "empty": {},
    }


def test_a_loss_gets_odd_leaves_unchanged() -> None:
    tree = fj.freeze(odd_leaves(), "numpy")

    def energy(tree: dict[str, Any]) -> Array:
        assert (tree["int"], tree["float"], tree["text"], tree["none"], tree["empty"]) == (3, 0.5, "relu", None, {})
        drawn = jax.random.normal(tree["key"], (2,)) + jax.random.normal(tree["old key"], (2,))
        return (tree["fn"](tree["w"]) * tree["float"] * drawn).sum() + tree["numpy"].sum() * tree["w"].sum()

    gradient = fj.grad(energy)(tree)
    expected = jax.grad(lambda w: energy({**odd_leaves(), "w": w}))(odd_leaves()["w"])
    assert contents(gradient["w"]) == contents(expected)
    assert {name for name in odd_leaves() if name != "empty" and gradient[name] is not None} == MOVES - {"numpy"}


def test_a_use_of_a_layer_with_odd_leaves() -> None:
    """The use is called, mapped and split; only its arrays are stopped, and its mode is set."""
    use = fj.Frozen(odd_leaves())
    assert fj.trainable([use]) == {}
    assert (use["text"], use["int"], use["fn"], use["inference"]) == ("relu", 3, jnp.tanh, True)
    assert jax.tree.structure(fj.join(*fj.split(use))) == jax.tree.structure(use)
    assert fj.strip(use)["inference"] is False


class TestPrecision:
    """Half precision of the whole model, or only of the computation."""

    @each_way
    def test_a_model_in_bfloat16(self, frozen: Way) -> None:
        half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), chain())
        tree = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), frozen(chain()))
        assert jax.tree.structure(tree) == jax.tree.structure(frozen(half))
        x = X.astype(jnp.bfloat16)
        gradient = jax.jit(fj.grad(loss))(tree, x)
        assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype(jnp.bfloat16)}
        assert contents(gradient) == contents(jax.jit(by_hand)(x, half))

    @each_way
    def test_computing_in_bfloat16_over_weights_in_float32(self, frozen: Way) -> None:
        def in_half(model: Any, x: Array) -> Array:
            cast = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), model)
            return loss(cast, x.astype(jnp.bfloat16)).astype(jnp.float32)

        gradient = fj.grad(in_half)(frozen(chain()), X)
        assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype(jnp.float32)}
        assert contents(gradient) == contents(by_hand(X, chain(), in_half))

    @each_way
    def test_a_frozen_part_in_half_precision_inside_of_a_trained_one(self, frozen: Way) -> None:
        """Frozen parameters are stored in half the bytes."""
        trained, rest = fj.split(frozen(chain()))
        tree = fj.join(trained, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), rest))
        gradient = fj.grad(loss)(tree, X)
        assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype(jnp.float32)}
        assert [leaf.dtype.name for leaf in jax.tree.leaves(tree)] == 2 * ["float32"] + 2 * ["bfloat16"] + 2 * [
            "float32"
        ]
        assert contents(gradient) == contents(by_hand(X, fj.strip(tree)))


def test_a_loss_does_not_see_marks_inside_of_marks() -> None:
    """A marked model is beside its original; their ties are noted around the marks."""
    model = chain()

    def difference(pair: Any, x: Array) -> Array:
        assert [type(one) for one in pair] == [Chain, Chain]
        return (pair[0](x) - pair[1](x)).sum()

    gradient = fj.grad(difference)(fj.tie((model, fj.freeze(model, "layers[1]"))), X)
    assert not gradient[0].layers[0].weight.any()
    assert gradient[0].layers[1].weight.any()
    assert not gradient[0].layers[2].weight.any()


def test_a_layer_alone_is_a_tree() -> None:
    gradient = fj.grad(lambda layer: layer(X).sum())(fj.freeze(linear(1), "weight"))
    assert gradient.weight is None
    assert gradient.bias.tolist() == [2.0, 2.0, 2.0]
