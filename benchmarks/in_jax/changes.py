"""What a change of the frozen set costs in large trees: the state after a thaw, and a step of a driver."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

import frostline.jax as fj
from frostline.schedules import LinearProbe


def seconds(act: Callable[[], Any]) -> float:
    """The time of the process that one call takes."""
    begin = time.process_time()
    act()
    return time.process_time() - begin


def measure(count: int) -> dict[str, float]:
    """Measures one thaw, each time for a structure that was not seen before.

    Args:
        count: the number of leaves.
    """
    params = {f"layer_{number}": {"w": jnp.ones(2)} for number in range(count)}
    adamw = optax.adamw(0.1)
    tx = fj.optimizer(adamw)
    frozen = fj.freeze(params, "layer_0")
    state, thawed = tx.init(frozen), fj.thaw(frozen)
    driver = fj.Driver(LinearProbe(["layer_1"], steps=1))
    started = driver.start(params)
    return {
        "optax": seconds(lambda: adamw.init(params)),
        "first": seconds(lambda: tx.follow(state, thawed)),
        "later": seconds(lambda: tx.follow(tx.follow(state, thawed), thawed)),
        "driver": seconds(lambda: driver.step(started)),
    }
