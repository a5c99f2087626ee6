"""Keras 3 on JAX: a new head trains first, then block by block from the top; the run stops, and goes on bit for bit."""

import os
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
import jax
import jax.numpy as jnp
import keras
import optax

import frostline.jax as fj
from frostline.schedules import Schedule, ULMFiT

X = jnp.linspace(-1.0, 1.0, 64).reshape(16, 4)
keras.utils.set_random_seed(0)
LAYERS = [keras.layers.Dense(8, "tanh", name=name) for name in ("low", "high")] + [keras.layers.Dense(2, name="head")]
MODEL = keras.Sequential([keras.layers.Input((4,)), *LAYERS])
START = {each.name: {v.name: v.value for v in each.trainable_variables} for each in LAYERS}


def loss(params: Any) -> jax.Array:
    # Keras wants the values in its own order, and a dict has the order of its keys in JAX.
    values = [params[each.name][v.name] for each in LAYERS for v in each.trainable_variables]
    return jnp.square(MODEL.stateless_call(values, [], X, training=True)[0] - X[:, :2] ** 2).mean()


def optimizer(plan: Any) -> Any:
    return fj.optimizer(optax.adamw(0.05, weight_decay=0.1), frozen=plan)


@jax.jit
def update(params: Any, state: Any, plan: Any) -> Any:
    updates, state = optimizer(plan).update(fj.grad(loss, frozen=plan)(params), state, params)
    trained, rest = fj.split(params, frozen=plan)
    return fj.join(optax.apply_updates(trained, updates), rest), state


def train(schedule: Schedule, steps: int, saved: Any = None) -> Any:
    driver = fj.Driver(schedule, marks=False)
    params = driver.load_state_dict(saved["driver"], saved["params"]) if saved else driver.start(START)
    state = optimizer(driver.plan).load(saved["optimizer"], params) if saved else optimizer(driver.plan).init(params)
    while driver.steps < steps:
        params, state = update(params, state, driver.plan)
        params = driver.step(params)
        state = optimizer(driver.plan).follow(state, params)
    return {"params": params, "optimizer": optimizer(driver.plan).save(state, params), "driver": driver.state_dict()}


def main() -> dict[str, object]:
    schedule = ULMFiT(["low", "high", "head"], period=4, decay=1)
    whole, resumed = train(schedule, 12), train(schedule, 12, saved=train(schedule, 6))
    same = jax.tree.map(lambda one, other: bool((one == other).all()), whole["params"], resumed["params"])
    found = {"loss falls": bool(loss(whole["params"]) < loss(START)), "resumed bitwise": all(jax.tree.leaves(same))}
    print(found)
    return found


if __name__ == "__main__":
    main()
