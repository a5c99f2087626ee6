"""A training run in PyTorch that is saved as bytes and continues from them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, StepLR

import frostline.torch as ft
from conformance.walks import BLOCKS, WALKS


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.default_generator.manual_seed(1)
        self.embed = nn.Linear(4, 3)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)) for _ in range(3))
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = x + layer(x).relu()
        return self.head(x)


def _adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)


def _sgd(model: nn.Module) -> torch.optim.Optimizer:
    decayed, others = [p for p in model.parameters() if p.dim() > 1], [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=0.1)


def _halving(optimizer: torch.optim.Optimizer) -> LRScheduler:
    return StepLR(optimizer, step_size=2, gamma=0.5)


def _one_cycle(optimizer: torch.optim.Optimizer) -> LRScheduler:
    return OneCycleLR(optimizer, max_lr=0.1, total_steps=20)


Recipe = tuple[Callable[[nn.Module], torch.optim.Optimizer], Callable[[torch.optim.Optimizer], LRScheduler], Any]
RECIPES: dict[str, Recipe] = {
    "AdamW, release": (_adamw, _one_cycle, "release"),
    "AdamW, keep": (_adamw, _halving, "keep"),
    "SGD, keep": (_sgd, _one_cycle, "keep"),
    "SGD, release": (_sgd, _halving, "release"),
}


class Run:
    """A run of one schedule, from its first step on."""

    def __init__(self, walk: str, recipe: str) -> None:
        self.model = Net()
        optimizer, scheduler, moments = RECIPES[recipe]
        self.binding = ft.bind(optimizer(self.model), self.model, moments=moments)
        self.scheduler = scheduler(self.binding.optimizer)
        self.driver = ft.Driver(WALKS[walk], self.model, self.binding)

    def step(self) -> None:
        """One step of training, and of the schedule."""
        # Uniform numbers: normal ones are others from processor to processor, and so is what the policies do with them.
        generator = torch.Generator().manual_seed(self.driver.steps)
        self.model.train()
        self.binding.optimizer.zero_grad()
        loss = self.model(torch.empty(5, 4).uniform_(-2, 2, generator=generator)).square().mean()
        if loss.requires_grad:
            loss.backward()
        self.binding.optimizer.step()
        self.scheduler.step()
        sizes = {block: float(sum(p.detach().abs().sum() for p in self._part(block))) for block in BLOCKS}
        self.driver.step(**sizes, loss=loss.item(), learning_rate=self.scheduler.get_last_lr()[0])

    def save(self) -> bytes:
        """All there is to it."""
        file = io.BytesIO()
        driver = json.dumps([self.driver.state_dict(), ft.plan(self.model).to_dict()])
        parts = [self.model.state_dict(), self.binding.state_dict(), self.scheduler.state_dict(), driver]
        torch.save(parts, file)
        return file.getvalue()

    @classmethod
    def load(cls, walk: str, recipe: str, saved: bytes, *, driver_first: bool) -> Run:
        """Loads a saved run into new objects."""
        run = cls(walk, recipe)
        weights, binding, scheduler, driver = torch.load(io.BytesIO(saved), weights_only=True)
        run.model.load_state_dict(weights)
        run.scheduler.load_state_dict(scheduler)
        ways = [lambda: run.driver.load_state_dict(json.loads(driver)[0]), lambda: run.binding.load_state_dict(binding)]
        for way in ways if driver_first else reversed(ways):
            way()
        return run

    def content(self) -> dict[str, Any]:
        """Each number as bytes or text."""
        found = {f"weights.{path}": _bits(tensor) for path, tensor in self.model.state_dict().items()}
        binding = self.binding.state_dict()
        for path, state in binding.pop("state").items():
            found |= {f"moments.{path}.{key}": _bits(value) for key, value in state.items()}
        found["options"] = repr(sorted(binding.items()))
        found["inside"] = str([len(group["params"]) for group in self.binding.optimizer.param_groups])
        found["scheduler"] = repr(sorted(self.scheduler.state_dict().items()))
        found["plan"], found["driver"] = ft.plan(self.model).to_json(), json.dumps(self.driver.state_dict())
        found["training"] = str([path for path, module in self.model.named_modules() if module.training])
        return found

    def _part(self, block: str) -> list[Tensor]:
        path = block.replace("[", ".").replace("]", "")
        return [p for name, p in self.model.named_parameters() if name.startswith(path)]


def _bits(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return repr(value)
    flat = value.detach().contiguous().view(-1)
    return str(value.dtype), tuple(value.shape), flat.view(torch.uint8).numpy().tobytes()
