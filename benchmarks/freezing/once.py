"""What is done once: reading, freezing and watching a model; and resolving patterns, which is the part of the core."""

from __future__ import annotations

from statistics import median
from typing import Any

from torch import nn

import frostline.torch as ft
from benchmarks.freezing.models import made
from benchmarks.timing import median_time, time_of
from frostline._core.inventory import Inventory
from frostline._core.param import Module, Param
from frostline._core.selecting.resolve import resolve
from frostline._core.tree import NameTree

TWENTY = """
** !head !**.bias **.norm*.weight !stages[:2] stages[0].layers[::2] **.layers[-2:].attn !**.attn.{q,k}
stages.*.layers.*.mlp !**.mlp.down.* stages[-1].layers[100:200] **.layers[1:400:3].mlp.** !stages.1.layers.17
**.weight !stages.{0,2}.layers[5] **.norm1 stages.3.layers.10.* !**.attn.*.bias embed !**.layers[0]
"""
PATTERNS = TWENTY.split()


class Layer(nn.Module):
    """12 parameters in 6 modules, two levels deep."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("q", "k", "v")})
        self.mlp = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("up", "down")})
        self.norm1 = nn.LayerNorm(2)


class Stage(nn.Module):
    """416 layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(416))


class Large(nn.Module):
    """Four stages, an embedding and a head: 19,972 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(Stage() for _ in range(4))
        self.embed, self.head = nn.Linear(2, 2), nn.Linear(2, 2)


def inventory() -> Inventory:
    """The same model in the core."""
    leaves = ["attn.q", "attn.k", "attn.v", "mlp.up", "mlp.down", "norm1"]
    layers = [f"stages.{stage}.layers.{layer}" for stage in range(4) for layer in range(416)]
    owners = [f"{layer}.{leaf}" for layer in layers for leaf in leaves] + ["embed", "head"]
    params = [Param(f"{owner}.{name}", (64, 64), "float32", 4) for owner in owners for name in ("weight", "bias")]
    modules = ["", *(f"stages.{stage}{below}" for stage in range(4) for below in ("", ".layers")), *layers, *owners]
    return Inventory(tuple(params), tuple(Module(path, object) for path in modules))


def measure(runs: int) -> dict[str, Any]:
    """Measures the verbs on the large model, and on a ResNet-50 a guard and a freezing that is undone at once."""
    names, large, (resnet, _) = inventory(), Large(), made("resnet")
    milliseconds = {
        "tree of the names": median_time(lambda: NameTree(names.params, names.modules), runs),
        "resolve, 20 patterns": median_time(lambda: resolve(PATTERNS, names), runs),
    }
    handles: list[ft.Handle] = []
    pairs = [
        (time_of(lambda: handles.append(ft.freeze(large, *PATTERNS))), time_of(lambda: handles.pop().undo()))
        for _ in range(runs)
    ]
    milliseconds["freeze, 20 patterns"] = median(freezing for freezing, _ in pairs)
    milliseconds["handle.undo"] = median(undoing for _, undoing in pairs)
    ft.freeze(large, *PATTERNS)
    plan = ft.plan(large)
    milliseconds |= {
        "plan": median_time(lambda: ft.plan(large), runs),
        "follow, nothing to change": median_time(lambda: ft.follow(large, plan), runs),
        "trainable": median_time(lambda: ft.trainable(large), runs),
        "Frozen": median_time(lambda: ft.Frozen(large), runs),
    }
    temporary = median_time(lambda: ft.freeze(resnet).undo(), 3 * runs)
    ft.freeze(resnet)
    watched = sum(t.nbytes for t in [*resnet.parameters(), *resnet.buffers()])
    guard = median_time(lambda: watch(resnet), runs)
    return {
        "milliseconds": {name: 1000 * seconds for name, seconds in milliseconds.items()},
        "temporary_ms": 1000 * temporary,
        "guard_seconds": guard,
        "guard_gigabytes": 2 * watched / guard / 1e9,
    }


def watch(model: nn.Module) -> None:
    """A guard around nothing; it reads all bytes twice."""
    with ft.guard(model):
        pass
