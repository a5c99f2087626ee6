"""A feature cache returns the features that the line computes, and computes each sample once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import frostline.torch as ft
from frostline.features import writing
from only_torch.bits import bits
from only_torch.cache.cached import DrawnLine, Noisy, Numbered, line

HERE = Path(__file__).parent

# Where JAX has run in this process before, it warns of a fork; workers read files, and no JAX.
pytestmark = pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")


def read(data: Dataset, **options: object) -> tuple[list[Tensor], Tensor]:
    """Returns all features and labels, from batches of 10."""
    batches = list(DataLoader(data, batch_size=10, **options))
    return [torch.cat(parts) for parts in zip(*(features for features, _ in batches), strict=True)], torch.cat(
        [label for _, label in batches]
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "features"


@pytest.mark.parametrize("dtype", ["exact", "float32", torch.float32])
def test_features_are_those_that_the_line_computes(folder: Path, dtype: str | torch.dtype) -> None:
    drawn, samples = line(), Numbered()
    cache = ft.FeatureCache(folder, drawn, dtype=dtype)
    cache.fill(samples, batch_size=10)
    (features,), labels = read(cache.dataset(samples))
    live = torch.cat([drawn.below(samples.inputs[at : at + 10])[0] for at in (0, 10)])
    assert bits(features) == bits(live)
    assert bits(labels) == bits(torch.tensor([index % 3 for index in range(20)]))


def test_a_sample_is_features_and_the_rest(folder: Path) -> None:
    drawn, samples = line(), Numbered()
    cache = ft.FeatureCache(folder, drawn)
    cache.fill(samples)
    data = cache.dataset(samples)
    (features,), label = data[4]
    assert bits(features) == bits(drawn.below(samples.inputs)[0][4])
    assert (type(label), label) == (int, 1)
    assert data[-1][1] == 1
    with pytest.raises(IndexError, match="index 20 of 20 samples"):
        data[20]


def test_each_sample_is_computed_once(folder: Path) -> None:
    drawn, samples = line(), Numbered()
    cache = ft.FeatureCache(folder, drawn)
    cache.fill(Subset(samples, range(12)))
    assert drawn.calls == 12
    cache.fill(samples)
    assert drawn.calls == 20
    ft.FeatureCache(folder, line()).fill(samples)
    reads = samples.reads
    for _ in range(3):
        read(cache.dataset(samples))
    # Eight samples are looked at when a dataset is made, and none after that.
    assert (drawn.calls, samples.reads - reads) == (20, 3 * 8)


@pytest.mark.parametrize(
    ("workers", "start", "persistent"), [(0, None, False), (2, "fork", False), (2, "fork", True), (1, "spawn", True)]
)
def test_workers_read_what_one_process_reads(folder: Path, workers: int, start: str, persistent: bool) -> None:
    cache = ft.FeatureCache(folder, line(), dtype="bfloat16")
    cache.fill(Numbered(), num_workers=workers)
    data = cache.dataset(Numbered())
    (alone,), labels = read(data)
    options = {"multiprocessing_context": start, "persistent_workers": persistent} if workers else {}
    (features,), others = read(data, num_workers=workers, **options)
    assert (bits(features), bits(others)) == (bits(alone), bits(labels))


def test_a_batch_is_read_and_not_stacked(folder: Path) -> None:
    cache = ft.FeatureCache(folder, line())
    cache.fill(Numbered())
    data = cache.dataset(Numbered())
    whole = data.__getitems__([3, 1, 2])
    (together,) = torch.utils.data.default_collate([features for features, _ in whole])
    assert together.data_ptr() == whole[0][0][0].data_ptr()
    # Another order, a part, or samples of two batches are stacked as always.
    for some in ([whole[1], whole[0]], whole[:2], [*whole[:2], data[0]]):
        (stacked,) = torch.utils.data.default_collate([features for features, _ in some])
        assert bits(stacked) == bits(torch.stack([features[0] for features, _ in some]))


def test_a_shuffled_loader_and_parts_of_the_dataset(folder: Path) -> None:
    drawn, samples = line(), Numbered()
    cache = ft.FeatureCache(folder, drawn)
    cache.fill(samples)
    some = Subset(cache.dataset(samples), [7, 2, 9])
    (features,), labels = read(some, shuffle=True)
    live = drawn.below(samples.inputs)[0]
    assert {bits(row)[2] for row in features} == {bits(live[index])[2] for index in (7, 2, 9)}
    assert sorted(labels.tolist()) == [0, 1, 2]


def ramp(samples: int, change: Callable[[Tensor], Tensor] = lambda x: x) -> TensorDataset:
    return TensorDataset(change(torch.randn(samples, 64, generator=torch.Generator().manual_seed(0))))


def passing(dtype: torch.dtype) -> DrawnLine:
    """Returns a line with an identity below it."""
    model = nn.Sequential(nn.Identity(), nn.Linear(64, 2))
    return DrawnLine(model, torch.zeros(1, 64, dtype=dtype))


def stored(folder: Path, data: TensorDataset, dtype: str) -> Tensor:
    cache = ft.FeatureCache(folder, passing(data.tensors[0].dtype), dtype=dtype)
    cache.fill(data)
    return cache.dataset(data).__getitems__(range(len(data)))[0][0].batch[0]


def test_bfloat16_is_off_by_a_256th(folder: Path) -> None:
    data = ramp(100)
    error = (stored(folder, data, "bfloat16") - data.tensors[0]).abs() / data.tensors[0].abs()
    assert 0.003 < error.max() <= 0.00390625


def test_int8_is_off_by_a_510th_of_the_range(folder: Path) -> None:
    """The error is half a step, also for positive numbers and for a row of another scale."""
    data = ramp(100, lambda x: torch.cat([x[:50], x[50:].abs() * 1000]))
    x = data.tensors[0]
    error = (stored(folder, data, "int8") - x).abs().amax(1) / (x.amax(1) - x.amin(1))
    assert 0.0019 < error.max() <= 0.00197


def test_int8_keeps_the_least_number_and_a_row_of_one_number(folder: Path) -> None:
    data = ramp(4, lambda x: torch.cat([x[:2].relu(), x[2:3] * 0 + 3.7, x[3:] * 0]))
    found = stored(folder, data, "int8")
    zeros = data.tensors[0][:2] == 0
    assert zeros.sum() > 40
    assert (found[:2][zeros] == 0).all()
    assert torch.equal(found[2:], data.tensors[0][2:])


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64]
)
def test_exact_is_exact_for_each_dtype(folder: Path, dtype: torch.dtype) -> None:
    data = ramp(5, lambda x: (x * 3).to(dtype))
    assert bits(stored(folder, data, "exact")) == bits(data.tensors[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_values_stored_in_fewer_bytes_come_back_in_their_own_dtype(folder: Path, dtype: torch.dtype) -> None:
    data = ramp(5, lambda x: x.to(dtype))
    found = stored(folder, data, "int8")
    assert found.dtype == dtype
    assert (found - data.tensors[0]).abs().max() < 0.012


class Two(nn.Module):
    def forward(self, x: Tensor, *, times: Tensor) -> tuple[Tensor, Tensor]:
        return x.reshape(-1, 2, 2) * times[:, None, None], times


class Named(DrawnLine):
    """A line that takes an input by name, and whose boundary is two values."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Identity(), nn.Identity()), torch.zeros(1, 2, 2), at=1)
        self.boundary += (DrawnLine(self.model, torch.zeros(1)).boundary[0],)

    def below(self, *inputs: Tensor, **named: Tensor) -> tuple[Tensor, ...]:
        return Two()(*inputs, **named)


