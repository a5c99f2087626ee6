"""A folder of features: what is written is what is read, and nothing else is taken for it."""

from __future__ import annotations

import errno
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from features.made_stores import MADE, contents, filled, flip, label, layer, manifest, rows
from frostline.errors import CacheError, CacheSpaceError, DamagedCacheError
from frostline.features import reading, writing
from frostline.features.shards import Shard
from frostline.features.store import Store
from frostline.features.writing import Writer


def test_rows_come_back_in_any_order(tmp_path: Path) -> None:
    store = filled(tmp_path, range(4), range(4, 10))
    places = store.places([7, 0, 3, 7], 0)
    found = store.reader().rows(places, ["value.0", "rest.0"])
    assert found["value.0"] == layer(7) + layer(0) + layer(3) + layer(7)
    assert found["rest.0"] == label(7) + label(0) + label(3) + label(7)
    assert store.reader().rows([], ["value.0"]) == {"value.0": b""}


def test_what_is_missing(tmp_path: Path) -> None:
    store = filled(tmp_path, [1, 3], views=2)
    assert store.missing([0, 1, 2, 3], 0) == [0, 2]
    assert store.missing([0, 1], 1) == [0, 1]
    assert (store.rows, store.manifest.rows, store.manifest.row) == (2, 20, 52)


def test_a_shard_is_a_safetensors_file(tmp_path: Path) -> None:
    (shard,) = filled(tmp_path, range(3)).shards
    with safe_open(shard.file, framework="np") as file:
        assert sorted(file.keys()) == ["digest", "rest.0", "source", "value.0"]
        assert file.get_slice("value.0").get_shape() == [3, 5]
        said = json.loads(file.metadata()["frostline.shard"])
    assert (said["model"], said["keys"], said["view"]) == (MADE, [0, 1, 2], 0)


def test_texts_for_keys(tmp_path: Path) -> None:
    store = filled(tmp_path)
    writer = Writer(store)
    writer.add(0, ["å.png", 1], rows([5, 6]))
    writer.flush()
    again = Store.opened(tmp_path)
    assert again.reader().rows(again.places(["å.png"], 0), ["value.0"])["value.0"] == layer(5)


def test_many_rows_are_many_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MOST_ROWS", 4)
    store = filled(tmp_path)
    writer = Writer(store)
    for index in range(0, 10, 2):
        writer.add(0, [index, index + 1], rows([index, index + 1]))
    assert len(os.listdir(tmp_path)) == 1 + 2
    writer.flush()
    store.refresh()
    assert sorted(len(shard.keys) for shard in store.shards) == [2, 4, 4]
    assert store.missing(range(10), 0) == []


def test_bytes_and_seconds_also_end_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MOST_BYTES", 2 * 52)
    store = filled(tmp_path)
    writer = Writer(store)
    writer.add(0, [0], rows([0]))
    assert len(os.listdir(tmp_path)) == 1
    writer.add(0, [1], rows([1]))
    assert len(os.listdir(tmp_path)) == 2
    monkeypatch.setattr(writing, "MOST_SECONDS", -1.0)
    writer.add(0, [2], rows([2]))
    assert len(os.listdir(tmp_path)) == 3


def test_few_files_are_held_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_MAPS", 2)
    store = filled(tmp_path, *([index] for index in range(10)))
    reader = store.reader()
    for index in (3, 9, 1, 3, 0):
        assert reader.rows(store.places([index], 0), ["value.0"])["value.0"] == layer(index)
    assert len(reader._maps) == 2


def test_a_reader_that_was_pickled_reads(tmp_path: Path) -> None:
    store = filled(tmp_path, range(4))
    reader = store.reader()
    places = store.places([2], 0)
    reader.rows(places, ["value.0"])
    assert pickle.loads(pickle.dumps(reader)).rows(places, ["value.0"]) == {"value.0": layer(2)}


def test_the_same_rows_twice_are_one_file_or_harmless(tmp_path: Path) -> None:
    """Two fills at a time may compute the same rows: of the same rank they have one name, of two ranks two."""
    store = filled(tmp_path, [0, 1], [0, 1])
    assert len(store.shards) == 1
    writer = Writer(store, rank=1)
    writer.add(0, [1, 2], rows([1, 2]))
    writer.flush()
    store.refresh()
    assert (len(store.shards), store.rows) == (2, 3)


