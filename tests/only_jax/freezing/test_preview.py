"""`select` shows what selectors would take, and `blocks` lists the parts of a tree by depth."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import frostline.jax as fj
from frostline import NoMatchError, Plan
from frostline.errors import PlanMismatchError


def layer() -> dict[str, object]:
    return {"attn": {"kernel": jnp.ones((2, 2))}, "mlp": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}


def linen() -> dict[str, object]:
    encoder = {f"layers_{number}": layer() for number in range(11)} | {"norm": {"scale": jnp.ones(2)}}
    return {"params": {"head": {"kernel": jnp.ones(2)}, "encoder": encoder, "embed": {"table": jnp.ones((3, 2))}}}


class Block(eqx.Module):
    one: eqx.nn.Linear
    two: eqx.nn.Linear


class Model(eqx.Module):
    tokens: jax.Array
    stem: eqx.nn.Linear
    body: list[Block]
    final: eqx.nn.Linear


def model() -> Model:
    linear = eqx.nn.Linear(2, 2, key=jax.random.key(0))
    return Model(jnp.ones(2), linear, [Block(linear, linear) for _ in range(3)], linear)


TREES = [
    (
        linen,
        ["params.embed", *(f"params.encoder.layers_{n}" for n in range(11)), "params.encoder.norm", "params.head"],
    ),
    (model, ["{tokens,stem}", "body.0", "body.1", "body.2", "final"]),
    (lambda: [{"w": jnp.ones((2, 2)), "b": jnp.ones(2)} for _ in range(3)], ["0", "1", "2"]),
    (lambda: {"stem": jnp.ones(1), "body": jnp.ones(1), "head": jnp.ones(1)}, ["stem", "body", "head"]),
]


@pytest.mark.parametrize(("make", "expected"), TREES, ids=["linen", "equinox", "list", "arrays"])
def test_blocks_are_these_and_hold_each_parameter_once(make: type, expected: list[str]) -> None:
    tree = make()
    assert fj.blocks(tree) == expected
    found = [path for block in expected for path in fj.select(tree, block).paths]
    assert sorted(found) == sorted(fj.plan(tree).paths)
    frozen = fj.freeze(tree, *fj.blocks(tree)[:-1])
    assert fj.trainable(frozen).keys() == set(fj.select(tree, expected[-1]).paths)
    assert fj.blocks(frozen) == expected


def test_select_shows_what_freeze_takes() -> None:
    tree = linen()
    found = fj.select(tree, "params.encoder.layers_0", "params.encoder.layers_1", "!**.bias")
    assert set(found.paths) == fj.plan(fj.freeze(tree, "params.encoder.layers_{0,1}", "!**.bias")).frozen
    with pytest.raises(NoMatchError):
        fj.select(tree, "params.decoder")


def test_select_needs_shapes_alone() -> None:
    shapes = jax.eval_shape(linen)
    assert str(fj.select(shapes, "params.encoder.layers_1")).splitlines() == [
        "                         parameters  params  memory",
        "params.encoder.layers_1           3      10    40 B",
        "3 of 36 parameters (10 of 120 params, 40 B).",
    ]


def test_a_plan_with_buffers_fits_no_tree() -> None:
    """Buffers are PyTorch's; in a tree such state is leaves, which have paths of their own."""
    tree = {"scale": jnp.ones(2)}
    plan = Plan(frozenset(), frozenset({"scale"}), still=frozenset({"mean"}))
    for follow in (lambda: fj.follow(tree, plan), lambda: fj.trainable(tree, frozen=plan)):
        with pytest.raises(PlanMismatchError):
            follow()


def test_statistics_are_leaves_with_paths() -> None:
    tree = {"bn": {"scale": jnp.ones(2), "running_mean": jnp.ones(2), "running_var": jnp.ones(2)}}
    assert fj.trainable(fj.freeze(tree, "**.running_{mean,var}")).keys() == {"bn.scale"}
    assert fj.trainable(fj.freeze(tree, "bn", "!bn.running_*")).keys() == {"bn.running_mean", "bn.running_var"}
