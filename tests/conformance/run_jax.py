"""A training run in JAX that is saved as bytes and continues from them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from safetensors.numpy import load, save

import frostline.jax as fj
from conformance.walks import BLOCKS, WALKS


def net() -> dict[str, Any]:
    def linear(inputs: int, outputs: int, salt: int) -> dict[str, jax.Array]:
        weight = np.cos(np.arange(inputs * outputs) * 0.7 + salt).reshape(inputs, outputs)
        return {"weight": jnp.asarray(weight, jnp.float32), "bias": jnp.ones(outputs)}

    return {"embed": linear(4, 3, 0), "layers": [linear(3, 3, salt) for salt in (1, 2, 3)], "head": linear(3, 2, 4)}


def loss_of(params: Any, x: jax.Array) -> jax.Array:
    x = x @ params["embed"]["weight"] + params["embed"]["bias"]
    for layer in params["layers"]:
        x = x + jax.nn.relu(x @ layer["weight"] + layer["bias"])
    return jnp.square(x @ params["head"]["weight"] + params["head"]["bias"]).mean()


RECIPES: dict[str, Any] = {
    "AdamW, release": lambda: fj.optimizer(
        optax.chain(
            optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(0.05, 20), weight_decay=0.1)
        )
    ),
    "SGD, keep": lambda: fj.optimizer(
        optax.chain(optax.add_decayed_weights(0.1), optax.sgd(optax.exponential_decay(0.01, 2, 0.5), momentum=0.9)),
        moments="keep",
    ),
}


QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
"""These options compile in a third of the time; the continuation of a run does not depend on the speed of a step."""


@cache
def _trained(recipe: str) -> tuple[Any, Any]:
    """The transformation and a training step, compiled once for all runs."""
    tx = RECIPES[recipe]()

    def train(params: Any, state: Any, x: jax.Array, factors: Any) -> Any:
        value, grads = fj.value_and_grad(loss_of)(params, x)
        updates, state = tx.update(grads, state, params)
        trained, rest = fj.split(params)
        return value, fj.join(optax.apply_updates(trained, factors.scaled(updates)), rest), state

    return tx, jax.jit(train, compiler_options=QUICK)


class Run:
    """A run of one schedule, from its first step on."""

    def __init__(self, walk: str, recipe: str) -> None:
        self.tx, self._train = _trained(recipe)
        self.driver = fj.Driver(WALKS[walk])
        self.params = self.driver.start(net())
        self.state = self.tx.init(self.params)

    def step(self) -> None:
        """One step of training, and of the schedule."""
        x = np.sin(np.arange(20.0, dtype=np.float32) + self.driver.steps).reshape(5, 4)
        loss, params, self.state = self._train(self.params, self.state, x, self.driver.factors)
        leaves = named(params)
        sizes = {block: float(sum(np.abs(leaves[name]).sum() for name in _part(block, leaves))) for block in BLOCKS}
        self.params = self.driver.step(params, **sizes, loss=float(loss), learning_rate=0.1)
        self.state = self.tx.follow(self.state, self.params)

    def save(self) -> bytes:
        """All there is to it."""
        arrays = {f"weights {name}": leaf for name, leaf in named(self.params).items()}
        arrays |= {f"state {name}": np.asarray(leaf) for name, leaf in self.tx.save(self.state, self.params).items()}
        return save(arrays, {"driver": json.dumps(self.driver.state_dict())})

    @classmethod
    def load(cls, walk: str, recipe: str, saved: bytes, *, driver_first: bool) -> Run:
        """Loads a saved run into new objects."""
        run = cls(walk, recipe)
        arrays = load(saved)
        leaves = [jnp.asarray(arrays[f"weights {name}"]) for name in named(run.params)]
        plain = jax.tree.unflatten(jax.tree.structure(net()), leaves)
        # A tree that the driver has started, or one that it has never seen.
        tree = jax.tree.unflatten(jax.tree.structure(run.params), leaves) if driver_first else plain
        header = json.loads(saved[8 : 8 + int.from_bytes(saved[:8], "little")])
        run.params = run.driver.load_state_dict(json.loads(header["__metadata__"]["driver"]), tree)
        state = {key.removeprefix("state "): array for key, array in arrays.items() if key.startswith("state ")}
        run.state = run.tx.load(state, run.params)
        return run

    def content(self) -> dict[str, Any]:
        """Each number as bytes or text."""
        found: dict[str, Any] = {f"weights.{name}": _bits(leaf) for name, leaf in named(self.params).items()}
        found |= {f"state.{number}": _bits(leaf) for number, leaf in enumerate(jax.tree.leaves(self.state))}
        # Else all would be traced again.
        found["tree"], found["structure"] = jax.tree.structure(self.params), jax.tree.structure(self.state)
        found["plan"], found["driver"] = fj.plan(self.params).to_json(), json.dumps(self.driver.state_dict())
        return found


def named(tree: Any) -> dict[str, np.ndarray]:
    """The leaves of the plain tree by their names."""
    leaves = jax.tree_util.tree_leaves_with_path(fj.strip(tree))
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}


def _part(block: str, leaves: Any) -> list[str]:
    return [name for name in leaves if name.startswith(block.replace("[", ".").replace("]", ""))]


def _bits(leaf: Any) -> tuple[str, tuple[int, ...], bytes]:
    array = np.asarray(leaf)
    return str(array.dtype), array.shape, array.tobytes()
