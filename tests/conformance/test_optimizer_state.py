"""Both front ends keep, save and load the same moments under the same names.

Gradients are small dyadic numbers that do not depend on the weights, and so are the decays of the moments: nothing is
ever rounded, and the bytes of both can be compared.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import nn

import frostline.jax as fj
import frostline.torch as ft
from frostline import Rule, layerwise

Moments = dict[str, tuple[bytes, bytes, int]]
SHAPES = {"body.0": (2, 2), "body.1": (2, 2), "head": (1, 2)}
STEPS = ["body", "", "head", "body[0]", ""]


def factor(number: int, name: str) -> float:
    """The gradient of all numbers of a layer at a step."""
    return 0.5 ** (number % 3) * (1 + sorted(SHAPES).index(name))


class InTorch:
    def __init__(self, rules: Any = (), moments: Any = "keep") -> None:
        def layer(name: str) -> nn.Linear:
            made = nn.Linear(SHAPES[name][1], SHAPES[name][0])
            for parameter in made.parameters():
                nn.init.zeros_(parameter)
            return made

        body = nn.Sequential(layer("body.0"), layer("body.1"))
        self.model = nn.ModuleDict({"body": body, "head": layer("head")})
        optimizer = torch.optim.Adam(self.model.parameters(), lr=0.5, betas=(0.5, 0.5))
        self.optimizer, self.binding = optimizer, ft.bind(optimizer, self.model, rules=rules, moments=moments)

    def follow(self, frozen: str) -> None:
        ft.thaw(self.model)
        if frozen:
            ft.freeze(self.model, frozen)

    def step(self, number: int) -> None:
        self.optimizer.zero_grad()
        named = ft.trainable(self.model).items()
        sum(factor(number, name.rpartition(".")[0]) * parameter.sum() for name, parameter in named).backward()
        self.optimizer.step()

    def save(self) -> Any:
        return self.binding.state_dict()

    def load(self, saved: Any) -> None:
        self.binding.load_state_dict(saved)

    def moments(self) -> Moments:
        found = self.save()["state"].items()
        return {
            name: (s["exp_avg"].numpy().tobytes(), s["exp_avg_sq"].numpy().tobytes(), int(s["step"]))
            for name, s in found
        }

    def weights(self) -> dict[str, list[float]]:
        return {name: p.detach().ravel().tolist() for name, p in self.model.named_parameters()}


class InJax:
    def __init__(self, rules: Any = (), moments: Any = "keep") -> None:
        def layer(name: str) -> dict[str, Any]:
            return {"weight": jnp.zeros(SHAPES[name]), "bias": jnp.zeros(SHAPES[name][0])}

        self.model: Any = {"body": [layer("body.0"), layer("body.1")], "head": layer("head")}
        self.tx: Any = fj.optimizer(optax.adam(0.5, b1=0.5, b2=0.5), rules=rules, moments=moments)
        self.state = self.tx.init(self.model)

    def follow(self, frozen: str) -> None:
        self.model = fj.thaw(self.model)
        if frozen:
            self.model = fj.freeze(self.model, frozen)

    def step(self, number: int) -> None:
        def loss(model: Any) -> Any:
            named = fj.trainable(model).items()
            return sum(factor(number, name.rpartition(".")[0]) * array.sum() for name, array in named)

        updates, self.state = self.tx.update(jax.grad(loss)(self.model), self.state, self.model)
        self.model = optax.apply_updates(self.model, updates)

    def save(self) -> Any:
        return self.tx.save(self.state, self.model)

    def load(self, saved: Any) -> None:
        self.state = self.tx.load(saved, self.model)

    def moments(self) -> Moments:
        saved = {key: np.asarray(array) for key, array in self.save().items()}
        names = [key.removesuffix("/0.mu") for key in saved if key.endswith("/0.mu")]
        parts = {name: [saved[f"{name}/0.{part}"] for part in ("mu", "nu", "count")] for name in names}
        return {name: (mu.tobytes(), nu.tobytes(), int(count)) for name, (mu, nu, count) in parts.items()}

    def weights(self) -> dict[str, list[float]]:
        return {name: array.ravel().tolist() for name, array in fj.trainable(fj.thaw(self.model)).items()}


def walked(front_end: Any, **options: Any) -> Any:
    run = front_end(**options)
    for number, frozen in enumerate(STEPS):
        run.follow(frozen)
        run.step(number)
    return run


@pytest.mark.parametrize("moments", ["keep", "cpu", "release"])
def test_equal_moments_after_equal_freezes(moments: Any) -> None:
    ours, theirs = walked(InJax, moments=moments).moments(), walked(InTorch, moments=moments).moments()
    assert ours == theirs
    counts = {name.removesuffix(".bias"): count for name, (_, _, count) in ours.items() if name.endswith("bias")}
    kept, released = {"body.0": 3, "body.1": 4, "head": 4}, {"body.0": 1, "body.1": 4, "head": 2}
    assert counts == (released if moments == "release" else kept)


@pytest.mark.parametrize(
    ("then", "now"), list(itertools.product(["head", "body[0]"], ["", "body", "**.bias"])), ids=str
)
def test_the_state_of_one_frozen_set_loads_into_another(then: str, now: str) -> None:
    found = []
    for front_end in (InJax, InTorch):
        run = walked(front_end)
        run.follow(then)
        run.step(5)
        saved, before = run.save(), run.moments()
        other = front_end()
        other.follow(now)
        other.load(saved)
        assert other.moments() == before
        other.follow("")
        other.step(6)
        run.follow("")
        run.step(6)
        assert other.moments() == run.moments()
        found.append(other.moments())
    assert found[0] == found[1]
    assert len(found[0]) == 6


def test_equal_rates() -> None:
    """Adam's first step is the learning rate times the sign times the factor of the rule."""
    rules = [*layerwise(["body[0]", "body[1]", "head"], decay=0.5), Rule("head.bias", lr_scale=2.0)]
    expected = {"body.0.bias": -0.125, "body.0.weight": -0.125, "body.1.bias": -0.25, "body.1.weight": -0.25}
    for front_end in (InJax, InTorch):
        run = front_end(rules=rules)
        for number, frozen in enumerate(["body", "head"]):
            run.follow(frozen)
            run.step(number)
        first = {name: round(numbers[0], 6) for name, numbers in run.weights().items()}
        assert first == expected | {"head.bias": -1.0, "head.weight": -0.5}
