"""Refusals of a feature cache: the whole texts, and that nothing is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

import frostline.torch as ft
from frostline import FrostlineError
from frostline.errors import CacheBudgetError, CacheError, CacheSpaceError, StaleCacheError
from only_torch.cache.cached import DrawnLine, Noisy, Numbered, line, net

# Where JAX has run in this process before, it warns of a fork; workers read files, and no JAX.
pytestmark = pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")

NAME = "FeatureCache('features', line)"
ANOTHER = "Use another folder, FeatureCache('features-2', line), or delete it: frostline cache clear features"
SPLIT = "FeatureCache(..., split=lambda sample: (inputs, rest))"
FREEZE = "Freeze it again, or draw a new line and make a new cache for it: line = frostline(model, *example)."


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fill(samples: object, **options: object) -> None:
    ft.FeatureCache("features", line(), **options).fill(samples)  # type: ignore[arg-type]


def x(size: int = 4, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.ones(size, dtype=dtype)


class Stream(IterableDataset):
    def __iter__(self) -> object:
        yield x(), 1


def _infinite() -> None:
    passing = DrawnLine(nn.Sequential(nn.Identity(), nn.Linear(4, 2)), x()[None])
    samples = [(x(), 1), (x() * torch.inf, 1), (x() * torch.nan, 1), (x() * 3e38 * torch.tensor([1, -1, 1, 1]), 1)]
    ft.FeatureCache("features", passing, dtype="int8").fill(samples)


class WrongBoundary(DrawnLine):
    """A line whose boundary does not describe its values."""

    def below(self, *inputs: torch.Tensor, **named: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(value[:, :5] for value in super().below(*inputs))


def _wrong_boundary() -> None:
    ft.FeatureCache("features", WrongBoundary(net(), x()[None])).fill(Numbered())


TEXTS: list[tuple[str, Callable[[], object], list[str]]] = [
    (
        "random",
        lambda: fill(Noisy(3)),
        [
            "cache.fill(dataset) reads a random dataset: 3 of 3 samples differ when they are read twice.",
            "  sample 0",
            "  sample 1",
            "  sample 2",
            "Store several views of each: FeatureCache(..., views=4); or remove the augmentation.",
        ],
    ),
    (
        "views that are equal",
        lambda: fill(Numbered(), views=2),
        [
            "cache.fill(dataset) would store 2 equal views: 8 samples were read twice, and none differs.",
            "Store one view: FeatureCache(..., views=1).",
        ],
    ),
    (
        "views that are not a positive integer",
        lambda: fill(Noisy(), views=0),
        ["views=0 must be a positive integer.", "Write views=1, or more."],
    ),
    (
        "over the budget",
        lambda: fill(Numbered(), budget="1KB"),
        [
            "FeatureCache('features', budget=1000) is too small by 120 bytes: "
            "56 bytes a sample × 20 samples = 1120 bytes.",
            "It would take:",
            "  dtype='exact'    1120 bytes",
            "  dtype='bfloat16' 880 bytes, which fits",
            "  dtype='int8'     920 bytes, which fits",
            "Store less of each number: FeatureCache(..., dtype='bfloat16'); or raise it: budget=1120.",
        ],
    ),
    (
        "a stream",
        lambda: fill(Stream()),
        [
            "A feature cache needs samples by index, but Stream has none.",
            "Pass a dataset with __len__ and __getitem__.",
        ],
    ),
    (
        "no sample",
        lambda: fill([]),
        ["A feature cache needs samples, but the dataset has none.", "Pass another dataset."],
    ),
    (
        "a rest that is no number",
        lambda: fill([(x(), 1, "a.png")]),
        [
            "Part 1 of the rest of a sample is a str, and a cache holds numbers and arrays.",
            f"Divide the sample: {SPLIT}",
        ],
    ),
    (
        "an input that is no number",
        lambda: fill(["a.png"]),
        ["An input of the model is a str, and a cache holds numbers and arrays.", f"Divide the sample: {SPLIT}"],
    ),
    (
        "a rest of another size",
        lambda: fill([(x(), x(2)), (x(), x(3))]),
        [
            "Part 0 of the rest of a sample is float32[3], and in the first sample it was float32[2].",
            f"Give it one size and dtype, or leave it out: {SPLIT}",
        ],
    ),
    (
        "another rest",
        lambda: fill([(x(), 1), (x(), 1.0)]),
        [
            "A sample of the dataset has another rest than the first one: "
            "its structure is ['tuple', 'float'], not ['tuple', 'int'].",
            f"Leave out what differs: {SPLIT}",
        ],
    ),
    (
        "inputs of another size",
        lambda: fill([(x(), 1), (x(5), 1)]),
        [
            "An input of the model is float32[4] in one sample and float32[5] in another.",
            "Bring all samples to one size in the dataset: pad, resize or crop them.",
        ],
    ),
    (
        "other inputs",
        lambda: fill([(x(),), (x(), x())], split=lambda sample: (tuple(sample), ())),
        [
            "The inputs of the model have another number or other names in one sample than in another.",
            f"Give always the same: {SPLIT}",
        ],
    ),
    (
        "numbers that have no steps",
        _infinite,
        [
            "dtype='int8' stores 'value0' in steps between the least and the greatest number of each sample, "
            "and 3 of 4 samples have no finite range.",
            "  nan: 4 numbers",
            "  inf: 4 numbers",
            "Store it as it is, or as bfloat16: dtype='bfloat16'.",
        ],
    ),
    (
        "a line with a wrong boundary",
        _wrong_boundary,
        [
            "line.below(*inputs) gave [20, 5] for 'value0', not [20, 6].",
            "Draw the line with an example of the dataset.",
        ],
    ),
    (
        "a rank that does not exist",
        lambda: ft.FeatureCache("features", line()).fill(Numbered(), rank=2, ranks=2),
        ["cache.fill(rank=2, ranks=2) is not the rank of a process.", "Ranks begin at 0."],
    ),
    (
        "read before it is filled",
        lambda: ft.FeatureCache("features", line()).dataset(Numbered(2)),
        [
            f"{NAME}.dataset(dataset) lacks 2 of 2 rows.",
            "  sample 0",
            "  sample 1",
            "Compute them: cache.fill(dataset). If other ranks are filling the cache, wait until they have finished.",
        ],
    ),
]


@pytest.mark.parametrize(("act", "lines"), [row[1:] for row in TEXTS], ids=[row[0] for row in TEXTS])
def test_the_whole_text(act: Callable[[], object], lines: list[str]) -> None:
    with pytest.raises(FrostlineError) as caught:
        act()
    assert str(caught.value) == "\n".join(lines)
    assert [file for file in os.listdir() if file != "features"] == []
    # What is only seen in the middle of a fill leaves an empty cache that can be filled.
    assert os.listdir("features") == ["frostline-cache.json"] if os.path.exists("features") else True


def test_most_refusals_come_before_anything_is_written() -> None:
    for _, act, _ in TEXTS[:8]:
        with pytest.raises(FrostlineError):
            act()
        assert os.listdir() == []


def test_a_refusal_in_a_worker_keeps_its_class() -> None:
    samples = Numbered(3)
    samples.inputs = [x(), x(), x(5)]  # type: ignore[assignment]
    with pytest.raises(CacheError, match=r"float32\[4\] in one sample"):
        ft.FeatureCache("features", line()).fill(samples, num_workers=1)


def test_a_folder_of_something_else_is_left_alone() -> None:
    Path("features").mkdir()
    Path("features/photo.png").write_bytes(b"mine")
    with pytest.raises(CacheError, match=r"is not a feature cache: none of its 1 files is frostline-cache\.json"):
        ft.FeatureCache("features", line())
    assert Path("features/photo.png").read_bytes() == b"mine"


def test_a_disk_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1000, 0, 1000))
    with pytest.raises(CacheSpaceError):
        fill(Numbered())
    assert os.listdir() == []


def test_a_cache_of_other_weights() -> None:
    fill(Numbered())
    other = line()
    with torch.no_grad():
        other.model[0][0].bias[0] += 1e-6
    with pytest.raises(CacheError) as caught:
        ft.FeatureCache("features", other)
    assert str(caught.value).splitlines()[0] == (
        f"{NAME} holds the features of another model, or of other weights below the line."
    )
    assert line().fingerprint() in str(caught.value)
    assert other.fingerprint() in str(caught.value)
    assert str(caught.value).splitlines()[2] == ANOTHER
    # The negative control: what is above the line is not part of it.
    other = line()
    with torch.no_grad():
        other.model[1].bias[0] += 1
    ft.FeatureCache("features", other).dataset(Numbered())


@pytest.mark.parametrize("options", [{"dtype": "int8"}, {"preprocessing": "crop"}, {"views": 2}])
def test_a_cache_that_was_made_in_another_way(options: dict[str, object]) -> None:
    fill(Numbered())
    with pytest.raises(CacheError, match="holds features with other options"):
        ft.FeatureCache("features", line(), **options)  # type: ignore[arg-type]


def test_another_dataset() -> None:
    fill(Numbered())
    for change in (lambda x: x + 1e-6, lambda x: x.flip(0)):
        with pytest.raises(CacheError, match="holds features of other samples: 8 of 8 compared samples differ"):
            ft.FeatureCache("features", line()).dataset(Numbered(change=change))
        with pytest.raises(CacheError, match="holds features of other samples: 8 of 8 compared samples differ"):
            fill(Numbered(change=change))


def test_a_budget_that_was_met_before(monkeypatch: pytest.MonkeyPatch) -> None:
    fill(Numbered(), budget=1120)
    fill(Numbered(), budget=1120)
    with pytest.raises(CacheBudgetError):
        fill(Numbered(), budget=1119)


def watched() -> tuple[DrawnLine, ft.FeatureCache, ft.CachedDataset]:
    drawn = line()
    cache = ft.FeatureCache("features", drawn)
    cache.fill(Numbered())
    return drawn, cache, cache.dataset(Numbered())


@pytest.mark.parametrize("how", ["thaw", "flag"])
def test_a_thaw_below_the_line_is_refused_at_the_next_read(how: str) -> None:
    drawn, cache, data = watched()
    if how == "thaw":
        ft.thaw(drawn.model, "0.0.weight")
    else:
        drawn.model[0][0].weight.requires_grad_(True)
    for act in (lambda: len(data), lambda: data[0], lambda: cache.fill(Numbered()), lambda: cache.dataset(Numbered())):
        with pytest.raises(StaleCacheError) as caught:
            act()
        assert str(caught.value) == "\n".join(
            [f"{NAME} is stale: 1 of 2 tensors below the line can be trained now.", "  0.0.weight", FREEZE]
        )
    ft.freeze(drawn.model, "0")
    assert len(data) == 20


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_thaw_reaches_running_workers(start: str) -> None:
    drawn, _, data = watched()
    loader = DataLoader(data, batch_size=1, num_workers=1, prefetch_factor=1, multiprocessing_context=start)
    batches = iter(loader)
    next(batches)
    ft.thaw(drawn.model, "0", constants=True)
    with pytest.raises(RuntimeError, match="is stale: something below the line can be trained now"):
        for _ in batches:
            pass


def test_a_thaw_above_the_line_is_allowed() -> None:
    drawn, _, data = watched()
    ft.freeze(drawn.model, "1.bias")
    ft.thaw(drawn.model, "1.bias")
    assert len(data) == 20


def test_a_write_below_the_line_is_refused_at_the_next_read() -> None:
    drawn, cache, data = watched()
    before = drawn.fingerprint()
    with torch.no_grad():
        drawn.model[0][0].bias += 1e-3
    for act in (lambda: len(data), lambda: data[0], lambda: cache.fill(Numbered()), lambda: cache.dataset(Numbered())):
        with pytest.raises(StaleCacheError) as caught:
            act()
        assert str(caught.value) == "\n".join(
            [
                f"{NAME} is stale: 1 of 2 tensors below the line were written to since it was opened, "
                f"and the fingerprint is {drawn.fingerprint()} now, not {before}.",
                "  0.0.bias",
                "Load the weights that it was made with, or make a new one: FeatureCache(another_folder, line).",
            ]
        )


@pytest.mark.parametrize("act", ["fill", "dataset"])
def test_a_write_past_the_counters_is_refused_by_fill_and_dataset(act: str) -> None:
    """Writes through ``.data`` and numpy move no counter; the features would go to the folder of other weights."""
    drawn, cache, _ = watched()
    before = drawn.fingerprint()
    drawn.model[0][0].bias.data += 1
    with pytest.raises(StaleCacheError) as caught:
        getattr(cache, act)(Numbered())
    assert str(caught.value) == "\n".join(
        [
            f"{NAME} is stale: the part below the line was changed since it was opened, past the counters of its "
            f"tensors, and the fingerprint is {drawn.fingerprint()} now, not {before}.",
            "Load the weights that it was made with, or make a new one: FeatureCache(another_folder, line).",
        ]
    )


def test_a_write_of_the_same_bits_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are compared once."""
    drawn, _, data = watched()
    asked = []
    monkeypatch.setattr(drawn, "fingerprint", lambda: asked.append(1) or DrawnLine.fingerprint(drawn))
    drawn.model.load_state_dict(drawn.model.state_dict())
    drawn.model[0][0].weight.data = drawn.model[0][0].weight.data.clone()
    for index in range(5):
        data[index]
    assert len(asked) == 1


def test_without_the_check_a_write_goes_unnoticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: the check is what notices the write."""
    drawn, _, data = watched()
    monkeypatch.setattr(type(data._watch), "check", lambda _: None)
    with torch.no_grad():
        drawn.model[0][0].bias += 1
    assert len(data) == 20
