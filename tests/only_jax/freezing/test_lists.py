"""Lists and tuples of parts of a tree are selectors of their members."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import frostline.jax as fj
from frostline import NoMatchError
from frostline.errors import SelectorError


def mlp() -> eqx.nn.MLP:
    return eqx.nn.MLP(2, 2, 3, 2, key=jax.random.key(0))


def test_the_members_of_a_list_are_selected() -> None:
    model = mlp()
    assert fj.plan(fj.freeze(model, [model.layers[0].bias, model.layers[2]])).frozen == {
        "layers.0.bias",
        "layers.2.weight",
        "layers.2.bias",
    }
    frozen = fj.freeze(model, list(model.layers[:2]), "!**.bias")
    assert fj.plan(frozen).frozen == {"layers.0.weight", "layers.1.weight"}
    named = {"a": model.layers[0].bias, "b": (model.layers[1].bias,)}
    assert fj.plan(fj.freeze(model, named.values())).frozen == {"layers.0.bias", "layers.1.bias"}
    assert fj.select(model, [model.layers[1]]).paths == ("layers.1.weight", "layers.1.bias")


def test_a_list_of_the_tree_is_itself() -> None:
    tree = {"layers": [jnp.ones(2), jnp.ones(3)], "head": [jnp.ones(4)]}
    assert fj.plan(fj.freeze(tree, tree["layers"])).frozen == {"layers.0", "layers.1"}


def test_an_empty_list_is_nothing_and_never_the_whole_tree() -> None:
    for empty in ([], ()):
        with pytest.raises(NoMatchError):
            fj.freeze(mlp(), empty)
    assert fj.plan(fj.freeze(mlp(), [], allow_empty=True)).frozen == frozenset()


def test_a_member_that_is_not_of_the_tree_is_an_error() -> None:
    model = mlp()
    with pytest.raises(NoMatchError):
        fj.freeze(model, [model.layers[0], jnp.ones(7)])


@pytest.mark.parametrize("wrong", [["layers"], [1]], ids=str)
def test_a_list_of_something_else_is_an_error(wrong: object) -> None:
    with pytest.raises((SelectorError, NoMatchError)):
        fj.freeze(mlp(), wrong)
