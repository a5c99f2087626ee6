"""The parameters that a loss can move, found from the loss alone."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import frostline.jax as fj
from frostline import Plan, UnsupportedError
from frostline._core.audit import Audit
from frostline.errors import SamePathError
from frostline.jax._inspection.audit import audit
from frostline.jax._jaxpr import flow as _flow
from frostline.jax._jaxpr.flow import GradientFlow
from only_jax.inspection.audited import LOSSES, Params, far_behind_a_zero_rule, from_nothing_by_rule, plain

each = pytest.mark.parametrize(
    ("loss", "reached", "stopped", "unused"), LOSSES, ids=[row[0].__name__ for row in LOSSES]
)
X = np.array([1.0, 2.0], np.float32)
ZEROS = bytes(8)
stop = lax.stop_gradient


def params() -> Params:
    return {name: jnp.ones(2) for name in "abc"}


def audited(reached: str = "", stopped: str = "", unused: str = "", frozen: str = "") -> Audit:
    return Audit(*(frozenset(paths.split()) for paths in (reached, stopped, unused, frozen)))


def contradictions(found: Audit, gradient: Mapping[str, Any]) -> set[str]:
    """The parameters that have a gradient although the audit says that none reaches them."""
    return {name for name, leaf in gradient.items() if np.asarray(leaf).tobytes() != ZEROS} - found.reached


@each
def test_the_audit_of_each_loss(loss: Callable[..., Any], reached: str, stopped: str, unused: str) -> None:
    assert audit(loss, params(), X) == audited(" ".join(reached), " ".join(stopped), " ".join(unused))


@each
def test_gradients_do_not_contradict_the_audit(
    loss: Callable[..., Any], reached: str, stopped: str, unused: str
) -> None:
    gradient = jax.jit(jax.grad(loss))(params(), X)
    assert contradictions(audit(loss, params(), X), gradient) == set()


def test_a_contradiction_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: an audit that takes every number for zero."""
    monkeypatch.setattr(GradientFlow, "constant", lambda self, value: 0)
    gradient = jax.grad(from_nothing_by_rule)(params(), X)
    assert contradictions(audit(from_nothing_by_rule, params(), X), gradient) == {"a"}


