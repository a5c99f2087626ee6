"""The demo in PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset, default_collate

import frostline.torch as ft
from frostline._core.reporting.cost import Cost
from frostline._core.reporting.report import Report
from frostline.demo.data import Images, Indices
from frostline.demo.learner import FEATURES, WIDTHS, Framework, Learner, Scores, SharedLayer


@final
class Network(nn.Module):
    """A small convolutional network with batch norm: a trunk, and a head with five outputs."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, width in WIDTHS:
            # No bias: batch norm adds its own.
            convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(), *([nn.MaxPool2d(2)] if channels > 1 else [])]
        self.trunk, self.head = nn.Sequential(*layers, nn.Flatten()), nn.Linear(FEATURES, 5)

    def forward(self, pixels: Tensor) -> Tensor:
        """The scores of the five digits, shape `(n, 5)`."""
        scores: Tensor = self.head(self.trunk(pixels))
        return scores


@final
class _TorchLearner(Learner):
    def __init__(self, network: Network, lr: float) -> None:
        self.network, self._lr = network.train(), lr
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.05)

    @property
    def head(self) -> nn.Linear:
        return self.network.head

    def with_new_head(self, seed: int) -> Learner:
        network = copy.deepcopy(self.network)
        torch.manual_seed(seed)
        network.head = nn.Linear(FEATURES, 5)
        return _TorchLearner(network, self._lr)

    def freeze(self) -> None:
        ft.freeze(self.network, "trunk")

    def freeze_by_hand(self) -> None:
        self.network.trunk.requires_grad_(False)

    def guarded(self) -> AbstractContextManager[Any]:
        return ft.guard(self.network)

    def step(self, batch: Images) -> None:
        pixels, labels = _tensors(batch)
        self._descend(self.network(pixels), labels)

    def scores(self, images: Images, head: nn.Linear | None = None) -> Scores:
        self.network.eval()
        with torch.no_grad():
            scores: Tensor = (head or self.head)(self.network.trunk(_tensors(images)[0]))
        self.network.train()
        return scores.numpy()

    def report(self) -> Report:
        return ft.report(self.network, self.optimizer)

    def cost(self, batch: Images) -> Cost:
        pixels, labels = _tensors(batch)
        return ft.cost(
            self.network, pixels, loss=lambda scores: F.cross_entropy(scores, labels), optimizer=self.optimizer
        )

    def cached(self, images: Images, folder: Path) -> Callable[[Indices], None]:
        dataset = TensorDataset(*_tensors(images))
        line = ft.frostline(self.network, dataset.tensors[0][:2])
        cache = ft.FeatureCache(folder, line)
        cache.fill(dataset, progress=False)
        features_and_labels = cache.dataset(dataset)

        def step(indices: Indices) -> None:
            features, labels = default_collate(features_and_labels.__getitems__(indices.tolist()))
            self._descend(line.above(*features), labels)

        return step

    def _descend(self, scores: Tensor, labels: Tensor) -> None:
        self.optimizer.zero_grad()
        F.cross_entropy(scores, labels).backward()
        self.optimizer.step()


def new_learner(seed: int, lr: float) -> Learner:
    """An untrained learner."""
    torch.manual_seed(seed)
    return _TorchLearner(Network(), lr)


def share_a_layer(images: Images) -> SharedLayer:
    """Builds two models that share the layer `l2`, and takes a step of each."""
    torch.manual_seed(0)
    l1, l2, l3 = nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 5)
    frozen, (pixels, labels) = ft.Frozen(l2), _tensors(images)
    hidden = l1(pixels.flatten(1)).detach().requires_grad_()

    def gradients(middle: nn.Module) -> tuple[Any, float]:
        loss = F.cross_entropy(l3(middle(hidden)), labels)
        to_weight, to_input = torch.autograd.grad(loss, (l2.weight, hidden), allow_unused=True)
        return None if to_weight is None else to_weight.norm().item(), to_input.norm().item()

    def changed_by_a_step(middle: nn.Module) -> int:
        model, before = nn.Sequential(l1, middle, l3), l2.weight.detach().clone()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.05)
        F.cross_entropy(model(pixels.flatten(1)), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        return int((l2.weight.view(torch.int32) != before.view(torch.int32)).sum())

    weight_gradients, input_gradients = zip(gradients(l2), gradients(frozen), strict=True)
    by_m1, before = changed_by_a_step(frozen), frozen(hidden).detach()
    by_m0 = changed_by_a_step(l2)
    moved = (frozen(hidden) - before).abs().max().item()
    return SharedLayer(weight_gradients, input_gradients, (by_m0, by_m1), l2.weight.numel(), moved)


@contextmanager
def _repeatable() -> Iterator[None]:
    """One thread, because a sum depends on how many share it; and the caller's random numbers stay as they are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)


def _tensors(images: Images) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(images.pixels), torch.from_numpy(images.labels)


FRAMEWORK = Framework(
    name="PyTorch",
    package="torch",
    by_hand="trunk.requires_grad_(False)",
    repeatable=_repeatable,
    new_learner=new_learner,
    share_a_layer=share_a_layer,
)
