"""Lean losses: fewer bytes saved for backward, and the same gradients."""

from __future__ import annotations

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import frostline.jax as fj
from frostline import UnsupportedError
from frostline.errors import NothingFrozenError
from frostline.jax._lean.regions import RegionChoice
from frostline.jax._lean.rewriting import Rewriting
from only_jax.cost.costed import FLAT, MODELS, SQUARE, data, made, predicted, products, really_saved, stack, weights

gelu = stack(jax.nn.gelu)

# Bytes saved for backward, plain and lean, with the layers 1 and 2 of 4 frozen, and with the layers 1 to 3.
BYTES = {
    "gelu": ((11264, 5120), (10752, 4608)),
    "silu": ((7168, 3072), (6656, 2560)),
    "relu": ((1536, 1536), (1024, 1024)),
    "residual": ((15232, 6656), (14720, 6144)),
    "jitted": ((15232, 6656), (14720, 6144)),
    "attention": ((12160, 9216), (11648, 8704)),
    "scanned": ((7680, 3072), (7168, 2560)),
    "branching": ((6416, 4368), (5904, 3856)),
    "repeated": ((2048, 2048), (2048, 2048)),
    "convolved": ((160704, 63504), (155520, 58320)),
    "strided": ((18416, 3216), (18160, 2960)),
    "grouped": ((162432, 65232), (157248, 60048)),
    "depthwise": ((63072, 39744), (57888, 34560)),
}


def gradients(loss: Any, tree: Any, *batch: Any) -> list[bytes]:
    found = jax.jit(fj.value_and_grad(loss))(tree, *batch)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(found)]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("place", "column"), [("middle", 0), ("suffix", 1)])
def test_bytes_as_literals(model: str, place: str, column: int) -> None:
    loss, tree, x = made(model, place)
    assert tuple(predicted(fn, tree, x) for fn in (loss, fj.lean(loss))) == BYTES[model][column]


@pytest.mark.parametrize("place", ["prefix", "middle", "suffix", "scattered"])
@pytest.mark.parametrize("model", ["gelu", "silu", "scanned", "branching"])
def test_gradients_are_bitwise_the_same(model: str, place: str) -> None:
    loss, tree, x = made(model, place)
    assert gradients(fj.lean(loss), tree, x) == gradients(loss, tree, x)


def test_gradients_are_close_if_xla_fuses_operations_differently() -> None:
    """The operations are equal but fused differently, so the last bit may differ."""
    for model in ("residual",):
        loss, tree, x = made(model, "middle")
        plain, lean = (jax.tree.leaves(jax.jit(fj.value_and_grad(fn))(tree, x)) for fn in (loss, fj.lean(loss)))
        for one, other in zip(plain, lean, strict=True):
            assert float(jnp.abs(one - other).max()) <= 2e-6 * float(jnp.abs(one).max())


def test_fewer_bytes_in_a_real_step() -> None:
    loss, tree, x = made("residual", "middle")
    assert really_saved(fj.lean(loss), tree, x) <= 6656 + 64


def program(loss: Any, tree: Any, x: Any) -> Any:
    trained, rest = fj.split(tree)
    return jax.jit(jax.grad(lambda t, r, x: loss(fj.join(t, r), x))).lower(trained, rest, x).compile()


def test_memory_of_the_program() -> None:
    """The model has twelve layers with gelu; the first and the last one train."""
    layers = [w * n for n in (1, 2, 3) for w in weights(64, 64)]
    tree, x = fj.freeze(layers, "[1:11]"), data(256, 64)
    plain, lean = (program(fn, tree, x).memory_analysis().temp_size_in_bytes for fn in (gelu, fj.lean(gelu)))
    assert lean <= 0.62 * plain


