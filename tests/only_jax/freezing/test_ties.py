"""Arrays are values: the same array at two places is two parameters, unless ``tie`` says that it is one."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

import frostline.jax as fj
from frostline.errors import NoMatchError, StructureError, TiedError
from only_jax.bits import bits

# Three arrays for all trees, so that most trees have one of them several times.
POOL = [jnp.array([1.0, 2.0]), jnp.array([3.0, 5.0]), jnp.array([-1.0, 4.0])]

arrays = st.sampled_from(POOL)
trees = st.recursive(
    arrays,
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, min_size=1),
    max_leaves=6,
).filter(lambda tree: not isinstance(tree, Array))


def loss(tree: Any) -> Array:
    """Each place has its own factor, so that no two places have the same gradient by chance."""
    return sum((jnp.sum(leaf**2) * (place + 1) for place, leaf in enumerate(jax.tree.leaves(tree))), jnp.zeros(()))


def table() -> dict[str, Any]:
    shared = jnp.array([1.0, 2.0])
    return {"embed": shared, "head": {"w": shared, "b": jnp.ones(2)}}


@given(trees, st.data())
@settings(max_examples=30, deadline=None)
def test_the_gradient_equals_that_of_jax_with_and_without_jit(tree: Any, data: st.DataObject) -> None:
    names = sorted(fj.trainable(tree))
    frozen = data.draw(st.sets(st.sampled_from(names), max_size=len(names) - 1))
    marked = fj.follow(tree, fj.plan(tree).freeze(frozen))
    expected = {name: array for name, array in bits(jax.grad(loss)(tree)).items() if name not in frozen}

    assert sorted(fj.trainable(marked)) == sorted(expected)
    for differentiated in (fj.grad(loss), jax.jit(fj.grad(loss))):
        assert bits(differentiated(marked)) == expected
    assert bits(fj.grad(loss, frozen=fj.plan(marked))(tree)) == expected


@given(trees)
@settings(max_examples=15, deadline=None)
def test_a_tied_array_has_the_sum_of_the_gradients_of_its_places(tree: Any) -> None:
    leaves = jax.tree.leaves(tree)
    if len({id(leaf) for leaf in leaves}) == len(leaves):
        return
    by_place = jax.tree.leaves(jax.grad(loss)(tree))
    sums = [sum(g for g, other in zip(by_place, leaves, strict=True) if other is leaf) for leaf in leaves]

    for differentiated in (fj.grad(loss), jax.jit(fj.grad(loss))):
        found = jax.tree.leaves(fj.strip(differentiated(fj.tie(tree))))
        assert [g.tolist() for g in found] == [g.tolist() for g in sums]


class TestTwoReadings:
    def test_a_target_made_of_the_online_net_is_frozen_alone(self) -> None:
        online = {"w": jnp.ones(2)}
        agent = fj.freeze({"online": online, "target": online, "actor": jnp.ones(2)}, "target")
        assert fj.trainable(agent).keys() == {"actor", "online.w"}
        gradient = fj.grad(lambda agent: (agent["online"]["w"] * agent["target"]["w"] * 3).sum())(agent)
        assert gradient["online"]["w"].tolist() == [3.0, 3.0]
        with fj.guard(agent) as watching:
            watching.verify(agent)
        assert watching.paths == {"target.w"}

    def test_one_zeros_for_many_biases_is_many_biases(self) -> None:
        zeros = jnp.zeros(2)
        params = fj.freeze([{"b": zeros}, {"b": zeros}, {"b": zeros}], "[0]")
        trained, rest = fj.split(params)
        after = fj.join(jax.tree.map(lambda leaf: leaf + 1, trained), rest)
        assert [layer["b"].tolist() for layer in after] == [[0, 0], [1, 1], [1, 1]]

    def test_a_tied_array_is_frozen_under_every_name(self) -> None:
        tied = fj.tie(table())
        assert fj.plan(fj.freeze(tied, "head.w")).frozen == {"embed"}
        assert fj.plan(fj.freeze(table(), "head.w")).frozen == {"head.w"}
        with pytest.raises(TiedError):
            fj.freeze(tied, "**", "!head")

    def test_pointing_at_an_array_freezes_every_place_of_it(self) -> None:
        params = table()
        assert fj.plan(fj.freeze(params, params["embed"])).frozen == {"embed", "head.w"}


class TestTie:
    def test_ties_by_name_equal_ties_by_identity(self) -> None:
        by_name = fj.tie(table(), "embed", "head.w")
        assert jax.tree.structure(by_name) == jax.tree.structure(fj.tie(table()))
        assert by_name["head"]["w"] is by_name["embed"]

    def test_equal_arrays_become_one(self) -> None:
        """The state after restoring a checkpoint, in which each name has its own array."""
        restored = jax.tree.map(jnp.copy, table())
        tied = fj.tie(restored, "head.w", "embed")
        assert tied["embed"] is tied["head"]["w"] is restored["head"]["w"]

    def test_layers_are_tied_one_by_one(self) -> None:
        layer = {"w": jnp.ones((2, 2)), "b": jnp.zeros(2)}
        tied = fj.tie({"encoder": layer, "decoder": dict(layer), "head": jnp.ones(2)}, "encoder", "decoder")
        assert fj.trainable(tied).keys() == {"decoder.b", "decoder.w", "head"}

    def test_ties_add_up(self) -> None:
        shared, other = jnp.ones(1), jnp.zeros(1)
        params = {"a": shared, "b": shared, "c": jnp.ones(1), "d": other, "e": other}
        tied = fj.tie(fj.tie(params), "b", "c")
        assert fj.trainable(tied).keys() == {"a", "d"}
        assert tied["c"] is tied["a"] is shared

    def test_frozen_uses_and_marks_do_not_change(self) -> None:
        layer = {"w": jnp.ones(1)}
        tied = fj.tie(fj.freeze([layer, fj.Frozen(layer), jnp.ones(1)], "[2]"))
        assert fj.plan(tied).frozen == {"1.w", "2"}
        assert fj.plan(tied).trainable == {"0.w"}

    @pytest.mark.parametrize(
        "kept",
        [
            lambda tree: jax.tree.map(lambda leaf: leaf * 2, tree),
            jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 2, tree)),
            lambda tree: pickle.loads(pickle.dumps(tree)),
            lambda tree: fj.thaw(fj.freeze(tree, "head.b")),
            lambda tree: fj.join(*fj.split(fj.freeze(tree, "head.b"))),
            lambda tree: optax.apply_updates(tree, jax.tree.map(jnp.ones_like, tree)),
        ],
        ids=["map", "jit", "pickle", "thaw", "join", "updates"],
    )
    def test_ties_are_kept(self, kept: Callable[[Any], Any]) -> None:
        after = kept(fj.tie(table()))
        assert fj.plan(after).paths == {"embed", "head.b"}
        assert after["embed"] is after["head"]["w"]


class TestRefused:
    @pytest.mark.parametrize(
        ("tied", "lines"),
        [
            (
                lambda: fj.tie({"a": jnp.ones(1), "b": jnp.ones(1)}),
                [
                    "tie(tree) finds no array that stands under two names among 2 parameters.",
                    'Name the places that are one array: tie(tree, "embed.weight", "head.weight").',
                ],
            ),
            (
                lambda: jax.jit(fj.tie)(table()),
                [
                    "tie(tree) finds no array that stands under two names among 3 parameters.",
                    "  It is called inside jit, where each place has an array of its own.",
                    'Name the places that are one array: tie(tree, "embed.weight", "head.weight").',
                ],
            ),
            (
                lambda: fj.tie(table(), "embed"),
                [
                    "tie(tree, 'embed') is given one path, which names 1 parameter.",
                    "  embed",
                    'Give all names of the array: tie(tree, "embed.weight", "head.weight").',
                ],
            ),
            (
                lambda: fj.tie(table(), "embed", "head"),
                [
                    "tie(tree, 'embed', 'head') is given paths with different numbers of parameters.",
                    "  'embed': 1 parameter",
                    "  'head': 2 parameters",
                    "Give names of arrays, or of layers with the same parameters.",
                ],
            ),
            (
                lambda: fj.tie({"a": jnp.ones(2), "b": jnp.ones((2, 1))}, "a", "b"),
                [
                    "tie(tree, 'a', 'b') is given 'a' and 'b', which cannot be one array.",
                    "  a: float32 (2,)",
                    "  b: float32 (2, 1)",
                    "Tie arrays of one shape and dtype.",
                ],
            ),
            (
                lambda: fj.tie(table(), "embed", "head.b"),
                [
                    "tie(tree, 'embed', 'head.b') is given 'embed' and 'head.b', whose values differ.",
                    "Put one array at both places first: that of 'embed' at 'head.b'.",
                ],
            ),
        ],
        ids=["nothing to tie", "in jit", "one path", "different numbers", "different shapes", "different values"],
    )
    def test_the_whole_text(self, tied: Callable[[], Any], lines: list[str]) -> None:
        with pytest.raises(StructureError) as caught:
            tied()
        assert str(caught.value).split("\n") == lines

    def test_a_typo(self) -> None:
        with pytest.raises(NoMatchError):
            fj.tie(table(), "embed", "haed.w")
