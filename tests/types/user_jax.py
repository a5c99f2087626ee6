"""What a user of JAX writes, with the type of all that frostline gives back. It is checked, and never run."""

from typing import assert_type

import jax

import frostline.jax as fj
from frostline import Plan, schedules

Params = dict[str, jax.Array]


def use(params: Params, x: jax.Array) -> None:
    def loss(params: Params, x: jax.Array) -> jax.Array:
        return (params["w"] * x + params["b"]).sum()

    def loss_and_output(params: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return loss(params, x), x

    plan = fj.plan(params, "w")
    assert_type(plan, Plan)
    assert_type(fj.freeze(params, "w"), Params)
    assert_type(fj.thaw(params, "w"), Params)
    assert_type(fj.follow(params, plan), Params)
    assert_type(fj.strip(params), Params)
    assert_type(fj.tie(params, "w", "b"), Params)
    assert_type(fj.split(params, "b"), tuple[Params, Params])
    assert_type(fj.join(*fj.split(params, "b")), Params)
    assert_type(fj.Frozen(params), Params)
    assert_type(fj.Frozen(params)["w"], jax.Array)
    assert_type(fj.grad(loss, frozen=plan)(params, x), Params)
    assert_type(fj.grad(loss_and_output, has_aux=True)(params, x), tuple[Params, jax.Array])
    assert_type(fj.value_and_grad(loss, frozen=plan)(params, x), tuple[jax.Array, Params])
    both = fj.value_and_grad(loss_and_output, has_aux=True)(params, x)
    assert_type(both, tuple[tuple[jax.Array, jax.Array], Params])
    assert_type(fj.lean(loss)(params, x), jax.Array)
    assert_type(fj.blocks(params), list[str])
    assert_type(fj.audit(loss, params, x).stopped, frozenset[str])
    assert_type(fj.cost(loss, params, x).now.saved_bytes, int)
    assert_type(fj.Driver(schedules.LinearProbe("b", steps=4)), fj.Driver)
