"""Freezing and thawing trees: the selection, the result, and the leaves that do not change."""

from __future__ import annotations

import copy
import pickle
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import frostline.jax as fj
from conformance.plain_net import Dropout, Linear, Sequential
from frostline import NoMatchError, Plan, everything, glob, of_type, regex, where
from only_jax.bits import bits


def mlp() -> Sequential:
    return Sequential(*(Linear(jnp.full((2, 2), float(i)), jnp.full(2, float(i))) for i in range(3)))


class Pair(NamedTuple):
    left: Any
    right: Any


class TestSelection:
    @pytest.mark.parametrize(
        ("selectors", "frozen"),
        [
            ((), {"0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"}),
            (("**", "![2]"), {"0.weight", "0.bias", "1.weight", "1.bias"}),
            (("[:-2]",), {"0.weight", "0.bias"}),
            (("**.bias",), {"0.bias", "1.bias", "2.bias"}),
            (("{0,2}.weight",), {"0.weight", "2.weight"}),
            ((glob("[0]") | regex(r"1\.b.*"),), {"0.weight", "0.bias", "1.bias"}),
            ((everything - of_type(Linear) | glob("2.bias"),), {"2.bias"}),
            ((where(lambda p: p.size > 2),), {"0.weight", "1.weight", "2.weight"}),
        ],
    )
    def test_selectors(self, selectors: tuple[Any, ...], frozen: set[str]) -> None:
        assert fj.plan(fj.freeze(mlp(), *selectors)).frozen == frozen

    def test_objects_of_the_tree(self) -> None:
        tree = mlp()
        assert fj.plan(fj.freeze(tree, tree.layers[1])).frozen == {"1.weight", "1.bias"}
        assert fj.plan(fj.freeze(tree, tree.layers[1].bias)).frozen == {"1.bias"}

    def test_objects_that_were_reached_through_marks(self) -> None:
        tree = Sequential(Sequential(*mlp().layers, Dropout()), *mlp().layers)
        frozen = fj.freeze(tree, "[0]")
        again = fj.freeze(frozen, frozen.layers[1])
        assert fj.plan(fj.thaw(again, frozen.layers[0])).frozen == {"1.weight", "1.bias"}

    def test_keys_that_are_not_identifiers(self) -> None:
        params = {"mlp/~/linear": {"w": jnp.ones(2)}, "head": {"w": jnp.ones(2)}}
        assert fj.plan(fj.freeze(params, "['mlp/~/linear']['w']")).frozen == {"mlp/~/linear.w"}
        assert fj.plan(fj.freeze(params, "mlp/~/linear.w")).frozen == {"mlp/~/linear.w"}

    def test_every_kind_of_node_has_names(self) -> None:
        tree = {"a": [jnp.ones(1), (jnp.ones(1), None)], "b": Pair(jnp.ones(1), {3: jnp.ones(1)})}
        assert fj.plan(tree).trainable == {"a.0", "a.1.0", "b.left", "b.right.3"}

    def test_only_floating_arrays_are_parameters(self) -> None:
        tree = {"f": jnp.ones(1), "half": np.ones(1, np.float16), "z": jnp.ones(1, complex), "i": jnp.arange(2)}
        others = {"n": 3, "x": 0.5, "none": None, "call": jnp.tanh, "key": jax.random.key(0), "text": "relu"}
        frozen = fj.freeze({**tree, **others})
        assert fj.plan(frozen) == Plan(frozenset({"f", "half", "z"}), frozenset())
        assert fj.strip(frozen)["call"] is jnp.tanh

    def test_a_single_array_is_a_tree(self) -> None:
        assert fj.plan(jnp.ones(2)).trainable == {""}
        assert fj.grad(lambda w: (w * w).sum())(jnp.ones(2)).tolist() == [2.0, 2.0]

    def test_shapes_without_numbers(self) -> None:
        shapes = jax.eval_shape(mlp)
        assert len(fj.plan(fj.freeze(shapes, "[0]")).frozen) == 2

    def test_a_selector_may_match_nothing_on_request(self) -> None:
        tree = mlp()
        assert fj.freeze(tree, "typo", allow_empty=True) is tree
        with pytest.raises(NoMatchError):
            fj.freeze(tree, "typo")