@pytest.mark.parametrize(("loss", "place"), [(products, "[1:3]"), (stack(jax.nn.relu), "[1:3]"), (gelu, "[:3]")])
def test_the_program_does_not_change_if_lean_saves_nothing(loss: Any, place: str) -> None:
    tree, x = fj.freeze(weights(*SQUARE), place), data(*FLAT)
    plain, lean = (program(fn, tree, x) for fn in (loss, fj.lean(loss)))
    assert lean.memory_analysis().temp_size_in_bytes == plain.memory_analysis().temp_size_in_bytes
    assert lean.cost_analysis()["flops"] == plain.cost_analysis()["flops"]


def test_a_choice_that_ignores_bytes_saves_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: recomputation keeps more bytes than a mask."""
    monkeypatch.setattr(RegionChoice, "_is_worth_it", lambda self, region: True)
    loss, tree, x = made("relu", "middle")
    assert fj.cost(fj.lean(loss), tree, x).now.saved_bytes > 1536


def test_a_function_without_a_region_stays_the_same_object() -> None:
    closed = jax.make_jaxpr(products)(weights(*SQUARE), data(*FLAT))
    bits = [1, 0, 0, 0, 2]
    assert Rewriting().of(closed, bits, [True] * 5) is closed


class TestWaysToFreeze:
    """A parameter is frozen if no gradient is asked for it."""

    def test_marks_are_read_by_any_gradient(self) -> None:
        tree = fj.freeze(weights(*SQUARE), "[1:3]")
        found = jax.grad(fj.lean(gelu))(tree, data(*FLAT))
        assert [bool(np.any(leaf)) for leaf in fj.strip(found)] == [True, False, False, True]

    def test_a_model_split_by_hand(self) -> None:
        first, *rest = weights(*SQUARE)
        loss = fj.lean(gelu)
        plain, lean = (jax.grad(lambda w, fn=fn: fn([w, *rest], data(*FLAT)))(first) for fn in (gelu, loss))
        assert np.asarray(plain).tobytes() == np.asarray(lean).tobytes()
        stopped = jax.grad(lambda layers: loss([layers[0], *lax.stop_gradient(layers[1:])], data(*FLAT)))(
            [first, *rest]
        )
        assert np.allclose(stopped[0], plain, rtol=1e-6)

    def test_frozen_uses_and_other_leaves(self) -> None:
        model = {
            "first": data(8, 8),
            "use": fj.Frozen({"w": data(8, 8), "n": 3}),
            "act": jax.nn.gelu,
            "step": jnp.arange(2),
        }

        def loss(m: Any, x: Any, scale: float = 1.0) -> Any:
            x = m["act"](x @ m["first"])
            return (m["act"](x @ m["use"]["w"]) ** m["use"]["n"]).sum() * scale, {"step": m["step"], "mean": x.mean()}

        (plain, aux), gradient = fj.value_and_grad(loss, has_aux=True)(model, data(*FLAT), scale=2.0)
        (lean, lean_aux), lean_gradient = fj.value_and_grad(fj.lean(loss), has_aux=True)(model, data(*FLAT), scale=2.0)
        assert np.asarray(plain).tobytes() == np.asarray(lean).tobytes()
        assert lean_aux["step"].tolist() == aux["step"].tolist() == [0, 1]
        assert np.allclose(lean_gradient["first"], gradient["first"], rtol=1e-6)
        assert lean_gradient["use"]["w"] is None

    def test_results_that_are_not_arrays_do_not_change(self) -> None:
        def loss(layers: Any, x: Any) -> Any:
            return gelu(layers, x), {"name": "gelu", "layers": len(layers), "mean": x.mean()}

        tree = fj.freeze(weights(*SQUARE), "[1:3]")
        (_, aux), _ = fj.value_and_grad(fj.lean(loss), has_aux=True)(tree, data(*FLAT))
        assert (aux["name"], aux["layers"], aux["mean"].shape) == ("gelu", 4, ())

    def test_captured_arrays_may_be_trained(self) -> None:
        first, *rest = weights(*SQUARE)

        def outer(w: Any) -> Any:
            return fj.lean(lambda rest, x: gelu([w, *rest], x))(rest, data(*FLAT))

        plain = jax.grad(lambda w: gelu([w, *rest], data(*FLAT)))(first)
        assert np.asarray(jax.grad(outer)(first)).tobytes() == np.asarray(plain).tobytes()


class TestComposition:
    def test_second_derivatives(self) -> None:
        first, second, *_ = weights(4, 4)
        # Compiled, because single operations take longer.
        plain, lean = (
            jax.jit(jax.hessian(lambda w, fn=fn: fn([w, second], data(3, 4))))(first) for fn in (gelu, fj.lean(gelu))
        )
        assert np.allclose(plain, lean, rtol=1e-4, atol=1e-5)

    def test_a_lean_loss_under_vmap_saves_as_little(self) -> None:
        tree = fj.freeze(weights(*SQUARE), "[1:3]")

        def mapped(fn: Any) -> Any:
            return lambda tree, x: jax.vmap(lambda row: fn(tree, row[None]))(x).sum()

        plain, lean = (fj.cost(mapped(fn), tree, data(*FLAT)).now.saved_bytes for fn in (gelu, fj.lean(gelu)))
        assert (plain, lean) == (11776, 5632)
        assert gradients(mapped(fj.lean(gelu)), tree, data(*FLAT)) == gradients(mapped(gelu), tree, data(*FLAT))

    def test_half_precision(self) -> None:
        tree = fj.freeze([w.astype(jnp.bfloat16) for w in weights(*SQUARE)], "[1:3]")
        x = data(*FLAT).astype(jnp.bfloat16)
        plain, lean = (fj.cost(fn, tree, x).now.saved_bytes for fn in (gelu, fj.lean(gelu)))
        assert lean < 0.5 * plain

    def test_dropout_is_the_same(self) -> None:
        def loss(layers: Any, x: Any, key: Any) -> Any:
            for w in layers:
                x = jax.nn.gelu(x @ w) * jax.random.bernoulli(key, 0.5, x.shape)
            return x.sum()

        tree, key = fj.freeze(weights(*SQUARE), "[1:3]"), jax.random.key(3)
        assert gradients(fj.lean(loss), tree, data(*FLAT), key) == gradients(loss, tree, data(*FLAT), key)

    def test_effects_do_not_change(self) -> None:
        seen: list[float] = []

        def loss(layers: Any, x: Any) -> Any:
            value = gelu(layers, x)
            jax.debug.callback(lambda v: seen.append(float(v)), value)
            return value

        tree = fj.freeze(weights(*SQUARE), "[1:3]")
        fj.value_and_grad(fj.lean(loss))(tree, data(*FLAT))
        jax.effects_barrier()
        assert len(seen) == 1

    def test_without_a_gradient_a_lean_loss_is_the_function(self) -> None:
        assert (
            np.asarray(fj.lean(gelu)(weights(*SQUARE), data(*FLAT))).tobytes()
            == np.asarray(gelu(weights(*SQUARE), data(*FLAT))).tobytes()
        )


class TestErrors:
    def test_nothing_is_frozen(self) -> None:
        with pytest.raises(NothingFrozenError) as raised:
            jax.grad(fj.lean(gelu))(weights(*SQUARE), data(*FLAT))
        assert str(pickle.loads(pickle.dumps(raised.value))).splitlines() == [
            "lean(fn) finds nothing frozen among 4 parameters.",
            "Only frozen parts can be made cheap, and all of it is trainable.",
            'Freeze first: tree = freeze(tree, "encoder"); lean(fn).',
        ]

    def test_a_budget(self) -> None:
        with pytest.raises(UnsupportedError) as raised:
            fj.lean(gelu, memory_budget=0.5)
        assert str(raised.value).splitlines() == [
            "lean(fn, memory_budget=0.5) would have to choose layers to compute twice, but lean computes only cheap "
            "steps twice.",
            "Leave it out, or choose the layers yourself: layer = jax.checkpoint(layer), which lean leaves as it is.",
        ]
