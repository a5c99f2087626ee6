"""Selecting modules and arrays of a tree by pointing at them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import pytest

import frostline.jax as fj
from frostline.errors import SelectorError
from frostline.jax._freezing import selection as _selection


@pytest.mark.parametrize("together", [["body", "head"], ("body", "head")])
def test_selectors_in_a_list(together: Any) -> None:
    with pytest.raises(SelectorError) as caught:
        fj.freeze({"body": jnp.ones(1), "head": jnp.ones(1)}, together)
    assert str(caught.value).split("\n") == [
        f"{together!r} is of type {type(together).__name__}; a selector is a string, a selector value, or a module or "
        "array of the tree.",
        "Pass several selectors one by one: freeze(tree, *selectors).",
    ]


class TestObjects:
    """An object selects the module with the same arrays in the same places, and not a larger one."""

    A, B = jnp.ones(1), jnp.ones(1)

    @pytest.mark.parametrize(
        ("tree", "wanted", "frozen"),
        [
            ({"x": {"w": A, "b": B}}, {"w": A, "b": B}, {"x.b", "x.w"}),
            ({"x": {"w": A, "b": B}}, {"w": A}, None),
            ({"x": {"w": A, "b": B}}, [B, A], {"x.b", "x.w"}),
            ({"x": {"w": A, "b": B}}, {"w": B, "b": A}, None),
            ({"x": {"w": A, "n": 3}}, {"w": A}, None),
            ({"x": [A, [A, B]], "y": B}, [A, B], {"x.1.0", "x.1.1"}),
            ({"x": [A, [A, B]], "y": B}, B, {"x.1.1", "y"}),
            ({"x": fj.freeze({"w": A}), "y": B}, {"w": A}, {"x.w"}),
        ],
    )
    def test_the_selected_modules(self, tree: Any, wanted: Any, frozen: set[str] | None) -> None:
        if frozen is None:
            with pytest.raises(LookupError, match="It is not, or no longer, part of this tree"):
                fj.freeze(tree, wanted)
        else:
            assert fj.plan(fj.freeze(tree, wanted)).frozen == frozen

    def test_many_modules_are_found_in_one_walk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each object is selected alone; the cost of one does not grow with the tree."""
        tree = [{"w": jnp.ones(1)} for _ in range(40)]
        looked: list[int] = []
        original = _selection._identical
        monkeypatch.setattr(_selection, "_identical", lambda *args: looked.append(1) or original(*args))
        assert len(fj.plan(fj.freeze(tree, *tree[:30])).frozen) == 30
        assert looked == []
