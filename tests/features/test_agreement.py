"""What a cache is refused for, with the whole text; nothing is written or removed by any of it."""

from __future__ import annotations

import pickle
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from features.made_stores import MADE, contents, filled, manifest
from frostline import FrostlineError
from frostline.errors import CacheBudgetError, CacheError, CacheSpaceError
from frostline.features import agreement, room, sizes
from frostline.features.boundary import Boundary
from frostline.features.columns import Column
from frostline.features.manifest import Manifest
from frostline.features.store import Store

FOLDER = Path("features")
ANOTHER = "Use another folder, FeatureCache('features-2', line), or delete it: frostline cache clear features"
NAME = "FeatureCache('features', line)"
USAGE = namedtuple("USAGE", "total used free")


def _same(**changed: object) -> Callable[[], object]:
    return lambda: agreement.check_made_alike(FOLDER, manifest(**changed))


def _other_model() -> object:
    return agreement.check_made_alike(
        FOLDER, Manifest.of("f" * 32, [Boundary("layer3", (5,), "float32", 20)], samples=1)
    )


def _other_boundary() -> object:
    return agreement.check_made_alike(FOLDER, Manifest.of(MADE, [Boundary("layer2", (5,), "float32", 20)], samples=1))


def _budget(budget: int, **changed: object) -> Callable[[], object]:
    return lambda: room.check_budget(FOLDER, manifest(**changed), budget)


def _random(views: int, differ: bool) -> Callable[[], object]:
    return lambda: agreement.check_random({0: b"a", 9: b"b"}, {0: b"a", 9: b"c" if differ else b"b"}, views)


def _sources() -> object:
    store = Store.opened(FOLDER)
    return agreement.check_sources(store, range(10), {0: bytes(16), 3: b"?" * 16, 9: b"!" * 16})


VALUES = (
    "boundary: (BoundaryValue(name='layer3', dtype='float32', shape=(5,), stored='float32'),) in the cache, "
    "(BoundaryValue(name='layer2', dtype='float32', shape=(5,), stored='float32'),) asked for"
)
TEXTS: list[tuple[str, Callable[[], object], list[str]]] = [
    (
        "another model",
        _other_model,
        [
            f"{NAME} holds the features of another model, or of other weights below the line.",
            f"  fingerprint: '{MADE}' in the cache, 'ffffffffffffffffffffffffffffffff' asked for",
            ANOTHER,
        ],
    ),
    (
        "other options",
        _same(views=4, preprocessing="crop"),
        [
            f"{NAME} holds features with other options.",
            "  preprocessing: '' in the cache, 'crop' asked for",
            "  views: 1 in the cache, 4 asked for",
            ANOTHER,
        ],
    ),
    (
        "another boundary",
        _other_boundary,
        [f"{NAME} holds features with other options.", f"  {VALUES}", ANOTHER],
    ),
    (
        "another rest",
        lambda: agreement.planned(FOLDER, manifest(rest=(Column("rest.0", "float32", (2,)),), structure="array")),
        [
            f"{NAME} holds samples whose rest, the parts beside the input of the model, has another layout.",
            "  rest: (['int64[1]'], ['tuple', 'int']) in the cache, (['float32[1, 2]'], 'array') asked for",
            ANOTHER,
        ],
    ),
    (
        "not full",
        lambda: agreement.complete(FOLDER, manifest(), range(10)),
        [
            f"{NAME}.dataset(dataset) lacks 6 of 10 rows.",
            "  sample 4",
            "  sample 5",
            "  sample 6",
            "  sample 7",
            "  sample 8",
            "  ... and 1 more",
            "Compute them: cache.fill(dataset). If other ranks are filling the cache, wait until they have finished.",
        ],
    ),
    (
        "nothing there",
        lambda: agreement.complete(Path("new"), manifest(views=2), ["a"]),
        [
            "FeatureCache('new', line).dataset(dataset) lacks 2 of 2 rows.",
            "  sample 'a', view 0",
            "  sample 'a', view 1",
            "Compute them: cache.fill(dataset). If other ranks are filling the cache, wait until they have finished.",
        ],
    ),
    (
        "other samples",
        _sources,
        [f"{NAME} holds features of other samples: 1 of 2 compared samples differ.", "  sample 3", ANOTHER],
    ),
    (
        "random samples",
        _random(1, differ=True),
        [
            "cache.fill(dataset) reads a random dataset: 1 of 2 samples differ when they are read twice.",
            "  sample 9",
            "Store several views of each: FeatureCache(..., views=4); or remove the augmentation.",
        ],
    ),
    (
        "equal views",
        _random(4, differ=False),
        [
            "cache.fill(dataset) would store 4 equal views: 2 samples were read twice, and none differs.",
            "Store one view: FeatureCache(..., views=1).",
        ],
    ),
    (
        "no samples",
        lambda: agreement.keys_of(range(0), None),
        ["A feature cache needs samples, but the dataset has none.", "Pass another dataset."],
    ),
    (
        "a key of another type",
        lambda: agreement.keys_of(range(3), lambda index: [index, None, ("a", 1)][index]),  # type: ignore[arg-type]
        [
            "FeatureCache(..., key=...) gives 2 of 3 samples a key that is neither an int nor a str.",
            "  NoneType",
            "  tuple",
            "Return a str: key=lambda index: str(name[index]).",
        ],
    ),
    (
        "a key twice",
        lambda: agreement.keys_of(range(5), lambda index: f"{index % 3}.png"),
        [
            "FeatureCache(..., key=...) gives 2 of 5 samples the key of another sample.",
            "  '0.png'",
            "  '1.png'",
            "Return another key for each index.",
        ],
    ),
    (
        "a budget that bfloat16 meets",
        _budget(450),
        [
            "FeatureCache('features', budget=450) is too small by 70 bytes: "
            "52 bytes a sample × 10 samples = 520 bytes.",
            "It would take:",
            "  dtype='exact'    520 bytes",
            "  dtype='bfloat16' 420 bytes, which fits",
            "  dtype='int8'     450 bytes, which fits",
            "Store less of each number: FeatureCache(..., dtype='bfloat16'); or raise it: budget=520.",
        ],
    ),
    (
        "a budget that nothing meets",
        _budget(100, views=2, precision="bfloat16"),
        [
            "FeatureCache('features', budget=100) is too small by 740 bytes: "
            "42 bytes a sample × 10 samples × 2 views = 840 bytes.",
            "It would take:",
            "  dtype='bfloat16' 840 bytes",
            "  dtype='int8'     900 bytes",
            "Raise the budget: FeatureCache(..., budget=840); or take fewer samples.",
        ],
    ),
    (
        "a budget that is none",
        lambda: sizes.parsed("much"),
        [
            "budget='much' is not a number of bytes. A number may have one of these units:",
            "  KB, MB, GB, TB, KiB, MiB, GiB, TiB",
            'Write budget="20GB".',
        ],
    ),
    (
        "a disk without room",
        lambda: room.check_disk(FOLDER, manifest(), 4),
        [
            "cache.fill(...) needs 312 bytes more in 'features', and the disk has 311.",
            "4 of 10 rows are stored, and stay; nothing is half-written.",
            "Make room, then call cache.fill(...) again: it computes only what is missing.",
        ],
    ),
]


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A cache of 4 of 10 samples in ./features, and what is in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: USAGE(1000, 689, 311))
    filled(FOLDER, range(4))
    return contents(tmp_path)


