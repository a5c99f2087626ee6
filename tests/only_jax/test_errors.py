"""The whole text of every error that the JAX front end raises, and that none of them changes the tree."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import frostline.jax as fj
from frostline import FrostlineError
from frostline.errors import TiedError
from only_jax.refused import TEXTS, net

each = pytest.mark.parametrize(("act", "lines"), [row[1:] for row in TEXTS], ids=[row[0] for row in TEXTS])


@each
def test_the_whole_text(act: Callable[[Any], object], lines: list[str]) -> None:
    with pytest.raises(FrostlineError) as caught:
        act(net())
    assert str(caught.value).split("\n") == lines


@each
def test_the_tree_does_not_change(act: Callable[[Any], object], lines: list[str]) -> None:
    tree = fj.freeze(net(), "trunk.b")
    leaves, structure = jax.tree.flatten(tree)
    before = [np.asarray(leaf).tobytes() for leaf in leaves]
    with pytest.raises(FrostlineError):
        act(tree)
    assert jax.tree.structure(tree) == structure
    assert [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)] == before


@each
def test_an_error_can_be_pickled(act: Callable[[Any], object], lines: list[str]) -> None:
    with pytest.raises(FrostlineError) as caught:
        act(net())
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), vars(again)) == (type(caught.value), str(caught.value), vars(caught.value))


def test_one_array_chosen_and_refused() -> None:
    table = np.ones((3, 2))
    with pytest.raises(TiedError) as caught:
        fj.freeze(fj.tie({"embed": {"w": table}, "head": {"w": table}}), "**", "!head")
    assert str(caught.value).split("\n") == [
        "'embed.w' and 'head.w' are two names of one tensor, and it cannot be both frozen and trainable.",
        "  'embed.w' is chosen by '**'",
        "  'head.w' is refused by '!head'",
        "Choose both names, or refuse both: add '!embed.w' as the last selector to leave the tensor out.",
    ]


def test_setting_through_a_window() -> None:
    with pytest.raises(AttributeError) as caught:
        net()["use"].w = 1
    assert str(caught.value) == "'w' cannot be set through a frozen tree: set it on the layer, then freeze."
