"""One model with its frozen layers in one place, in every way and every loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.in_jax.case import AGAIN, ALL, BASE, LOOPS, Case, Step
from benchmarks.in_jax.models import MODELS
from benchmarks.in_jax.ways import WAYS, Task, Training
from benchmarks.timing import Ratio, interleaved

WARM_UP = 3
TOLERANCE = 1e-6
# So high that no norm gets there: all ways compute the same, also those whose norm includes frozen gradients.
MOST = 1e6


@dataclass
class Trainee:
    """A compiled step, and its data.

    Attributes:
        read: loss and, where the loop logs it, norm of each step.
    """

    training: Training
    moving: Any
    fixed: Any
    state: Any
    batch: Any
    compiled: Any
    read: list[tuple[float, ...]] = field(default_factory=list)

    def step(self) -> None:
        """One step, to its end."""
        self.moving, self.state, read = self.compiled(self.moving, self.state, self.fixed, self.batch)
        jax.block_until_ready((self.moving, self.state))
        self.read.append(tuple(map(float, read)))

    def moved(self, task: Task) -> int:
        """How many frozen arrays have other bytes than at first."""
        now = jax.tree.leaves(self.training.merge(self.moving, self.fixed))
        arrays = zip(jax.tree.leaves(task.params), now, jax.tree.leaves(task.mask), strict=True)
        return sum(is_frozen and before.tobytes() != np.asarray(after).tobytes() for before, after, is_frozen in arrays)


def step_of(training: Training, tx: optax.GradientTransformation, loop: str) -> Callable[..., Any]:
    """A training step as it is written in a loop."""

    def step(moving: Any, state: Any, fixed: Any, batch: Any) -> tuple[Any, Any, tuple[Any, ...]]:
        loss, gradient = training.gradient(moving, fixed, batch)
        read = (loss, optax.global_norm(gradient)) if loop == "norm" else (loss,)
        updates, state = tx.update(gradient, state, moving)
        return optax.apply_updates(moving, updates), state, read

    return step


def trainee(task: Task, batch: Any, way: str, loop: str) -> Trainee:
    """A step, compiled; it takes parameters and state for good, and returns them in the same memory."""
    training = WAYS[way](task)
    tx = training.optimizer
    if loop == "clip":
        tx = optax.chain(optax.clip_by_global_norm(MOST), tx)
    # Its own arrays: those that are given away are lost to the others.
    moving, fixed = jax.tree.map(jnp.array, (training.moving, training.fixed))
    state = tx.init(moving)
    step = jax.jit(step_of(training, tx, loop), donate_argnums=(0, 1))
    compiled = step.lower(moving, state, fixed, batch).compile()
    return Trainee(training, moving, fixed, state, batch, compiled)


def same_numbers(trained: dict[str, Trainee], moved: dict[str, int]) -> None:
    """All ways must compute the same, or their numbers compare different things.

    The losses of the ways that hold the frozen part still agree at every step, those of the others at the first.
    """
    losses = {way: [loss for loss, *_ in one.read] for way, one in trained.items()}
    for way, found in losses.items():
        same = 1 if way == ALL or moved[way] else WARM_UP
        if not np.allclose(found[:same], losses[BASE][:same], rtol=TOLERANCE, atol=0):
            raise RuntimeError(f"{way} does not compute the same: {losses}")


def measure_loop(task: Task, batch: Any, loop: str, rounds: int) -> dict[str, Step]:
    """Every way in one loop."""
    trained = {way: trainee(task, batch, way, loop) for way in WAYS}
    for one in trained.values():
        for _ in range(WARM_UP):
            one.step()
    moved = {way: one.moved(task) for way, one in trained.items()}
    same_numbers(trained, moved)
    trained[AGAIN] = trained[BASE]
    seconds = interleaved({way: one.step for way, one in trained.items()}, rounds)
    (_, *base_norm) = trained[BASE].read[0]
    steps = {}
    for way, one in trained.items():
        memory, (_, *norm) = one.compiled.memory_analysis(), one.read[0]
        steps[way] = Step(
            flops=one.compiled.cost_analysis()["flops"],
            temporary=memory.temp_size_in_bytes,
            arguments=memory.argument_size_in_bytes,
            outputs=memory.output_size_in_bytes,
            state=sum(leaf.nbytes for leaf in jax.tree.leaves(one.state)),
            moved=moved.get(way, 0),
            norm=norm[0] / base_norm[0] if norm else None,
            ms=1000 * median(seconds[way]),
            time=Ratio.of(seconds[way], seconds[BASE]),
        )
    return steps


def measure(model: str, place: str, rounds: int) -> Case:
    """Measures one model."""
    params, loss, batch = MODELS[model]()
    task = Task(jax.tree.map(np.asarray, params), loss, place)
    steps = {loop: measure_loop(task, batch, loop, rounds) for loop in LOOPS}
    return Case(f"{model}, {place}", sum(jax.tree.leaves(task.mask)), steps)
