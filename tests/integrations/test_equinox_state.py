"""Layers of Equinox with a state or a mode: normalisation and dropout, in sequences, frozen (L7)."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import frostline.jax as fj
from only_jax.programs import longest_constant, recorded
from only_jax.trees import contents

EXAMPLE = Path(__file__).parents[2] / "examples" / "equinox_finetuning.py"
KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32))


def batch_norm(mode: str) -> Callable[[], eqx.nn.Sequential]:
    """A norm and a dropout in a layer of their own, before the head."""

    def made() -> eqx.nn.Sequential:
        norm = eqx.nn.BatchNorm(3, axis_name="batch", mode=mode)  # type: ignore[arg-type]
        body = eqx.nn.Sequential([eqx.nn.Linear(3, 3, key=KEY), norm, eqx.nn.Dropout(0.5)])
        return eqx.nn.Sequential([body, eqx.nn.Linear(3, 2, key=KEY)])

    return made


def spectral_norm() -> eqx.nn.Sequential:
    normed = eqx.nn.SpectralNorm(eqx.nn.Linear(3, 3, key=KEY), "weight", key=KEY)
    return eqx.nn.Sequential([eqx.nn.Sequential([normed, eqx.nn.Dropout(0.5)]), eqx.nn.Linear(3, 2, key=KEY)])


MODELS = {"ema": batch_norm("ema"), "batch": batch_norm("batch"), "spectral": spectral_norm}
each_model = pytest.mark.parametrize("made", MODELS.values(), ids=MODELS)


def use_when_built(made: Callable[[], Any]) -> tuple[Any, eqx.nn.State]:
    """Frozen before Equinox takes the state out of the model."""

    def with_use() -> Any:
        return eqx.tree_at(lambda model: model.layers[0], made(), replace_fn=fj.Frozen)

    return eqx.nn.make_with_state(with_use)()


def marked_when_built(made: Callable[[], Any]) -> tuple[Any, eqx.nn.State]:
    return eqx.nn.make_with_state(lambda: fj.freeze(made(), "layers[0]"))()


def use_afterwards(made: Callable[[], Any]) -> tuple[Any, eqx.nn.State]:
    model, state = eqx.nn.make_with_state(made)()
    return eqx.tree_at(lambda model: model.layers[0], model, replace_fn=fj.Frozen), state


def marked_afterwards(made: Callable[[], Any]) -> tuple[Any, eqx.nn.State]:
    model, state = eqx.nn.make_with_state(made)()
    return fj.freeze(model, "layers[0]"), state


WAYS = (use_when_built, marked_when_built, use_afterwards, marked_afterwards)
each_way = pytest.mark.parametrize("frozen", WAYS, ids=[way.__name__ for way in WAYS])


def run(model: Any, state: Any, x: Array, seed: int) -> tuple[Array, Any]:
    keys = jax.random.split(jax.random.key(seed), len(x))
    call = jax.vmap(
        lambda x, state, key: model(x, state, key=key),
        in_axes=(0, None, 0),
        out_axes=(0, None),
        axis_name="batch",
    )
    return call(x, state, keys)


def loss(model: Any, state: Any, x: Array, seed: int) -> tuple[Array, Any]:
    y, state = run(model, state, x, seed)
    return (y**2).sum(), state


def warmed(model: Any, state: Any) -> Any:
    """A state that has moved, so that the frozen one is not merely the first."""
    return run(fj.strip(model), state, X + 1, 0)[1]


@each_model
@each_way
def test_the_state_is_still_and_dropout_is_off(frozen: Any, made: Callable[[], Any]) -> None:
    """What comes out is what the model computes in inference mode, and so whatever the key of the dropout."""
    model, state = frozen(made)
    state = warmed(model, state)
    y, after = run(model, state, X, seed=1)
    assert contents(after) == contents(state)
    body = eqx.nn.inference_mode(fj.strip(model)).layers[0]
    expected = run(eqx.tree_at(lambda model: model.layers[0], fj.strip(model), body), state, X, seed=2)[0]
    assert contents(y) == contents(expected)


@each_model
def test_unfrozen_the_state_moves_and_dropout_is_on(made: Callable[[], Any]) -> None:
    """The negative control."""
    model, state = eqx.nn.make_with_state(made)()
    state = warmed(model, state)
    y, after = run(model, state, X, seed=1)
    assert contents(after) != contents(state)
    assert contents(run(model, state, X, seed=2)[0]) != contents(y)


@each_model
def test_frozen_in_part_the_module_is_left_as_it_is(made: Callable[[], Any]) -> None:
    model, state = eqx.nn.make_with_state(made)()
    biases = [name for name in fj.trainable(model) if name.startswith("layers.0.") and name.endswith("bias")]
    y, after = run(fj.freeze(model, *biases), warmed(model, state), X, seed=1)
    expected, moved = run(model, warmed(model, state), X, seed=1)
    assert contents(y) == contents(expected)
    assert contents(after) == contents(moved) != contents(warmed(model, state))


@each_model
@each_way
def test_through_training_steps(frozen: Any, made: Callable[[], Any]) -> None:
    """The state is an auxiliary result of the loss, as ever; the frozen part and its statistics stay as they were."""
    model, state = frozen(made)
    state = warmed(model, state)
    before = contents(state)
    body = contents(eqx.filter(fj.strip(model).layers[0], eqx.is_array))

    @eqx.filter_jit
    def step(model: Any, state: Any, x: Array, seed: int) -> tuple[Any, Any]:
        (_, state), slopes = fj.value_and_grad(loss, has_aux=True)(model, state, x, seed)
        trained, rest = fj.split(model)
        return fj.join(jax.tree.map(lambda leaf, slope: leaf - 0.1 * slope, trained, slopes), rest), state

    trained = model
    for seed in range(2):
        trained, state = step(trained, state, X, seed)
    assert contents(state) == before
    assert contents(eqx.filter(fj.strip(trained).layers[0], eqx.is_array)) == body
    assert contents(trained.layers[1].weight) != contents(model.layers[1].weight)
    assert jax.tree.structure(trained) == jax.tree.structure(model)


@each_model
def test_a_sequence_with_a_frozen_stateful_layer_in_it_hands_the_state_on(made: Callable[[], Any]) -> None:
    """A sequence looks at the class of a layer to know whether it has a state."""
    model, state = marked_afterwards(made)
    norm = fj.strip(model).layers[0].layers[-2]
    use = fj.Frozen(norm)
    assert isinstance(use, eqx.nn.StatefulLayer)
    assert use.is_stateful()
    alone = eqx.nn.Sequential([use, eqx.nn.Linear(3, 2, key=KEY)])
    y, after = run(alone, state, X, seed=0)
    assert y.shape == (8, 2)
    assert contents(after) == contents(state)


def test_a_frozen_layer_without_a_state_in_a_sequence_with_one() -> None:
    model, state = eqx.nn.make_with_state(batch_norm("ema"))()
    frozen_head = eqx.tree_at(lambda model: model.layers[1], model, replace_fn=fj.Frozen)
    assert not isinstance(frozen_head.layers[1], eqx.nn.StatefulLayer)
    y, after = run(frozen_head, state, X, seed=0)
    expected, moved = run(model, state, X, seed=0)
    assert contents(y) == contents(expected)
    assert contents(after) == contents(moved) != contents(state)


def test_a_norm_without_parameters_is_frozen_as_a_use() -> None:
    """It has no parameter, so nothing but a use of it, or all of the module around it, can be frozen."""

    def made() -> eqx.nn.Sequential:
        norm = eqx.nn.BatchNorm(3, axis_name="batch", mode="batch", channelwise_affine=False)
        return eqx.nn.Sequential([eqx.nn.Linear(3, 3, key=KEY), norm])

    model, state = eqx.nn.make_with_state(made)()
    use = eqx.tree_at(lambda model: model.layers[1], model, replace_fn=fj.Frozen)
    assert [contents(run(tree, state, X, 0)[1]) == contents(state) for tree in (use, fj.freeze(model), model)] == [
        True,
        True,
        False,
    ]


def test_inference_mode_goes_through_windows_and_thawing_gives_the_mode_back() -> None:
    model, state = eqx.nn.make_with_state(batch_norm("ema"))()
    frozen = fj.freeze(model, "layers[0]")
    assert fj.plan(eqx.nn.inference_mode(frozen)) == fj.plan(frozen)
    assert (frozen.layers[0].layers[2].inference, fj.strip(frozen).layers[0].layers[2].inference) == (True, False)
    y, after = run(fj.thaw(frozen), state, X, 0)
    expected, moved = run(model, state, X, 0)
    assert (contents(y), contents(after)) == (contents(expected), contents(moved))


class Counting(eqx.nn.StatefulLayer):
    """A layer that counts its calls, unless it is in inference mode, if it knows of one."""

    index: eqx.nn.StateIndex
    scale: Array
    inference: bool | None

    def __init__(self, *, inference: bool | None) -> None:
        self.index, self.scale, self.inference = eqx.nn.StateIndex(jnp.array(0)), jnp.ones(()), inference

    def __call__(self, x: Array, state: Any, *, key: Any = None) -> tuple[Array, Any]:
        del key
        return x * self.scale, state if self.inference else state.set(self.index, state.get(self.index) + 1)


def test_a_layer_of_ones_own_is_still_if_it_heeds_the_mode() -> None:
    """Equinox hands a state in and out of a call; a layer that writes to it in any mode writes to it when frozen."""
    counts = {}
    for inference in (False, None):
        model, state = eqx.nn.make_with_state(lambda inference=inference: fj.Frozen(Counting(inference=inference)))()
        counts[inference] = int(model(X, state)[1].get(fj.strip(model).index))
    assert counts == {False: 0, None: 1}


def test_the_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = recorded(monkeypatch)
    assert EXAMPLE.read_text(encoding="utf-8").count("\n") <= 80
    found = runpy.run_path(str(EXAMPLE))["main"]()
    # Neither weights nor data are constants of a program.
    assert max(map(longest_constant, programs)) < 20
    pretrained, head, deeper = found["accuracy"].values()
    assert pretrained < 0.6 < head < 0.9 < deeper
    assert found["moved"] == [
        "layers.0.layers.1.layers.0.bias",
        "layers.0.layers.1.layers.0.weight",
        "layers.1.bias",
        "layers.1.weight",
    ]
    assert found["statistics still"] is True
