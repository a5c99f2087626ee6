"""A freeze from before a schedule survives it, step by step the same in every front end (L13)."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from conformance.benches import required
from frostline import schedules
from frostline.schedules import Phase, Span

Walk = Callable[[Any, str], list[list[str]]]
BLOCKS = ["a", "b", "c"]
ALONG = {
    "LinearProbe": schedules.LinearProbe(["c"], steps=2),
    "ULMFiT": schedules.ULMFiT(BLOCKS[1:], period=1),
    "HiFT": schedules.HiFT(BLOCKS[1:]),
    "LISA": schedules.LISA(BLOCKS[1:], sampled=1, period=1),
    "FreezeOut": schedules.FreezeOut(BLOCKS, steps=8),
    "Phases": schedules.Phases([Span(0, 2, Phase(["b"])), Span(2, None, Phase())]),
    "Meant": schedules.Phases([Span(0, 2, Phase(["**", "!a.w"])), Span(2, None, Phase())]),
}


def in_torch(along: Any, frozen: str) -> list[list[str]]:
    torch, ft = importlib.import_module("torch"), importlib.import_module("frostline.torch")
    model = torch.nn.ModuleDict({name: torch.nn.ParameterDict({"w": torch.ones(2)}) for name in BLOCKS})
    ft.freeze(model, frozen)
    driver = ft.Driver(along, model, torch.optim.SGD(model.parameters(), lr=0.1))
    found = []
    for _ in range(5):
        found.append(sorted(ft.trainable(model)))
        driver.step()
    json.dumps(driver.state_dict())
    return found


def in_jax(along: Any, frozen: str) -> list[list[str]]:
    jnp, fj = importlib.import_module("jax.numpy"), importlib.import_module("frostline.jax")
    driver = fj.Driver(along)
    params = driver.start(fj.freeze({name: {"w": jnp.ones(2)} for name in BLOCKS}, frozen))
    found = []
    for _ in range(5):
        found.append(sorted(fj.trainable(params)))
        if along.at(driver.steps).rates:
            driver.factors  # noqa: B018 - a step that has factors must read them
        params = driver.step(params)
    json.dumps(driver.state_dict())
    return found


FRONT_ENDS: dict[str, Walk] = {"torch": in_torch, "jax": in_jax}
WALKS = [walk for name, walk in FRONT_ENDS.items() if name in required()]


@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: walk.__name__)
def test_as_expected_by_hand(walk: Walk) -> None:
    b, c = "b.w", "c.w"
    assert walk(ALONG["LinearProbe"], "a") == [[c], [c], [b, c], [b, c], [b, c]]
    assert walk(ALONG["HiFT"], "a") == [[b], [c], [b], [c], [b]]
    assert walk(ALONG["Phases"], "a") == [[c], [c], [b, c], [b, c], [b, c]]
    assert walk(ALONG["Phases"], "c") == [["a.w"], ["a.w"], ["a.w", b], ["a.w", b], ["a.w", b]]
    assert walk(ALONG["Meant"], "a") == [["a.w"], ["a.w"], ["a.w", b, c], ["a.w", b, c], ["a.w", b, c]]


@pytest.mark.parametrize("name", ALONG)
def test_front_ends_agree(name: str) -> None:
    walks = [walk(ALONG[name], "a") for walk in WALKS]
    assert walks == walks[:1] * len(walks)
    assert name == "Meant" or not any("a.w" in trained for walk in walks for trained in walk)
