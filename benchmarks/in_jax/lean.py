"""What `fj.lean` gains where layers of one model are frozen, in a process of its own."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from random import Random
from time import process_time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import frostline.jax as fj
from benchmarks.in_jax.case import PLACES
from benchmarks.in_jax.leaned import AGAIN, DOTS, LEAN
from benchmarks.in_jax.models import MODELS, Model, chain, dense
from benchmarks.ratios import Ratio

PLAIN = "plain"
WARM_UP = 2


def gelu_mlp() -> Model:
    """Twelve linear layers with a GELU after each."""

    def layer(key: Any) -> dict[str, Any]:
        return {"w": dense(key, 256, 256), "b": jnp.full(256, 0.1)}

    def loss(params: Any, x: Any) -> Any:
        for layer in params["layers"]:
            x = jax.nn.gelu(x @ layer["w"] + layer["b"])
        return jnp.mean((x - 1) ** 2)

    return chain(layer), loss, jax.random.normal(jax.random.key(1), (512, 256))


# In the MLP with ReLU there is nothing to gain.
LEAN_MODELS: dict[str, Callable[[], Model]] = {
    "gelu mlp": gelu_mlp,
    "transformer": MODELS["transformer"],
    "relu mlp": MODELS["mlp"],
}


def compiled(loss: Any, tree: Any, batch: Any) -> Callable[[], Any]:
    """A step without its optimizer, compiled, of arrays as its arguments."""
    trained, rest = fj.split(tree)

    def step(trained: Any, rest: Any, batch: Any) -> Any:
        return jax.value_and_grad(lambda trained: loss(fj.strip(fj.join(trained, rest)), batch))(trained)

    program = jax.jit(step).lower(trained, rest, batch).compile()

    def run() -> Any:
        return jax.block_until_ready(program(trained, rest, batch))

    run.memory = program.memory_analysis().temp_size_in_bytes  # type: ignore[attr-defined]
    return run


def measure(model: str, place: str, rounds: int) -> dict[str, Any]:
    """One model, its frozen layers in one place."""
    params, loss, batch = LEAN_MODELS[model]()
    layers = PLACES[place]
    tree = fj.freeze(params, f"layers[{layers.start or ''}:{layers.stop or ''}]")
    dots = jax.checkpoint(loss, policy=jax.checkpoint_policies.dots_saveable)
    losses = {PLAIN: loss, DOTS: dots, LEAN: fj.lean(loss)}
    runs = {way: compiled(fn, tree, batch) for way, fn in losses.items()}
    runs[AGAIN] = runs[PLAIN]
    found = {way: [run() for _ in range(WARM_UP)][-1] for way, run in runs.items()}
    seconds: dict[str, list[float]] = {way: [] for way in runs}
    order, dice = list(runs), Random(0)
    gc.disable()
    for _ in range(rounds):
        dice.shuffle(order)
        for way in order:
            start = process_time()
            runs[way]()
            seconds[way].append(process_time() - start)
    saved = {way: fj.cost(fn, tree, batch).now.saved_bytes for way, fn in losses.items()}
    return {
        way: {
            "saved": saved.get(way, saved[PLAIN]) / saved[PLAIN],
            "temporary": runs[way].memory / runs[PLAIN].memory,  # type: ignore[attr-defined]
            "time": str(Ratio.of(seconds[way], seconds[PLAIN])),
            "apart": apart(found[way], found[PLAIN]),
        }
        for way in (AGAIN, DOTS, LEAN)
    }


def apart(one: Any, other: Any) -> float:
    """The largest difference between two trees, as a part of the largest number; 0 is bitwise."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
