"""Copying, pickling, exporting and checkpointing (L5, L11)."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
import pytest
from jax import export

import frostline.jax as fj
from only_jax.trees import Chain, Way, by_hand, chain, contents, each_way, frozen_by_mark, frozen_use, inputs, loss

X = inputs()


@each_way
@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, lambda tree: pickle.loads(pickle.dumps(tree))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copy_has_the_same_frozen_set(frozen: Way, again: Any) -> None:
    tree = frozen(chain())
    other = again(tree)
    assert jax.tree.structure(other) == jax.tree.structure(tree)
    assert fj.plan(other) == fj.plan(tree)
    assert contents(other) == contents(tree)
    assert contents(fj.grad(loss)(other, X)) == contents(by_hand(X, chain()))


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda tree: pickle.loads(pickle.dumps(tree))], ids=["deepcopy", "pickle"]
)
def test_two_models_that_are_copied_together_still_share(again: Any) -> None:
    whole = chain()
    one, other = again((whole, frozen_use(whole)))
    assert [a is b for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True)] == 6 * [True]
    separate = again(whole), again(frozen_use(whole))
    assert [a is b for a, b in zip(*map(jax.tree.leaves, separate), strict=True)] == 6 * [False]


class TestExport:
    """A compiled function in a file takes and returns trees."""

    @each_way
    def test_an_exported_gradient(self, frozen: Way) -> None:
        tree = frozen(chain())
        exported = export.export(jax.jit(fj.value_and_grad(loss)))(tree, X)
        again = export.deserialize(exported.serialize())
        assert again.in_tree == exported.in_tree
        assert again.out_tree == exported.out_tree
        value, gradient = again.call(tree, X)
        assert contents(gradient) == contents(by_hand(X, chain()))
        assert jax.tree.structure(gradient) == jax.tree.structure(fj.split(tree)[0])
        assert contents(value) == contents(loss(chain(), X))

    def test_an_exported_tree_with_ties_uses_and_marks(self) -> None:
        model = chain()
        tree = fj.freeze(fj.tie([model, fj.Frozen(model), model.layers[0]]), "[0].layers[1].bias")
        exported = export.export(jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 2, tree)))(tree)
        back = export.deserialize(exported.serialize()).call(tree)
        assert jax.tree.structure(back) == jax.tree.structure(tree)
        assert fj.plan(back) == fj.plan(tree)
        plain = fj.strip(back)
        assert plain[0].layers[0].weight is plain[1].layers[0].weight is plain[2].weight
        assert contents(plain) == contents(jax.tree.map(lambda leaf: leaf * 2, [model, model, model.layers[0]]))

    @each_way
    def test_the_gradient_of_an_exported_function(self, frozen: Way) -> None:
        tree = frozen(chain())
        exported = export.export(jax.jit(loss))(tree, X)
        again = export.deserialize(exported.serialize(vjp_order=1))
        gradient = jax.grad(again.call)(tree, X)
        assert contents(fj.split(gradient)[0]) == contents(by_hand(X, chain()))
        assert [gradient.layers[1].weight.any(), gradient.layers[1].bias.any()] == [False, False]

    def test_an_exported_evaluation_takes_the_stripped_tree_of_any_plan(self) -> None:
        exported = export.export(jax.jit(loss))(chain(), X)
        again = export.deserialize(exported.serialize())
        values = [again.call(fj.strip(tree), X) for tree in (chain(), frozen_use(chain()), frozen_by_mark(chain()))]
        assert [float(value) for value in values] == 3 * [float(loss(chain(), X))]
        with pytest.raises(ValueError, match=r"args\[0\]\.layers\[1\] is a .*Linear.* exported, so their"):
            export.export(jax.jit(loss))(frozen_use(chain()), X).call(chain(), X)


class TestOrbax:
    """The checkpoint of a tree with marks or uses equals that of a model that was never frozen."""

    @each_way
    @pytest.mark.parametrize("saved", [lambda tree: tree, fj.strip], ids=["as it is", "stripped"])
    def test_it_loads_into_the_tree_as_it_is(self, frozen: Way, saved: Any, tmp_path: Path) -> None:
        tree = frozen(chain())
        restored = _restored(tmp_path, saved(tree), jax.tree.map(lambda leaf: leaf * 0, tree))
        assert jax.tree.structure(restored) == jax.tree.structure(tree)
        assert fj.plan(restored) == fj.plan(tree)
        assert contents(restored) == contents(chain())

    @each_way
    def test_it_loads_into_the_unfrozen_model(self, frozen: Way, tmp_path: Path) -> None:
        restored = _restored(tmp_path, frozen(chain()), jax.tree.map(lambda leaf: leaf * 0, chain()))
        assert jax.tree.structure(restored) == jax.tree.structure(chain())
        assert contents(restored) == contents(chain())

    def test_with_ties_each_array_is_saved_once(self, tmp_path: Path) -> None:
        model = chain()
        tree = fj.freeze(fj.tie(Chain((*model.layers, model.layers[0]))), "layers[1]")
        restored = _restored(tmp_path, tree, jax.tree.map(lambda leaf: leaf * 0, tree))
        assert restored.layers[0].weight is restored.layers[3].weight
        assert contents(restored) == contents(tree)

    @each_way
    def test_a_checkpoint_loads_into_the_unfrozen_model_and_back(self, frozen: Way, tmp_path: Path) -> None:
        tree = frozen(chain())
        restored = _restored(tmp_path, fj.strip(tree), jax.tree.map(lambda leaf: leaf * 0, chain()))
        assert jax.tree.structure(restored) == jax.tree.structure(chain())
        assert contents(restored) == contents(chain())
        again = fj.follow(restored, fj.plan(tree))
        assert fj.plan(again) == fj.plan(tree)
        assert contents(fj.grad(loss)(again, X)) == contents(by_hand(X, chain()))

    @each_way
    def test_a_checkpoint_of_the_unfrozen_model_loads(self, frozen: Way, tmp_path: Path) -> None:
        """The restored values go into a tree with the structure of the stripped one, and then behind its windows."""
        tree = frozen(jax.tree.map(lambda leaf: leaf * 0, chain()))
        restored = _restored(tmp_path, chain(), fj.strip(tree))
        again = jax.tree.unflatten(jax.tree.structure(tree), jax.tree.leaves(restored))
        assert contents(again) == contents(chain())
        assert fj.plan(again) == fj.plan(tree)

    def test_of_a_frozen_array(self, tmp_path: Path) -> None:
        tree = {"scale": fj.Frozen(chain().layers[0].bias), "layer": chain().layers[1]}
        restored = _restored(tmp_path, tree, jax.tree.map(lambda leaf: leaf * 0, tree))
        assert jax.tree.structure(restored) == jax.tree.structure(tree)
        assert contents(restored) == contents(tree)

    def test_of_a_tied_tree(self, tmp_path: Path) -> None:
        model = chain()
        tree = fj.freeze(Chain((*model.layers, model.layers[0])), "layers[1]")
        restored = _restored(tmp_path, fj.strip(tree), fj.strip(tree))
        assert contents(restored) == contents(Chain((*model.layers, model.layers[0])))


def _restored(folder: Path, saved: Any, like: Any) -> Any:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "checkpoint", saved)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "checkpoint", like)
