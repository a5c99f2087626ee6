"""The feature cache: features are read from the disk, and belong to one line."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import frostline.jax as fj
from frostline.errors import CacheBudgetError, CacheError, DamagedCacheError, LineError
from frostline.features.manifest import Manifest
from frostline.features.store import Store
from only_jax.cache.cached import BELOW, DATASET, LINE, SAMPLES, TREE, Act, Noisy, drawn, files, filled, net
from only_jax.line.lined import weights


def test_features_are_read_bitwise_with_the_rest_of_each_sample(tmp_path: Path) -> None:
    cached = filled(tmp_path).dataset(DATASET)
    assert len(cached) == SAMPLES
    for index in (0, 7, 8, SAMPLES - 1, -1):
        (features,), rest = cached[index]
        assert features.tobytes() == BELOW[index].tobytes()
        assert rest["label"] == DATASET[index][1]["label"]
        assert type(rest["label"]) is int
        assert rest["box"].tolist() == DATASET[index][1]["box"].tolist()


def test_a_batch_is_read_at_once_and_goes_into_above(tmp_path: Path) -> None:
    cached = filled(tmp_path).dataset(DATASET)
    indices = [5, 0, 22, 5]
    features, rest = cached.batch(indices)
    assert features[0].tobytes() == BELOW[indices].tobytes()
    assert rest["label"].tolist() == [2, 0, 1, 2]
    assert rest["box"].shape == (4, 2)
    inputs = np.stack([DATASET[index][0] for index in indices])
    cut = jax.jit(fj.value_and_grad(lambda tree, *features: (LINE.above(tree, *features) ** 2).sum()))
    live = jax.jit(fj.value_and_grad(lambda tree, x: (net(tree, x) ** 2).sum()))
    for one, other in zip(jax.tree.leaves(cut(TREE, *features)), jax.tree.leaves(live(TREE, inputs)), strict=True):
        np.testing.assert_array_max_ulp(one, other, maxulp=8)
    assert [sample[1]["label"] for sample in cached.__getitems__(indices)] == [2, 0, 1, 2]


def test_a_cached_dataset_can_be_pickled(tmp_path: Path) -> None:
    cached = pickle.loads(pickle.dumps(filled(tmp_path).dataset(DATASET)))
    assert cached.batch([3])[0][0].tobytes() == BELOW[3].tobytes()


@pytest.mark.parametrize(
    ("dtype", "bytes_of_a_number", "error"),
    [
        ("exact", 4, 0.0),
        ("float32", 4, 0.0),
        ("bfloat16", 2, 2**-9),
        (jnp.bfloat16, 2, 2**-9),
        ("int8", 1, 2 / 255 / 2),
    ],
)
def test_less_exact_storage(tmp_path: Path, dtype: Any, bytes_of_a_number: int, error: float) -> None:
    cache = filled(tmp_path, dtype=dtype)
    ((features,), _) = cache.dataset(DATASET).batch(range(SAMPLES))
    assert features.dtype == np.float32
    assert np.abs(features - BELOW).max() <= error * 1.001
    manifest = Manifest.from_json((tmp_path / "features" / "frostline-cache.json").read_text())
    assert manifest.columns[0].nbytes == 4 * bytes_of_a_number


def test_the_format_is_that_of_the_store(tmp_path: Path) -> None:
    """The command line and the other front end read it, too."""
    filled(tmp_path)
    store = Store.opened(tmp_path / "features")
    assert (store.rows, store.verify(), store.manifest.fingerprint) == (SAMPLES, [], LINE.fingerprint())
    assert store.manifest.values[0].name == "tanh"


def test_only_missing_rows_are_computed(tmp_path: Path) -> None:
    cache = fj.FeatureCache(tmp_path / "features", LINE)
    cache.fill(DATASET, rank=1, ranks=2)
    half = files(tmp_path)
    with pytest.raises(CacheError, match="lacks 12 of 23 rows"):
        cache.dataset(DATASET)
    cache.fill(DATASET, rank=0, ranks=2)
    both = files(tmp_path)
    assert half.items() <= both.items()
    assert len(both) == len(half) + 1
    cache.fill(DATASET)
    assert files(tmp_path) == both
    assert cache.dataset(DATASET).batch(range(SAMPLES))[0][0].tobytes() == BELOW.tobytes()


def test_a_damaged_shard_is_found_and_computed_again(tmp_path: Path) -> None:
    cache = filled(tmp_path)
    before = files(tmp_path)
    (shard,) = (tmp_path / "features").glob("shard-*")
    data = bytearray(before[shard.name])
    data[-40] ^= 1
    shard.write_bytes(data)
    assert [damage.file for damage in cache.verify()] == [shard]
    with pytest.raises(DamagedCacheError):
        cache.dataset(DATASET).batch(range(SAMPLES))
    cache.fill(DATASET, batch_size=8)
    assert files(tmp_path) == before


def test_views_of_random_samples(tmp_path: Path) -> None:
    cache = filled(tmp_path, dataset=Noisy(), views=3)
    cached = cache.dataset(Noisy())
    views = []
    for epoch in range(4):
        cached.set_epoch(epoch)
        views.append(cached.batch(range(5))[0][0].tobytes())
    assert len(set(views)) == 3
    assert views[3] == views[0]
    cached.set_epoch(-1)
    assert {cached[0][0][0].tobytes() for _ in range(40)} == {view[:16] for view in views}


def test_another_tree_is_refused_and_no_file_changes(tmp_path: Path) -> None:
    filled(tmp_path)
    before, folder = files(tmp_path), tmp_path / "features"
    moved = fj.freeze({**weights("a", "b"), "a": weights("a")["a"].at[0, 0].add(1e-7)}, "a")
    with pytest.raises(CacheError) as caught:
        fj.FeatureCache(folder, drawn(moved))
    assert str(caught.value).splitlines() == [
        f"FeatureCache({str(folder)!r}, line) holds the features of another model, or of other weights below the line.",
        f"  fingerprint: {LINE.fingerprint()!r} in the cache, {drawn(moved).fingerprint()!r} asked for",
        f"Use another folder, FeatureCache({f'{folder}-2'!r}, line), or delete it: frostline cache clear {folder}",
    ]
    assert files(tmp_path) == before


def test_a_step_of_training_above_does_not_make_it_stale(tmp_path: Path) -> None:
    """The negative control."""
    filled(tmp_path)
    moved = fj.freeze({**weights("a", "b"), "b": weights("b")["b"] + 1}, "a")
    ((features,), _) = fj.FeatureCache(tmp_path / "features", drawn(moved)).dataset(DATASET).batch([0])
    assert features.tobytes() == BELOW[:1].tobytes()


def refused(folder: Path, act: Act) -> list[str]:
    with pytest.raises((CacheError, CacheBudgetError, LineError)) as caught:
        act(folder / "features")
    assert not (folder / "features").exists()
    return str(caught.value).replace(str(folder), "DIR").splitlines()


def fill(dataset: Any, **settings: Any) -> Act:
    return lambda folder: fj.FeatureCache(folder, LINE, **settings).fill(dataset)


SPLIT = "Divide a sample yourself: FeatureCache(..., split=lambda sample: (inputs, rest))"
CASES: list[tuple[str, Act, list[str]]] = [
    (
        "a budget that is too small",
        fill(DATASET, budget=1000),
        [
            "FeatureCache('DIR/features', budget=1000) is too small by 472 bytes: "
            "64 bytes a sample × 23 samples = 1472 bytes.",
            "It would take:",
            "  dtype='exact'    1472 bytes",
            "  dtype='bfloat16' 1288 bytes",
            "  dtype='int8'     1380 bytes",
            "Raise the budget: FeatureCache(..., budget=1288); or take fewer samples.",
        ],
    ),
    (
        "samples of another shape than the example",
        fill([(np.ones(3, np.float32), 0)]),
        [
            "line.below(*inputs) got float32 (1, 3), but the line was drawn for:",
            "  inputs[0]: float32 (samples, 4)",
            "Draw a line for them: frostline(fn, tree, *inputs).",
        ],
    ),
    (
        "random samples",
        fill(Noisy()),
        [
            "cache.fill(dataset) reads a random dataset: 5 of 5 samples differ when they are read twice.",
            *(f"  sample {number}" for number in range(5)),
            "Store several views of each: FeatureCache(..., views=4); or remove the augmentation.",
        ],
    ),
    (
        "no dataset",
        fill(iter(DATASET)),
        [
            "A feature cache needs samples by index, but list_iterator has none.",
            "Pass a dataset with __len__ and __getitem__.",
        ],
    ),
    (
        "a rest that is not an array",
        fill([(np.ones(4, np.float32), "a label")]),
        ["Part 0 of the rest of a sample is a str, but a cache holds numbers and arrays.", SPLIT],
    ),
    (
        "samples of two sizes",
        fill([(np.ones(4 - number % 2, np.float32), 0) for number in range(4)]),
        [
            "line.below(*inputs) got float32 (1, 3), but the line was drawn for:",
            "  inputs[0]: float32 (samples, 4)",
            "Draw a line for them: frostline(fn, tree, *inputs).",
        ],
    ),
    (
        "rests of two sizes",
        fill([(np.ones(4, np.float32), np.ones(2 + number)) for number in range(2)]),
        [
            "Part 0 of the rest of a sample is float64[3], and in the first sample it was float64[2].",
            "Give it one size and dtype, or leave it out: FeatureCache(..., split=lambda sample: (inputs, rest))",
        ],
    ),
    (
        "no such dtype",
        fill(DATASET, dtype="int4"),
        [
            "dtype='int4' is not one of the 4 precisions:",
            '  "exact": the computed bits',
            '  "float32": wider numbers are rounded',
            '  "bfloat16": 2 bytes a number, 8 significant bits',
            '  "int8": 1 byte a number, 256 steps between the minimum and the maximum of a sample',
            'Write dtype="bfloat16", or leave it out.',
        ],
    ),
    ("no views", fill(DATASET, views=0), ["views=0 must be a positive integer.", "Write views=1, or more."]),
]


@pytest.mark.parametrize(("act", "lines"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_refusal_writes_no_file(tmp_path: Path, act: Act, lines: list[str]) -> None:
    assert refused(tmp_path, act) == lines


def test_a_sample_of_another_size_that_comes_later(tmp_path: Path) -> None:
    dataset = [(np.ones(3 if number == 1 else 4, np.float32), 0) for number in range(30)]
    with pytest.raises(CacheError) as caught:
        fj.FeatureCache(tmp_path / "features", LINE).fill(dataset)
    assert str(caught.value).splitlines() == [
        "An input of the model is float32[4] in one sample and float32[3] in another.",
        "Bring all samples to one size in the dataset: pad, resize or crop them.",
    ]
    assert list(files(tmp_path)) == ["frostline-cache.json"]


def test_another_dataset_is_refused(tmp_path: Path) -> None:
    cache = filled(tmp_path)
    other = [(inputs + (index == 0), rest) for index, (inputs, rest) in enumerate(DATASET)]
    with pytest.raises(CacheError, match="holds features of other samples: 1 of 8 compared samples differ"):
        cache.dataset(other)


def test_a_tree_that_was_donated(tmp_path: Path) -> None:
    tree = fj.freeze({name: leaf + 0 for name, leaf in weights("a", "b").items()}, "a")
    line = drawn(tree)
    jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)(tree)
    with pytest.raises(LineError) as caught:
        fj.FeatureCache(tmp_path, line)
    assert str(caught.value).splitlines() == [
        "line.below(*inputs) needs the tree of the line, but 2 of its 2 arrays were donated.",
        "  a",
        "  b",
        "Donate only the trainable part: trained, rest = split(tree); or draw the line for a copy of it.",
    ]
    assert line.above(TREE, jnp.ones((5, 4))).shape == (5, 4)


def test_a_function_is_not_a_line(tmp_path: Path) -> None:
    with pytest.raises(CacheError) as caught:
        fj.FeatureCache(tmp_path, net)  # type: ignore[arg-type]
    assert str(caught.value).splitlines() == [
        "FeatureCache(directory, line) got a function as a line.",
        "Draw a line: line = frostline(fn, tree, *example).",
    ]