def test_several_inputs_several_values_and_a_nested_rest(folder: Path) -> None:
    samples = [
        {
            "x": torch.full((4,), float(n)),
            "times": np.float32(2.0),
            "labels": {"box": np.arange(3)[::-1], "seen": n > 1},
        }
        for n in range(3)
    ]
    drawn = Named()
    cache = ft.FeatureCache(folder, drawn, split=by_name)
    drawn.below = lambda **named: Two()(named["x"], times=named["times"])  # type: ignore[method-assign,assignment]
    cache.fill(samples)  # type: ignore[arg-type]
    data = cache.dataset(samples)  # type: ignore[arg-type]
    features, labels = data[2]
    assert [each.tolist() for each in features] == [[[4.0, 4.0], [4.0, 4.0]], 2.0]
    assert (labels["box"].tolist(), labels["seen"]) == ([2, 1, 0], True)
    ((grids, times), labels) = next(iter(DataLoader(data, batch_size=3)))
    assert (grids.shape, times.tolist()) == ((3, 2, 2), [2.0, 2.0, 2.0])
    assert labels["seen"].tolist() == [False, False, True]


def by_name(sample: dict[str, object]) -> tuple[object, object]:
    return {"x": sample["x"], "times": sample["times"]}, sample["labels"]


def test_keys_of_the_user(folder: Path) -> None:
    """The files in another order have the same cache."""
    names = ["c", "a", "b"]
    x = {name: torch.full((4,), float(ord(name))) for name in names}
    drawn = line()
    ft.FeatureCache(folder, drawn, key=names.__getitem__).fill([(x[name], name == "a") for name in names])
    names.sort()
    cache = ft.FeatureCache(folder, drawn, key=names.__getitem__)
    again = [(x[name], name == "a") for name in names]
    cache.fill(again)
    assert drawn.calls == 3
    torch.testing.assert_close(cache.dataset(again)[0][0][0], drawn.below(x["a"][None])[0][0])


