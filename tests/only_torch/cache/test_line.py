"""The cache of a line that `frostline` found, in whole models."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from benchmarks.zoo import bert, resnet18
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import frostline.torch as ft
from frostline.errors import CacheError, StaleCacheError
from frostline.torch._line.line import frostline
from only_torch.bits import bits, contents


def residual() -> tuple[nn.Module, Tensor]:
    """All but the last stage is frozen, batch norm with it; the model is in training mode."""
    torch.manual_seed(0)
    model, (example,) = resnet18(small=True)
    ft.freeze(model, "**", "!layer4", "!fc")
    return model.train(), torch.randn(16, *example.shape[1:])


def words() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model, (example,) = bert(small=True)
    ft.freeze(model, "embeddings", "layer[:1]")
    return model.train(), torch.randint(0, 50, (16, *example.shape[1:]))


def trained(model: nn.Module, step: object, loader: DataLoader) -> dict[str, tuple]:
    """The contents of the model after two epochs."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(2):
        for inputs, label in loader:
            torch.manual_seed(1)
            optimizer.zero_grad()
            step(inputs).flatten(1)[:, :5].logsumexp(1).mul(label + 1).sum().backward()  # type: ignore[operator]
            optimizer.step()
    return contents(model)


@pytest.mark.parametrize("make", [residual, words])
def test_two_epochs_from_the_cache_are_bitwise_two_epochs_live(tmp_path: Path, make: object) -> None:
    model, inputs = make()  # type: ignore[operator]
    samples = TensorDataset(inputs, torch.arange(16) % 3)
    live, before = copy.deepcopy(model), contents(model)
    line = frostline(model, inputs[:8])
    cache = ft.FeatureCache(tmp_path / "features", line, budget="1GB", preprocessing="none")
    cache.fill(samples, batch_size=8)
    data = cache.dataset(samples)
    features = next(iter(DataLoader(data, batch_size=8)))[0]
    assert [bits(each) for each in features] == [bits(each) for each in line.below(inputs[:8])]
    assert sum(each.bytes for each in line.boundary) == sum(each[0].nbytes for each in features)
    cached = trained(model, lambda features: line.above(*features), DataLoader(data, batch_size=8))
    assert cached != before
    assert cached == trained(live, live, DataLoader(samples, batch_size=8))


def test_what_a_cache_is_told_of_its_model(tmp_path: Path) -> None:
    model, inputs = residual()
    samples = TensorDataset(inputs, torch.arange(16))
    line = frostline(model, inputs[:8])
    cache = ft.FeatureCache(tmp_path, line)
    cache.fill(samples, batch_size=8)
    data = cache.dataset(samples)
    # What is trained above the line leaves the cache as it is, also on another day.
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    line.above(*line.below(inputs[:8])).sum().backward()
    optimizer.step()
    assert len(data) == 16
    ft.FeatureCache(tmp_path, line).dataset(samples)
    # A thaw below does not, and is named; nor does a write to a buffer.
    handle = ft.thaw(model, "layer3[1].bn2.bias")
    with pytest.raises(StaleCacheError) as caught:
        data[0]
    assert str(caught.value) == "\n".join(
        [
            f"FeatureCache({str(tmp_path)!r}, line) is stale: 1 of 75 tensors below the line can be trained now.",
            "  layer3.1.bn2.bias",
            "Freeze it again, or draw a new line and make a new cache for it: line = frostline(model, *example).",
        ]
    )
    handle.undo()
    assert len(data) == 16
    model.bn1.running_mean.add_(1)
    with pytest.raises(
        StaleCacheError, match=r"1 of 75 tensors below the line were written to[^\n]*\n  bn1\.running_mean"
    ):
        data[0]


def test_another_line_of_the_same_model_is_another_cache(tmp_path: Path) -> None:
    model, inputs = residual()
    samples = TensorDataset(inputs)
    ft.FeatureCache(tmp_path, frostline(model, inputs[:8])).fill(samples, batch_size=8)
    ft.thaw(model, "layer3")
    with pytest.raises(CacheError, match="holds the features of another model, or of other weights below the line"):
        ft.FeatureCache(tmp_path, frostline(model, inputs[:8]))
