"""Unusual uses: marks inside marks, changes in place, and NumPy numbers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import frostline.jax as fj
from frostline import MovedError
from frostline.errors import LayerError
from frostline.jax._uses import layout as _layout
from only_jax.trees import chain, contents, loss


def one() -> Array:
    """Ones."""
    return jnp.ones(2)


class TestMarksInMarks:
    """A tree with marks and ties inside a tree with other marks and ties."""

    @staticmethod
    def nested() -> tuple[Array, list[Any]]:
        """An array with three names, two of which are already tied inside."""
        shared = jnp.full(2, 3.0)
        return shared, fj.tie([fj.tie({"a": shared, "b": shared, "c": one()}), shared])

    def test_no_array_is_lost(self) -> None:
        shared, tree = self.nested()
        joined = fj.join(*fj.split(tree))
        assert fj.plan(joined) == fj.plan(tree)
        for again in (joined, fj.split(joined)[0], jax.tree.map(lambda leaf: leaf, joined)):
            inside, outside = fj.strip(again)
            assert inside["a"] is inside["b"] is outside is shared

    def test_the_array_occurs_once(self) -> None:
        shared, tree = self.nested()
        assert [leaf is shared for leaf in jax.tree.leaves(fj.split(tree)[0])] == [True, False]

    @pytest.mark.parametrize("transform", [lambda fn: fn, jax.jit], ids=["eager", "jit"])
    def test_the_gradient_is_that_of_all_its_names(self, transform: Callable[..., Any]) -> None:
        tree = fj.join(*fj.split(self.nested()[1]))

        def of_all(tree: Any) -> Array:
            return (tree[0]["a"] + 10 * tree[0]["b"] + 100 * tree[1] + tree[0]["c"]).sum()

        gradient = transform(fj.grad(of_all))(tree)
        assert gradient[1].tolist() == gradient[0]["a"].tolist() == [111.0, 111.0]
        assert gradient[0]["c"].tolist() == [1.0, 1.0]

    def test_a_mark_inside_a_frozen_use_has_no_effect(self) -> None:
        """The use pins everything in it, so one array in it is one parameter, whatever other notes say."""
        shared = one()
        tree = fj.tie([fj.Frozen([[fj.freeze({"w": shared})], {"w": shared}]), one()])
        before = fj.plan(tree)
        assert before.frozen == {"0.0.0.w"}
        assert fj.plan(fj.follow(tree, before)) == before


class TestInPlace:
    """In a trace the tree is a copy: a change there would be lost, and gradients would be wrong."""

    def test_a_loss_that_removes_an_item(self) -> None:
        def popped(params: Any) -> Array:
            head = params.pop("head")
            return sum(map(jnp.sum, jax.tree.leaves(params))) * head.sum()

        params = {"body": one(), "head": one()}
        assert jax.grad(popped)(params)["head"].tolist() == [2.0, 2.0]
        assert fj.grad(popped)(fj.freeze(params, "body"))["head"].tolist() == [2.0, 2.0]
        with pytest.raises(AttributeError) as caught:
            jax.grad(popped)(fj.freeze(params, "body"))
        assert str(caught.value) == (
            "'pop' would change a frozen tree in place, but a frozen tree is read-only: make another one, then "
            "freeze it."
        )

    @pytest.mark.parametrize(
        ("tree", "names"),
        [
            ({"w": one()}, ["clear", "pop", "popitem", "setdefault", "update"]),
            (OrderedDict(w=one()), ["clear", "move_to_end", "pop", "popitem", "setdefault", "update"]),
            ([one()], ["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"]),
        ],
        ids=["dict", "OrderedDict", "list"],
    )
    @pytest.mark.parametrize("freeze", [fj.freeze, fj.Frozen])
    def test_no_method_changes_it(self, freeze: Callable[[Any], Any], tree: Any, names: list[str]) -> None:
        assert all(hasattr(tree, name) for name in names)
        assert not any(hasattr(freeze(tree), name) for name in names)
        assert len(freeze(tree)) == 1

    def test_methods_of_other_classes_work(self) -> None:
        """The ``update`` of a class that is not a Python container may return another object and change nothing."""
        w = one()
        pair = fj.freeze(_Pair(w, 2 * one()), "w")
        assert pair.update(b=3) == _Pair(w, 3)

    def test_a_change_further_inside_is_visible(self) -> None:
        def popped(params: Any) -> Array:
            bias = params["body"].pop("b")
            return sum(map(jnp.sum, params["body"].values())) * bias.sum()

        params = {"body": {"w": one(), "b": one()}, "head": one()}
        gradient = jax.grad(popped)(fj.freeze(params, "body.w", "head"))
        assert gradient["body"]["b"].tolist() == jax.grad(popped)(params)["body"]["b"].tolist() == [2.0, 2.0]


@jax.tree_util.register_pytree_with_keys_class
class _Pair:
    def __init__(self, w: Any, b: Any) -> None:
        self.w, self.b = w, b

    def tree_flatten_with_keys(self) -> Any:
        return (("w", self.w), ("b", self.b)), None

    @classmethod
    def tree_unflatten(cls, _: None, children: Any) -> _Pair:
        return cls(*children)

    def update(self, **changes: Any) -> _Pair:
        return _Pair(**vars(self) | changes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Pair) and self.w is other.w and self.b == other.b

    __hash__ = None  # type: ignore[assignment]


class TestVisibleTree:
    """The visible tree is built once for each trace, and again when necessary."""

    @pytest.mark.parametrize("freeze", [fj.freeze, fj.Frozen])
    def test_a_trace_grows_with_the_layers_and_not_with_their_square(self, freeze: Callable[[Any], Any]) -> None:
        def stops(count: int) -> int:
            def used(layers: Any, x: Array) -> Array:
                for number in range(count):
                    x = x * layers[number]["w"]
                return x

            jaxpr = jax.make_jaxpr(used)(freeze([{"w": one()} for _ in range(count)]), one())
            return sum(equation.primitive.name == "stop_gradient" for equation in jaxpr.jaxpr.eqns)

        assert [stops(2), stops(20)] == [2, 20]

    def test_nothing_outlives_its_trace(self) -> None:
        tree = fj.freeze({"body": one(), "use": fj.Frozen({"w": one()}), "head": one()}, "body")

        def twice(tree: Any) -> Array:
            def inside(total: Array, _: None) -> tuple[Array, None]:
                return total + (tree["body"] * tree["use"]["w"] * tree["head"]).sum(), None

            total, _ = jax.lax.scan(inside, jnp.zeros(()), length=2)
            return total + (tree["body"] * tree["use"]["w"] * tree["head"]).sum()

        with jax.checking_leaks():
            gradient = jax.jit(jax.grad(twice))(tree)
        assert gradient["head"].tolist() == [3.0, 3.0]
        assert not gradient["body"].any()
        assert not gradient["use"]["w"].any()

    def test_a_use_stays_live(self) -> None:
        layer = {"w": one()}
        use = fj.Frozen(layer)
        assert use["w"].tolist() == [1.0, 1.0]
        layer["w"] = 2 * one()
        assert use["w"].tolist() == [2.0, 2.0]


def test_a_numpy_number_is_watched() -> None:
    tree = fj.freeze({"scale": np.float32(1.0), "w": one()}, "scale")
    with fj.guard(tree) as watching:
        watching.verify({"scale": jnp.float32(1.0), "w": 2 * one()})
        with pytest.raises(MovedError, match=r"First difference: at \[\], 1.0 -> 2.0; 1 of 1 values"):
            watching.verify({"scale": np.float32(2.0), "w": one()})
    assert watching.paths == {"scale"}


def test_odd_numpy_arrays_are_watched_and_references_are_not() -> None:
    texts, days, things = np.array(["a"]), np.array(["2020-01-01"], "M8[D]"), np.array([{}], object)
    tree = fj.freeze({"w": one(), "texts": texts, "days": days, "things": things, "none": jnp.ones((0, 3))})
    with fj.guard(tree) as watching:
        watching.verify(tree)
        with pytest.raises(MovedError, match=r"'texts' \(buffer\) moved"):
            watching.verify(fj.strip(tree) | {"texts": np.array(["b"])})
    assert watching.paths == {"w", "texts", "days", "none"}


def test_an_array_is_not_a_tree_to_freeze() -> None:
    for act in (fj.freeze, lambda array: fj.follow(array, fj.plan(array).freeze([""]))):
        with pytest.raises(LayerError) as caught:
            act(one())
        assert str(caught.value).split("\n") == [
            "freeze(array) is given a float32 array of shape (2,), but marks are kept in the tree around an array.",
            'Put it into a tree, params = freeze({"weight": array}), or freeze it by name: freeze(params, "weight").',
        ]
    assert fj.grad(jnp.sum)(one()).tolist() == [1.0, 1.0]


def test_arguments_may_have_the_names_of_parameters_of_frostline() -> None:
    params = fj.freeze({"w": one(), "b": one()}, "b")

    def named(params: Any, /, *, tree: float, args: float) -> Array:
        return params["w"].sum() * tree * args

    assert fj.grad(named)(params, tree=2.0, args=3.0)["w"].tolist() == [6.0, 6.0]
    assert fj.value_and_grad(named)(params, tree=2.0, args=3.0)[0] == 12.0
    assert fj.Frozen(jax.tree_util.Partial(lambda **given: given))(self=1) == {"self": 1}


def test_an_error_of_jax_does_not_list_a_whole_model() -> None:
    tree = {f"w{number:03}": one() for number in range(300)}
    with pytest.raises(ValueError, match="metadata") as caught:
        jax.tree.map(lambda one, _: one, fj.freeze(tree, "**", "!w001"), fj.freeze(tree, "**", "!w002"))
    assert "<299 frozen: w000, w002, w003, w004, w005, w006, w007, w008, w009, w010 and 289 more; 0 tied>" in str(
        caught.value
    )
    assert len(str(caught.value)) < 2000


def test_layouts_of_large_trees_are_not_cached_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_layout, "_LAYOUTS", {})
    monkeypatch.setattr(_layout, "_MOST_SLOTS", 10)
    for count in range(5, 9):
        assert len(fj.trainable([one() for _ in range(count)])) == count
        assert sum(len(layout.slots) for layout in _layout._LAYOUTS.values()) < 20


def test_a_whole_model_still_trains() -> None:
    """The checks above must not affect it."""
    x = jnp.ones((1, 3))
    model = fj.freeze(chain(), "layers[1]")
    plain = jax.grad(loss)(chain(), x)
    gradient = fj.strip(fj.grad(loss)(model, x))
    assert contents(gradient.layers[0]) == contents(plain.layers[0])
    assert gradient.layers[1].weight is None