def test_views_of_a_random_dataset(folder: Path) -> None:
    drawn, samples = line(), Noisy(6)
    cache = ft.FeatureCache(folder, drawn, views=3)
    cache.fill(samples)
    assert drawn.calls == 18
    data = cache.dataset(samples)
    epochs = []
    for epoch in range(6):
        data.set_epoch(epoch)
        epochs.append(bits(read(data)[0][0]))
    assert epochs[:3] == epochs[3:]
    assert len(set(epochs)) == 3


def test_without_an_epoch_views_are_drawn(folder: Path) -> None:
    cache = ft.FeatureCache(folder, line(), views=2)
    cache.fill(Noisy(20))
    data = cache.dataset(Noisy(20))
    seen = [read(data)[0][0] for _ in range(8)]
    assert [len({bits(epoch[row]) for epoch in seen}) for row in range(20)].count(2) > 15


def test_persistent_workers_follow_the_epoch(folder: Path) -> None:
    cache = ft.FeatureCache(folder, line(), views=2)
    cache.fill(Noisy(6))
    data = cache.dataset(Noisy(6))
    loader = DataLoader(data, batch_size=6, num_workers=1, persistent_workers=True)
    epochs = []
    for epoch in range(3):
        data.set_epoch(epoch)
        epochs.append(bits(next(iter(loader))[0][0]))
    assert epochs[0] == epochs[2] != epochs[1]


def test_two_ranks_in_two_processes(folder: Path) -> None:
    drawn, samples = line(), Numbered(60)
    with subprocess.Popen([sys.executable, HERE / "cache_rank.py", folder, "1", "2"]) as other:
        cache = ft.FeatureCache(folder, drawn)
        while not list(folder.glob("shard-r1-*")) and other.poll() is None:
            time.sleep(0.001)
        cache.fill(samples, batch_size=4, rank=0, ranks=2)
        assert other.wait(60) == 0
    cache.fill(samples)
    assert drawn.calls == 30
    (features,), _ = read(cache.dataset(samples))
    torch.testing.assert_close(features, drawn.below(samples.inputs)[0])


def test_a_rank_computes_its_own_part_and_no_more(folder: Path) -> None:
    drawn, samples = line(), Numbered()
    cache = ft.FeatureCache(folder, drawn)
    cache.fill(samples, rank=1, ranks=3)
    assert (drawn.calls, repr(cache)) == (7, f"FeatureCache({str(folder)!r}, 7 of 20 samples, exact, 864 B)")
    cache.fill(samples, rank=0, ranks=2)
    # 10 even numbers, of which 4, 10 and 16 are there.
    assert drawn.calls == 14
    cache.fill(samples)
    assert drawn.calls == 20


def test_a_damaged_shard_is_computed_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MOST_ROWS", 5)
    drawn, samples = line(), Numbered()
    cache = ft.FeatureCache(folder, drawn)
    cache.fill(samples, batch_size=5)
    file = sorted(folder.glob("shard-*"))[1]
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 64]))
    assert [damage.file for damage in cache.verify()] == [file]
    drawn.calls = 0
    cache.fill(samples, batch_size=5, verify=False)
    assert drawn.calls == 0
    cache.fill(samples, batch_size=5)
    assert (drawn.calls, cache.verify()) == (5, [])
    # A batch of another size may be rounded otherwise; the same batch is not.
    assert file.read_bytes() == whole
    (features,), _ = read(cache.dataset(samples))
    live = torch.cat([drawn.below(samples.inputs[at : at + 5])[0] for at in range(0, 20, 5)])
    assert bits(features) == bits(live)


def test_a_loop_trains_as_it_would_without_the_cache(folder: Path) -> None:
    """Twenty steps of AdamW over the head are bitwise the same from the cache and from the model."""
    heads = []
    for cached in (False, True):
        drawn, samples = line(), Numbered()
        if cached:
            cache = ft.FeatureCache(folder, drawn)
            cache.fill(samples, batch_size=10)
            data: Dataset = cache.dataset(samples)
        optimizer = torch.optim.AdamW(drawn.model[1].parameters(), lr=0.1)
        for _ in range(10):
            for inputs, label in DataLoader(data if cached else samples, batch_size=10):
                output = drawn.above(*inputs) if cached else drawn.model(inputs)
                optimizer.zero_grad()
                nn.functional.cross_entropy(output, label).backward()
                optimizer.step()
        heads.append([bits(p) for p in drawn.model[1].parameters()])
    assert heads[0] == heads[1]


def test_a_cache_describes_itself_in_one_line(folder: Path) -> None:
    cache = ft.FeatureCache(folder, line(), dtype="int8", budget="1KB", views=2)
    assert repr(cache) == f"FeatureCache({str(folder)!r}, empty, int8)"
    begun = time.monotonic()
    cache.fill(Noisy(4))
    assert time.monotonic() - begun < 10
    assert repr(cache) == f"FeatureCache({str(folder)!r}, 4 of 4 samples, int8, 1.5 KiB)"