class TestResult:
    def test_the_given_tree_does_not_change(self) -> None:
        tree = mlp()
        before = bits(tree)
        fj.freeze(tree, "[0]")
        assert len(fj.trainable(tree)) == 6
        assert bits(tree) == before

    def test_a_frozen_tree_is_transparent(self) -> None:
        frozen = fj.freeze(mlp(), "[0]")
        assert isinstance(frozen, Sequential)
        assert frozen.layers[1].bias.tolist() == [1.0, 1.0]
        params = fj.freeze({"a": jnp.ones(1), "b": jnp.ones(1)}, "a")
        assert (isinstance(params, dict), len(params), list(params), "a" in params) == (True, 2, ["a", "b"], True)
        assert sorted(params.items())[0][0] == "a"
        assert dict(params).keys() == {"a", "b"}

    def test_freezing_adds_and_thawing_removes(self) -> None:
        tree = fj.freeze(fj.freeze(mlp(), "[0]"), "[1]")
        assert fj.plan(tree).frozen == {"0.weight", "0.bias", "1.weight", "1.bias"}
        assert fj.plan(fj.thaw(tree, "**.bias")).frozen == {"0.weight", "1.weight"}

    def test_without_its_marks_it_is_the_plain_tree(self) -> None:
        tree = mlp()
        assert fj.strip(fj.thaw(fj.freeze(tree))) is tree
        assert fj.strip(fj.freeze(tree)) is tree

    def test_a_thawed_tree_says_that_everything_trains(self) -> None:
        tree = fj.thaw(fj.freeze(mlp()))
        assert fj.plan(tree).frozen == frozenset()
        assert jax.tree.structure(tree) == jax.tree.structure(fj.follow(mlp(), fj.plan(mlp())))
        assert jax.tree.structure(tree) != jax.tree.structure(mlp())
        assert fj.thaw(jnp.ones(2)).tolist() == [1.0, 1.0]

    def test_marks_of_a_part_count_in_the_whole(self) -> None:
        first, *others = mlp().layers
        whole = Sequential(fj.freeze(first, "weight"), *others)
        assert fj.plan(whole).frozen == {"0.weight"}
        assert fj.plan(fj.thaw(whole)).frozen == set()
        assert fj.plan(fj.freeze(whole, "[2]")).frozen == {"0.weight", "2.weight", "2.bias"}

    def test_a_use_of_a_marked_layer_is_a_use(self) -> None:
        layer = mlp().layers[0]
        use = fj.Frozen(fj.freeze(layer, "weight"))
        assert type(use) is fj.Frozen
        assert fj.strip(use) is layer
        assert fj.Frozen(use) is use

    def test_a_plan_is_followed_from_any_other(self) -> None:
        tree = mlp()
        plan = fj.plan(fj.freeze(tree, "[0]"))
        assert fj.plan(fj.follow(fj.freeze(tree, "[1:]"), plan)) == plan
        assert fj.plan(fj.follow(tree, type(plan).from_json(plan.to_json()))) == plan

    def test_a_mask_is_true_for_trainable_leaves(self) -> None:
        mask = fj.mask(fj.freeze({"w": jnp.ones(2), "b": jnp.ones(2), "n": 3, "f": jnp.tanh}, "w"))
        assert type(mask) is dict
        assert mask == {"w": False, "b": True, "n": False, "f": False}

    def test_a_marked_dict_cannot_be_called(self) -> None:
        """Optax takes what can be called for a function of the parameters."""
        assert not callable(fj.freeze({"w": jnp.ones(2)}, "w"))
        assert callable(fj.freeze(mlp(), "[0]")) == callable(mlp())

    @pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda tree: pickle.loads(pickle.dumps(tree))])
    def test_a_copy_keeps_marks_and_uses(self, copied: Any) -> None:
        layer = mlp().layers[0]
        tree = fj.freeze([layer, fj.Frozen(layer), mlp().layers[1]], "[2]")
        other = copied(tree)
        assert fj.plan(other) == fj.plan(tree)
        assert jax.tree.structure(other) == jax.tree.structure(tree)
        assert bits(other) == bits(tree)


class TestTies:
    def tied(self) -> dict[str, Any]:
        table = jnp.ones((3, 2))
        return fj.tie({"embed": {"w": table}, "head": {"w": table, "b": jnp.zeros(3)}})

    def test_any_name_selects_the_array(self) -> None:
        for name in ("embed", "head.w"):
            assert fj.plan(fj.freeze(self.tied(), name)) == Plan(frozenset({"embed.w"}), frozenset({"head.b"}))

    def test_a_tied_array_is_one_leaf_with_both_names(self) -> None:
        tree = fj.freeze(self.tied(), "head.b")
        assert len(jax.tree.leaves(tree)) == 2
        assert tree["embed"]["w"] is tree["head"]["w"]
        assert set(bits(tree)) == {"embed.w", "head.w", "head.b"}

    def test_ties_survive_jit_and_identity_does_not(self) -> None:
        same = []

        @jax.jit
        def look(tree: Any) -> Any:
            same.append(tree["embed"]["w"] is tree["head"]["w"])
            return jax.tree.map(lambda leaf: leaf + 1, tree)

        after = look(fj.freeze(self.tied(), "head.b"))
        look(fj.strip(self.tied()))
        assert same == [True, False]
        assert after["head"]["w"] is after["embed"]["w"]

    def test_equal_arrays_are_not_tied(self) -> None:
        same = jnp.ones(2)
        for params in ({"a": jnp.ones(2), "b": jnp.ones(2)}, {"a": same, "b": same}):
            assert fj.plan(fj.freeze(params, "a")).trainable == {"b"}

    def test_a_layer_with_a_frozen_and_a_trainable_use_is_two_parameters(self) -> None:
        layer = mlp().layers[0]
        plan = fj.plan([layer, fj.Frozen(layer)])
        assert (plan.frozen, plan.trainable) == ({"1.weight", "1.bias"}, {"0.weight", "0.bias"})
