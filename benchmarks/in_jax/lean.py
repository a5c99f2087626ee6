"""The gain of `fj.lean` where layers of one model are frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import frostline.jax as fj
from benchmarks.in_jax import LEAN
from benchmarks.in_jax.case import PLACES
from benchmarks.in_jax.models import MODELS
from benchmarks.timing import Ratio, interleaved

PLAIN, AGAIN, DOTS = "plain", "plain again", "checkpoint, dots_saveable"
WARM_UP = 2


def compiled(loss: Any, tree: Any, batch: Any) -> tuple[Callable[[], Any], int]:
    """A compiled step without its optimizer, of arrays as its arguments, and the temporary bytes that it needs."""
    trained, rest = fj.split(tree)

    def step(trained: Any, rest: Any, batch: Any) -> Any:
        return jax.value_and_grad(lambda trained: loss(fj.strip(fj.join(trained, rest)), batch))(trained)

    program = jax.jit(step).lower(trained, rest, batch).compile()
    memory: Any = program.memory_analysis()
    return lambda: jax.block_until_ready(program(trained, rest, batch)), memory.temp_size_in_bytes


def measure(model: str, place: str, rounds: int) -> dict[str, dict[str, Any]]:
    """One model, its frozen layers in one place: way -> numbers over those of the plain step."""
    params, loss, batch = MODELS[model]()
    layers = PLACES[place]
    tree = fj.freeze(params, f"layers[{layers.start or ''}:{layers.stop or ''}]")
    dots = jax.checkpoint(loss, policy=jax.checkpoint_policies.dots_saveable)
    losses = {PLAIN: loss, DOTS: dots, LEAN: fj.lean(loss)}
    programs = {way: compiled(fn, tree, batch) for way, fn in losses.items()}
    programs[AGAIN] = programs[PLAIN]
    found = {way: [run() for _ in range(WARM_UP)][-1] for way, (run, _) in programs.items()}
    seconds = interleaved({way: run for way, (run, _) in programs.items()}, rounds)
    saved = {way: fj.cost(fn, tree, batch).now.saved_bytes for way, fn in losses.items()}
    return {
        way: {
            "saved": saved.get(way, saved[PLAIN]) / saved[PLAIN],
            "temporary": programs[way][1] / programs[PLAIN][1],
            "time": str(Ratio.of(seconds[way], seconds[PLAIN])),
            "difference": f"{difference(found[way], found[PLAIN]):.0e}",
        }
        for way in (AGAIN, DOTS, LEAN)
    }


def difference(one: Any, other: Any) -> float:
    """The largest difference of two trees, as a part of the largest number; 0 is bitwise."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)