@pytest.mark.parametrize(("act", "lines"), [row[1:] for row in TEXTS], ids=[row[0] for row in TEXTS])
def test_the_whole_text(before: dict[str, bytes], tmp_path: Path, act: Callable[[], object], lines: list[str]) -> None:
    with pytest.raises(FrostlineError) as caught:
        act()
    assert str(caught.value) == "\n".join(lines)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), vars(again)) == (type(caught.value), str(caught.value), vars(caught.value))
    assert contents(tmp_path) == before


def test_what_is_alike_is_not_refused(before: dict[str, bytes]) -> None:
    """The negative control of all of them."""
    assert agreement.check_made_alike(FOLDER, manifest(samples=3)) == manifest()
    assert agreement.planned(FOLDER, manifest(samples=3)).rows == 4
    assert agreement.complete(FOLDER, manifest(), range(4)).rows == 4
    agreement.check_sources(Store.opened(FOLDER), range(10), {0: bytes(16), 9: b"!" * 16})
    _random(1, differ=False)()
    _random(4, differ=True)()
    _budget(520)()
    room.check_budget(FOLDER, manifest(), None)
    room.check_disk(FOLDER, manifest(), 5)
    assert agreement.keys_of(range(2), lambda index: f"{index}.png") == ["0.png", "1.png"]


def test_errors_carry_their_data(before: dict[str, bytes]) -> None:
    with pytest.raises(CacheBudgetError) as small:
        _budget(450)()
    assert (small.value.row, small.value.samples, small.value.views, small.value.budget) == (52, 10, 1, 450)
    assert small.value.totals == {"exact": 520, "bfloat16": 420, "int8": 450}
    with pytest.raises(CacheSpaceError) as full:
        room.check_disk(FOLDER, manifest(), 4)
    assert (full.value.needed, full.value.free, full.value.stored, full.value.rows) == (312, 311, 4, 10)
    with pytest.raises(CacheError) as other:
        _other_model()
    assert other.value.expression == NAME


def test_the_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert room.free_bytes(tmp_path / "a" / "b" / "c") == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.5)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("1KB", 1000), ("1 kib", 1024), ("0.5 GB", 500_000_000), ("2TB", 2 * 10**12), (7, 7)]
)
def test_sizes(text: str | int, size: int) -> None:
    assert sizes.parsed(text) == size


def test_a_size_beyond_all_floats() -> None:
    assert sizes.parsed("1" + "0" * 400) == 10**400


@pytest.mark.parametrize("text", ["", "GB", "-1", "1PB", "1e9", -1, True, 1.5, None])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(CacheError):
        sizes.parsed(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [lambda index: f"{index}" + "x" * 1000, lambda index: 10**5000 + index])
def test_keys_for_which_a_header_has_no_room(key: object) -> None:
    with pytest.raises(CacheError) as caught:
        agreement.keys_of(range(3), key)  # type: ignore[arg-type]
    assert str(caught.value) == "\n".join(
        [
            "FeatureCache(..., key=...) gives 3 of 3 samples a key of more than 1000 characters.",
            "Return a digest: key=lambda index: hashlib.sha256(name[index].encode()).hexdigest()",
        ]
    )
