"""The verbs beside the loops over parameters that one would write by hand, and an import beside the framework's own."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from tempfile import TemporaryDirectory

import torch
from torch import nn

import frostline.torch as ft
from benchmarks.freezing.once import Large
from benchmarks.timing import Ratio, interleaved
from frostline.schedules import HiFT

MOST = {
    "freeze(model).undo()": ("both loops", 4.0),
    "freeze(model, pattern).undo()": ("both loops", 4.0),
    "plan": ("one loop", 2.0),
    "trainable": ("one loop", 2.0),
    "follow, nothing to change": ("both loops", 4.0),
    "a driver's change (HiFT)": ("both loops", 4.0),
    "Frozen on meta": ("copy.deepcopy on meta", 1.2),
}
"""Verb -> what it is compared with, and how many times as long it may take."""

IMPORTS = {"frostline.torch": ("torch", 0.05), "frostline.jax": ("jax, optax", 0.08)}
"""Package -> what is imported before it, and the share of that which it may add."""


@dataclass(frozen=True)
class Beside:
    """A verb, or an import, and what it is compared with."""

    subject: str
    what: str
    base: str
    base_ms: float
    times: Ratio
    most: float | None

    def row(self) -> list[str]:
        """The cells of a table."""
        return [
            self.subject,
            self.what,
            self.base,
            f"{self.base_ms:.1f}",
            str(self.times),
            "" if self.most is None else f"{self.most:g}",
        ]

    def misses(self) -> list[str]:
        """The missed target, in words."""
        if self.most is None or self.times.median <= self.most:
            return []
        return [f"{self.subject}: {self.what}: {self.times.median:.3f} x {self.base} (goal {self.most:g})"]


def llama() -> nn.Module:
    """A Llama of 32 small layers: 291 parameters in 423 modules."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 32}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2)).train()


MODELS: dict[str, tuple[str, Callable[[], nn.Module], str]] = {
    "llama": ("Llama, 291 parameters", llama, "model.layers[:-2]"),
    "large": ("19,972 parameters", Large, "stages[:2]"),
}


def one_loop(model: nn.Module) -> None:
    """Freezing by hand."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.eval()


def both_loops(model: nn.Module) -> None:
    """Freezing and thawing by hand."""
    one_loop(model)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.train()


def verbs(name: str, rounds: int) -> list[Beside]:
    """Measures the verbs on one model; each works on a model of its own, and the goals are those of the Llama."""
    subject, make, pattern = MODELS[name]
    hand, other, on_meta = make(), make(), make().to("meta")
    plain, partly, driven = make(), make(), make()
    ft.freeze(partly, pattern)
    plan = ft.plan(partly)
    blocks = ft.blocks(driven)
    groups = HiFT(blocks, size=-(-len(blocks) // 32))
    driver = ft.Driver(groups, driven, torch.optim.AdamW(driven.parameters(), lr=1e-3))
    ways: dict[str, Callable[[], object]] = {
        "one loop": lambda: one_loop(other),
        "both loops": lambda: both_loops(hand),
        "freeze(model).undo()": lambda: ft.freeze(plain).undo(),
        "freeze(model, pattern).undo()": lambda: ft.freeze(plain, pattern).undo(),
        "plan": lambda: ft.plan(partly),
        "trainable": lambda: ft.trainable(partly),
        "follow, nothing to change": lambda: ft.follow(partly, plan),
        "a driver's change (HiFT)": driver.step,
        "Frozen on meta": lambda: ft.Frozen(on_meta),
        "copy.deepcopy on meta": lambda: copy.deepcopy(on_meta),
    }
    for way in ways.values():
        way()
    seconds = interleaved(ways, rounds)
    found = []
    for what, (base, most) in MOST.items():
        base_ms, times = 1000 * median(seconds[base]), Ratio.of(seconds[what], seconds[base])
        found.append(Beside(subject, what, base, base_ms, times, most if name == "llama" else None))
    return found


def imports(runs: int) -> list[Beside]:
    """Measures the imports, each in processes of its own that find compiled files."""
    found = []
    with TemporaryDirectory() as folder:
        environ = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        for package, (before, most) in IMPORTS.items():
            code = (
                f"import sys; from time import process_time as now; start = now(); import {before}; middle = now(); "
                f"modules = len(sys.modules); import {package}; end = now(); "
                "print([end - middle, middle - start, len(sys.modules) - modules])"
            )
            command = [sys.executable, "-c", code]
            outputs = [
                subprocess.run(command, env=environ, capture_output=True, check=True).stdout for _ in range(runs + 1)
            ]
            # The first one compiles.
            added, base, modules = zip(*map(json.loads, outputs[1:]), strict=True)
            what = f"import, {modules[0]} modules"
            found.append(Beside(package, what, f"import {before}", 1000 * median(base), Ratio.of(added, base), most))
    return found