@pytest.mark.parametrize("column", ["value.0", "rest.0", "source", "digest"])
def test_a_flipped_bit_in_any_column_is_found(tmp_path: Path, column: str) -> None:
    store = filled(tmp_path, range(4), [4, 5])
    shard = next(shard for shard in store.shards if 2 in shard.keys)
    begin, width = shard.spans[column]
    flip(shard.file, begin + 2 * width)
    again = Store.opened(tmp_path)
    (damage,) = again.verify()
    assert (damage.file, damage.problem, damage.rows) == (shard.file, "1 of its 4 rows are not what was stored", 1)
    # Rows beside it can be read; it itself is refused before a byte of it is handed out.
    again.reader().rows(again.places([0, 1, 3, 4, 5], 0), ["value.0"])
    with pytest.raises(DamagedCacheError) as caught:
        again.reader().rows(again.places([1, 2], 0), ["value.0"])
    assert str(caught.value) == "\n".join(
        [
            f"The cache {str(tmp_path)!r} holds 1 shard that is not what was written.",
            f"  {shard.file.name}: the row of sample 2 is not what was stored",
            "Compute it again: cache.fill(dataset). To see all: frostline cache verify DIR",
        ]
    )


def test_without_the_digest_a_flipped_bit_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: it is the digest that finds it, and nothing else."""
    store = filled(tmp_path, range(4))
    flip(store.shards[0].file, store.shards[0].spans["value.0"][0])
    assert len(store.verify()) == 1
    monkeypatch.setattr(reading.Reader, "_is_sound", lambda *_: True)
    assert store.verify() == []
    assert store.reader().rows(store.places([0], 0), ["value.0"])["value.0"] != layer(0)


def test_every_byte_of_a_header_matters(tmp_path: Path) -> None:
    (shard,) = filled(tmp_path, range(3)).shards
    whole = shard.file.read_bytes()
    for at in range(shard.begin):
        data = bytearray(whole)
        data[at] ^= 1 + 31 * (at % 2)
        shard.file.write_bytes(data)
        assert not isinstance(Shard.read(shard.file, manifest()), Shard), at
    shard.file.write_bytes(whole)
    assert isinstance(Shard.read(shard.file, manifest()), Shard)


@pytest.mark.parametrize("length", [0, 5, 8, 100, -1])
def test_a_cut_shard_is_found_and_its_rows_are_missing(tmp_path: Path, length: int) -> None:
    store = filled(tmp_path, range(4), [4, 5])
    shard = next(shard for shard in store.shards if 2 in shard.keys)
    shard.file.write_bytes(shard.file.read_bytes()[:length])
    again = Store.opened(tmp_path)
    assert [damage.file for damage in again.verify()] == [shard.file]
    assert again.missing(range(6), 0) == [0, 1, 2, 3]
    again.remove([shard.file])
    assert Store.opened(tmp_path).verify() == []


def test_a_shard_of_another_model_is_no_part_of_it(tmp_path: Path) -> None:
    store = filled(tmp_path / "a", range(4))
    other = Store(tmp_path / "b", manifest())
    object.__setattr__(other.manifest, "fingerprint", "f" * 32)
    other.create()
    Writer(other).flush()
    os.rename(store.shards[0].file, tmp_path / "b" / store.shards[0].file.name)
    (damage,) = Store.opened(tmp_path / "b").verify()
    assert damage.problem == f"it belongs to another model, '{MADE}'"


def test_a_shard_that_is_gone(tmp_path: Path) -> None:
    store = filled(tmp_path, range(4))
    reader = store.reader()
    store.shards[0].file.unlink()
    with pytest.raises(DamagedCacheError, match="no such file or directory"):
        reader.rows(store.places([1], 0), ["value.0"])
    assert [damage.problem for damage in store.verify()] == ["no such file or directory"]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path, range(4))
    before = contents(tmp_path)
    writer = Writer(store)
    writer.add(0, [4, 5], rows([4, 5]))
    fsync = os.fsync

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(writing, "free_bytes", lambda _: 17)
    with pytest.raises(CacheSpaceError) as caught:
        writer.flush()
    assert contents(tmp_path) == before
    assert str(caught.value) == "\n".join(
        [
            f"cache.fill(...) needs 312 bytes more in {str(tmp_path)!r}, and the disk has 17.",
            "4 of 10 rows are stored, and stay; nothing is half-written.",
            "Make room, then call cache.fill(...) again: it computes only what is missing.",
        ]
    )
    assert caught.value.errno == errno.ENOSPC
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.errno, again.free) == (str(caught.value), errno.ENOSPC, 17)
    monkeypatch.setattr(os, "fsync", fsync)
    writer.flush()
    store.refresh()
    assert store.missing(range(10), 0) == [6, 7, 8, 9]


def test_another_refusal_of_the_system_comes_out_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    writer = Writer(filled(tmp_path))
    writer.add(0, [4], rows([4]))
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError):
        writer.flush()


def test_leftovers_are_removed_by_who_takes_the_place_of_the_killed(tmp_path: Path) -> None:
    store = filled(tmp_path, [0])
    names = [f".shard-r{rank}-0123456789abcdef.safetensors.01234567.part" for rank in (0, 1, 4)]
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    assert [file.name for file in store.leftovers()] == names
    assert [file.name for file in store.leftovers_of(0, 1)] == names
    assert [file.name for file in store.leftovers_of(0, 4)] == [names[0], names[2]]
    assert [file.name for file in store.leftovers_of(1, 4)] == [names[1]]


def test_clearing_takes_the_cache_and_nothing_else(tmp_path: Path) -> None:
    store = filled(tmp_path, range(4))
    part = ".shard-r0-0123456789abcdef.safetensors.01234567.part"
    others = ["notes.txt", "model.safetensors", "shard-r0-x.safetensors", ".a.part"]
    for name in [*others, part, ".frostline-cache.json.01234567.part"]:
        (tmp_path / name).write_bytes(b"mine")
    store.clear()
    assert sorted(os.listdir(tmp_path)) == sorted(others)
    for name in others:
        (tmp_path / name).unlink()
    filled(tmp_path, range(4)).clear()
    assert not tmp_path.exists()


def test_clearing_through_a_link_leaves_the_link_and_its_folder(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there")
    filled(link, range(4)).clear()
    assert sorted(os.listdir(tmp_path)) == ["link", "there"]
    assert not os.listdir(link)


def test_a_folder_that_is_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"mine")
    before = contents(tmp_path)
    for act in (lambda: Store.opened(tmp_path), lambda: Store(tmp_path, manifest()).create()):
        with pytest.raises(CacheError) as caught:
            act()
        assert str(caught.value) == "\n".join(
            [
                f"{str(tmp_path)!r} is not a feature cache: none of its 2 files is frostline-cache.json. "
                "Nothing was changed.",
                "  a",
                "  b",
                f"Use a new folder: FeatureCache('{tmp_path}-features', line)",
            ]
        )
    assert contents(tmp_path) == before


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "new"):
        with pytest.raises(CacheError) as caught:
            Store.opened(folder)
        assert str(caught.value) == "\n".join(
            [
                f"{str(folder)!r} is not a feature cache: the folder does not exist or is empty.",
                f"Make one: cache = FeatureCache({str(folder)!r}, line); cache.fill(dataset)",
            ]
        )


def test_a_manifest_that_cannot_be_read(tmp_path: Path) -> None:
    filled(tmp_path, range(4))
    (tmp_path / "frostline-cache.json").write_text("{}")
    before = contents(tmp_path)
    with pytest.raises(CacheError) as caught:
        Store.opened(tmp_path)
    assert str(caught.value) == "\n".join(
        [
            f"{str(tmp_path)!r} is not a readable feature cache: "
            "its format is None, not 'frostline.feature_cache'. Nothing was changed.",
            f"Use a new folder: FeatureCache('{tmp_path}-features', line)",
        ]
    )
    assert contents(tmp_path) == before


def test_a_grown_dataset_is_said_in_the_manifest(tmp_path: Path) -> None:
    filled(tmp_path, range(4))
    grown = Store(tmp_path, manifest(samples=12))
    assert (grown.rows, grown.manifest.samples) == (4, 12)
    grown.create()
    assert Store.opened(tmp_path).manifest.samples == 12


def test_of_two_that_create_at_a_time_the_other_finds_it_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename: Any = os.replace

    def beaten(one: Path, other: Path) -> None:
        monkeypatch.setattr(os, "replace", rename)
        Store(tmp_path, manifest()).create()
        rename(one, other)

    monkeypatch.setattr(os, "replace", beaten)
    Store(tmp_path, manifest()).create()
    assert Store.opened(tmp_path).manifest == manifest()
    assert os.listdir(tmp_path) == ["frostline-cache.json"]
