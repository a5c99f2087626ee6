"""An index of a pattern is for what Python indexes, and for one name with numbers; never for rows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

import frostline.jax as fj
from frostline import NoMatchError, UnsupportedError


class Pair(NamedTuple):
    body: object
    head: object


def numbered(name: str, count: int = 12) -> dict[str, object]:
    return {name.format(number): {"kernel": jnp.ones(1)} for number in range(count)}


@pytest.mark.parametrize("name", ["layers_{}", "Dense_{}", "block{}", "{}"])
def test_numbered_names_go_by_their_number(name: str) -> None:
    tree = fj.freeze({"encoder": numbered(name)}, "encoder[:-2]")
    assert fj.trainable(tree).keys() == {f"encoder.{name.format(number)}.kernel" for number in (10, 11)}


def test_a_list_and_a_tuple_with_names_have_positions() -> None:
    tree = [Pair({"w": jnp.ones(2)}, {"w": jnp.ones(3)}), None, {"act": "relu"}, {"w": jnp.ones(4)}]
    assert fj.plan(fj.freeze(tree, "[0][1]")).frozen == {"0.head.w"}
    assert fj.plan(fj.freeze(tree, "[-1]")).frozen == {"3.w"}
    assert fj.plan(fj.freeze(tree, "[:3]")).frozen == {"0.body.w", "0.head.w"}
    with pytest.raises(NoMatchError):
        fj.freeze(tree, "[1]")


@pytest.mark.parametrize("selector", ["[0]", "[:-1]", "[:]", "Conv_0[0]"])
def test_a_mapping_without_numbers_has_no_positions(selector: str) -> None:
    tree = {"Conv_0": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}, "Dense_0": {"kernel": jnp.ones((4, 2))}}
    with pytest.raises(NoMatchError) as caught:
        fj.freeze(tree, selector)
    assert caught.value.closest in (("Conv_0", "Dense_0"), ("Conv_0.bias", "Conv_0.kernel"))


@pytest.mark.parametrize("selector", ["layers[:10]", "layers[0]", "layers.w[-1]", "nested[0]", "nested.mlp[:2]"])
def test_a_slice_of_stacked_layers_is_not_all_of_them(selector: str) -> None:
    layers = {"w": jnp.ones((12, 3, 3)), "b": jnp.ones((12, 3))}
    tree = {"layers": layers, "nested": {"attn": layers, "mlp": layers}, "head": jnp.ones(3)}
    with pytest.raises(UnsupportedError):
        fj.freeze(tree, selector)


def test_the_error_of_stacked_layers_says_what_to_name() -> None:
    tree = {"layers": {"w": jnp.ones((12, 3, 3)), "b": jnp.ones((12, 3))}, "head": jnp.ones(3)}
    with pytest.raises(UnsupportedError) as caught:
        fj.freeze(tree, "layers[:10]")
    assert str(caught.value) == (
        "'layers[:10]' names rows of 'layers', which has no positions, and 2 parameters with a first axis of 12: "
        "rows cannot be frozen yet.\n"
        "Name what is below it: 'layers.b', 'layers.w'. Or split stacked layers into a list: "
        "[{name: array[i] for name, array in layers.items()} for i in range(12)]."
    )


def test_the_error_of_stacked_layers_that_are_the_whole_tree() -> None:
    with pytest.raises(UnsupportedError) as caught:
        fj.freeze({"w": jnp.ones((12, 3)), "b": jnp.ones(12)}, "[:-1]")
    assert str(caught.value) == (
        "'[:-1]' names rows of the model, which has no positions, and 2 parameters with a first axis of 12: "
        "rows cannot be frozen yet.\n"
        "Name what is below it: 'b', 'w'. Or split stacked layers into a list: "
        "[{name: array[i] for name, array in layers.items()} for i in range(12)]."
    )


def test_the_layers_that_the_error_makes_have_positions() -> None:
    layers = {"w": jnp.ones((12, 3, 3)), "b": jnp.ones((12, 3))}
    split = [{name: array[i] for name, array in layers.items()} for i in range(12)]
    assert sorted(fj.trainable(fj.freeze({"layers": split}, "layers[:11]"))) == ["layers.11.b", "layers.11.w"]


OTHERS = {
    "an array of integers": ("q", ["  q: int8 (3,)"]),
    "a number": ("steps", ["  steps: int"]),
    "all below a name": ("old", ["  old.codes: int8 (2, 2)", "  old.key: key<fry>"]),
    "a pattern": ("**.codes", ["  old.codes: int8 (2, 2)"]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_floating_array_is_said_to_be_none(name: str) -> None:
    selector, lines = OTHERS[name]
    old = {"codes": jnp.ones((2, 2), jnp.int8), "key": jax.random.key(0)}
    tree = {"q": jnp.ones(3, jnp.int8), "w": jnp.ones(3), "steps": 3, "old": old}
    with pytest.raises(NoMatchError) as caught:
        fj.freeze(tree, selector)
    counted = "1 leaf that is no floating array" if len(lines) == 1 else "2 leaves that are no floating arrays"
    assert str(caught.value).splitlines() == [
        f"{selector!r} matches none of the 1 parameter.",
        f"It matches {counted}, and no training moves what is none:",
        *lines,
        "Fix the pattern, or pass allow_empty=True if matching nothing is what you want.",
    ]


def test_an_array_of_integers_as_a_selector_is_said_to_be_none() -> None:
    tree = {"q": jnp.ones(3, jnp.int8), "w": jnp.ones(3)}
    with pytest.raises(NoMatchError, match=r"q: int8 \(3,\)"):
        fj.freeze(tree, tree["q"])
