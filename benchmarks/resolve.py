"""How long it takes to resolve 20 patterns over 20,000 parameters."""

from __future__ import annotations

from statistics import median
from time import perf_counter

from frostline._core.inventory import Inventory, Module, Param
from frostline._core.selecting.resolve import resolve
from frostline._core.tree import Tree

PATTERNS = [
    "**",
    "!head",
    "!**.bias",
    "**.norm*.weight",
    "!stages[:2]",
    "stages[0].layers[::2]",
    "**.layers[-2:].attn",
    "!**.attn.{q,k}",
    "stages.*.layers.*.mlp",
    "!**.mlp.down.*",
    "stages[-1].layers[100:200]",
    "**.layers[1:400:3].mlp.**",
    "!stages.1.layers.17",
    "**.weight",
    "!stages.{0,2}.layers[5]",
    "**.norm1",
    "stages.3.layers.10.*",
    "!**.attn.*.bias",
    "embed",
    "!**.layers[0]",
]


def model() -> Inventory:
    """Four stages of 416 layers with 12 parameters each, an embedding and a head."""
    leaves = ["attn.q", "attn.k", "attn.v", "mlp.up", "mlp.down", "norm1"]
    layers = [f"stages.{stage}.layers.{layer}" for stage in range(4) for layer in range(416)]
    owners = [f"{layer}.{leaf}" for layer in layers for leaf in leaves] + ["embed", "head"]
    params = [Param(f"{owner}.{name}", (64, 64), "float32", 4) for owner in owners for name in ("weight", "bias")]
    modules = ["", *(f"stages.{stage}{below}" for stage in range(4) for below in ("", ".layers")), *layers, *owners]
    return Inventory(tuple(params), tuple(Module(path, object) for path in modules))


def measure(runs: int) -> dict[str, float]:
    """Median milliseconds of the two parts."""
    inventory = model()
    trees, resolutions = [], []
    for _ in range(runs):
        start = perf_counter()
        Tree(inventory.params, inventory.modules)
        trees.append(perf_counter() - start)
        start = perf_counter()
        resolve(PATTERNS, inventory)
        resolutions.append(perf_counter() - start)
    return {"tree of the names": 1000 * median(trees), "resolve, 20 patterns": 1000 * median(resolutions)}