def test_a_zero_must_be_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: an audit that takes no product for zero finds a gradient where there is none."""
    monkeypatch.setattr(_flow, "_PRODUCTS", frozenset())
    assert audit(far_behind_a_zero_rule, params(), X).reached == {"a", "b"}


def test_a_gradient_that_happens_to_be_zero() -> None:
    def loss(p: Params) -> jax.Array:
        return jax.nn.relu(p["a"] - 100).sum()

    assert np.asarray(jax.grad(loss)({"a": jnp.ones(2)})["a"]).tobytes() == ZEROS
    assert audit(loss, {"a": jnp.ones(2)}) == audited(reached="a")


def apply(variables: Any, x: Any) -> Any:
    """A function like the apply function of a library, with parameters by scope and a stop inside."""

    def dense(scope: str, x: Any) -> Any:
        return x @ variables[scope]["w"] + variables[scope]["b"]

    return dense("net/~/head", stop(jnp.tanh(dense("net/~/body", x))))


def scopes() -> Any:
    names = ("net/~/body", "net/~/head", "net/~/spare")
    return {scope: {"w": jnp.ones((2, 2)), "b": jnp.ones(2)} for scope in names}


def test_functions_of_other_libraries() -> None:
    found = audit(lambda p, x: apply(p, x).sum(), scopes(), X)
    assert found == audited(
        reached="net/~/head.w net/~/head.b",
        stopped="net/~/body.w net/~/body.b",
        unused="net/~/spare.w net/~/spare.b",
    )
    assert sorted(fj.trainable(fj.follow(scopes(), found.plan))) == ["net/~/head.b", "net/~/head.w"]


def test_marks_are_stops() -> None:
    tree = fj.freeze(params(), "a", "c")
    found = audit(plain, tree, X)
    assert found == audited(reached="b", stopped="a", unused="c", frozen="a c")
    assert found.idle == set()
    assert found.plan == fj.plan(tree)
    # The loss gets the tree as in training, where no way leads around a mark.
    penalty = audit(lambda t: sum(leaf.sum() for leaf in jax.tree.leaves(t)), tree)
    assert penalty == audited(reached="b", stopped="a c", frozen="a c")


def test_frozen_uses_are_stops() -> None:
    tree = {"use": fj.Frozen({"w": jnp.ones(2)}), "head": {"w": jnp.ones(2)}, "rest": jnp.ones(2)}
    found = audit(lambda t: (t["use"]["w"] * t["head"]["w"]).sum(), tree)
    assert found == audited(reached="head.w", stopped="use.w", unused="rest", frozen="use.w")
    assert found.idle == {"rest"}
    followed = fj.follow(tree, found.plan)
    assert fj.plan(followed) == Plan(frozenset({"use.w", "rest"}), frozenset({"head.w"}))


def test_a_frozen_use_made_in_the_loss() -> None:
    def loss(p: Params) -> jax.Array:
        return (fj.Frozen({"w": p["a"]})["w"] * p["b"]).sum()

    assert audit(loss, params()) == audited("b", "a", "c")


def test_leaves_taken_out_of_a_frozen_use() -> None:
    """They have a gradient, as in plain JAX; the plan leaves them frozen."""
    tree = {"use": fj.Frozen({"w": jnp.ones(2)}), "head": jnp.ones(2)}

    def loss(tree: Any) -> Any:
        return sum(leaf.sum() for leaf in jax.tree.leaves(tree))

    found = audit(loss, tree)
    assert found == audited(reached="use.w head", frozen="use.w")
    assert found.plan == fj.plan(tree)


@pytest.mark.parametrize("mark", [lambda tree: tree, lambda tree: fj.freeze(tree, "rest")], ids=["plain", "marked"])
def test_one_array_with_two_names(mark: Callable[[Any], Any]) -> None:
    shared = jnp.ones(2)
    tree = mark(fj.tie({"embed": shared, "head": shared, "rest": jnp.ones(2)}))
    frozen = "rest" if fj.plan(tree).frozen else ""

    both = audit(lambda t: (t["embed"] * stop(t["head"])).sum(), tree)
    assert both == audited(reached="embed", unused="rest", frozen=frozen)
    other = audit(lambda t: (t["head"] * stop(t["embed"])).sum(), tree)
    assert other == both
    none = audit(lambda t: stop(t["head"]).sum(), tree)
    assert none == audited(stopped="embed", unused="rest", frozen=frozen)
    assert none.plan.paths == fj.plan(tree).paths


@pytest.mark.parametrize("mark", [lambda tree: tree, lambda tree: fj.freeze(tree, "[2]")], ids=["plain", "marked"])
def test_one_array_frozen_here_and_trained_there(mark: Callable[[Any], Any]) -> None:
    layer = {"w": jnp.ones(2)}
    tree = mark([fj.Frozen(layer), layer, jnp.ones(2)])
    found = audit(lambda t: (t[0]["w"] * t[1]["w"] * stop(t[2])).sum(), tree)
    assert (found.reached, found.stopped, found.unused) == ({"1.w"}, {"0.w", "2"}, set())
    assert found.frozen == fj.plan(tree).frozen
    assert fj.plan(fj.follow(tree, found.plan)) == Plan(frozenset({"0.w", "2"}), frozenset({"1.w"}))


class Block(NamedTuple):
    """A block with every kind of leaf."""

    w: Any
    steps: Any
    act: Any
    rate: Any
    label: Any


def test_other_leaves_do_not_change() -> None:
    def loss(block: Block, x: Any, *, scale: float) -> Any:
        assert block.label == "train"
        rate = 1.0 if block.rate > 0 else 0.0
        return scale * rate * block.act(block.w * x + block.steps).sum()

    block = Block(np.ones(2, np.float16), jnp.arange(2), jax.nn.gelu, 0.5, "train")
    assert audit(loss, block, X, scale=2.0) == audited(reached="w")
    assert audit(loss, block._replace(steps=jax.ShapeDtypeStruct((2,), "int32")), X, scale=2.0) == audited(reached="w")


def test_frozen_modules_are_audited_in_evaluation_mode() -> None:
    """The loss gets the tree as in training: a held module does not take its training branch."""

    def loss(tree: Any) -> Any:
        hidden = tree["norm"]["w"] if tree["norm"]["inference"] else tree["noise"]
        return (hidden * tree["head"]).sum()

    tree = {"norm": {"w": jnp.ones(2), "inference": False}, "noise": jnp.ones(2), "head": jnp.ones(2)}
    assert audit(loss, tree) == audited(reached="noise head", unused="norm.w")
    assert audit(loss, fj.freeze(tree, "norm")) == audited("head", "norm.w", "noise", "norm.w")


def test_low_precision_and_complex_numbers() -> None:
    tree = {"w": jnp.ones(2, jnp.bfloat16), "z": jnp.ones(2, jnp.complex64), "s": jnp.ones(2, jnp.complex64)}
    found = audit(lambda t: jnp.abs(t["z"] * t["w"] * stop(t["s"])).sum(), tree)
    assert found == audited(reached="w z", stopped="s")


def language_model(width: int, layers: int, words: int) -> Any:
    def of(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.bfloat16)

    stack = {"up": of(layers, width, 4 * width), "down": of(layers, 4 * width, width), "mix": of(layers, width, width)}
    return {"embed": of(words, width), "layers": stack, "norm": of(width), "head": of(width, words)}


def language_loss(model: Any, tokens: Any, key: Any) -> Any:
    def layer(x: Any, row: Any) -> tuple[Any, None]:
        x = x + jnp.cumsum(x, 0) @ stop(row["mix"])
        return x + jax.nn.gelu(x @ row["up"]) @ row["down"], None

    x = model["embed"][tokens] + jax.random.normal(key, (model["norm"].size,), jnp.bfloat16)
    x, _ = lax.scan(jax.checkpoint(layer), x, model["layers"])
    logits = jnp.einsum("tw,wv->tv", x, model["head"])
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[:, None], 1).mean()


def test_a_model_larger_than_any_memory() -> None:
    """Parameters, data and random keys may be shapes, so nothing is allocated."""
    model = language_model(width=8192, layers=115, words=128_256)
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == 71_559_028_736
    tokens = jax.ShapeDtypeStruct((4096,), jnp.int32)
    key = jax.eval_shape(jax.random.key, 0)
    found = audit(language_loss, fj.freeze(model, "layers.down"), tokens, key)
    assert found == audited("embed layers.up head", "layers.down layers.mix", "norm", "layers.down")
    assert found.idle == {"layers.mix", "norm"}


def test_an_audit_runs_nothing() -> None:
    ran = []

    def loss(p: Params, x: Any) -> Any:
        jax.debug.callback(lambda a: ran.append(1), p["a"])
        return (p["b"] * jax.pure_callback(lambda a: ran.append(1) or a, p["a"], stop(p["a"]))).sum()

    assert audit(loss, params(), X) == audited("b", "a", "c")
    assert ran == []


def test_under_jit() -> None:
    """The result inside a trace is the same."""
    seen = []

    @jax.jit
    def step(p: Params, x: Any) -> Any:
        seen.append(audit(plain, p, x))
        return plain(p, x)

    step(params(), X)
    assert seen == [audited("a b", "", "c")]


def test_has_aux() -> None:
    def loss(p: Params, x: Any) -> Any:
        return plain(p, x), {"note": "any object", "c": p["c"]}

    assert audit(loss, params(), X, has_aux=True) == audited("a b", "", "c")


def test_nothing_to_audit() -> None:
    found = audit(lambda tree: 0.0, {"steps": 3, "act": jax.nn.relu})
    assert found == audited()
    assert str(found) == "0 of 0 parameters can receive a gradient."
    assert found.plan == Plan(frozenset(), frozenset())


FIX = "Return loss.mean(). For a loss that returns (loss, aux), call audit(loss, tree, has_aux=True)."


@pytest.mark.parametrize(
    ("loss", "has_aux", "text"),
    [
        (
            lambda p, x: p["a"] * x,
            False,
            "audit(loss, tree) needs a loss that returns a real scalar, but this one returns a float32 array of "
            "shape (2,).",
        ),
        (
            lambda p, x: (p["a"].sum(), x),
            False,
            "audit(loss, tree) needs a loss that returns a real scalar, but this one returns (a float32 array of "
            "shape (), a float32 array of shape (2,)).",
        ),
        (
            lambda p, x: p["a"].sum(),
            True,
            "audit(loss, tree, has_aux=True) needs a loss that returns (scalar, aux), but this one returns a float32 "
            "array of shape ().",
        ),
        (
            lambda p, x: p["a"].sum().astype(int),
            False,
            "audit(loss, tree) needs a loss that returns a real scalar, but this one returns an int32 array of "
            "shape ().",
        ),
        (
            lambda p, x: None,
            False,
            "audit(loss, tree) needs a loss that returns a real scalar, but this one returns None.",
        ),
    ],
    ids=["array", "pair", "no pair", "integer", "none"],
)
def test_functions_that_are_not_a_loss(loss: Callable[..., Any], has_aux: bool, text: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        audit(loss, params(), X, has_aux=has_aux)
    assert str(caught.value).split("\n") == [text, FIX]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_errors_of_a_loss_are_passed_on() -> None:
    with pytest.raises(KeyError, match="absent"):
        audit(lambda p: p["absent"].sum(), params())
    with pytest.raises(ValueError, match=r"Reverse-mode differentiation does not work for lax\.while_loop"):
        audit(lambda p: lax.while_loop(lambda a: a.sum() < 9, lambda a: 2 * a, p["a"]).sum(), params())
    with pytest.raises(SamePathError):
        audit(plain, {"a.b": jnp.ones(1), "a": {"b": jnp.ones(1)}}, X)


def test_the_tree_does_not_change() -> None:
    tree = fj.freeze(params(), "a")
    before = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]
    assert audit(plain, tree, X) == audit(plain, tree, X)
    assert [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)] == before
    assert fj.plan(tree).frozen == {"a"}


def test_an_audit_as_text() -> None:
    tree = {f"layer{number}": jnp.ones(2) for number in range(8)} | params()
    tree = fj.freeze(tree, "a", "c")
    found = audit(lambda t: plain(t, X) + sum(stop(t[f"layer{n}"]).sum() * t["b"].sum() for n in range(7)), tree)
    assert str(found).split("\n") == [
        "1 of 11 parameters can receive a gradient.",
        "reached: 1",
        "  b",
        "stopped: 8",
        "  layer0",
        "  layer1",
        "  layer2",
        "  layer3",
        "  layer4",
        "  ... and 3 more",
        "unused: 2",
        "  layer7",
        "  c  frozen",
        "No gradient comes to 8 that are trainable: an optimizer would only let them decay.",
        "Freeze them: tree = follow(tree, audit.plan).",
    ]
    assert repr(found) == "<Audit: 1 reached, 8 stopped, 2 unused; 8 idle>"
    cured = audit(lambda t: plain(t, X), fj.follow(tree, found.plan))
    assert cured.idle == set()
    assert "optimizer" not in str(cured)
    assert pickle.loads(pickle.dumps(found)) == found
