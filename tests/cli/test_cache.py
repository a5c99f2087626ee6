"""``frostline cache info``, ``verify`` and ``clear``: in a process that needs no framework."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Result
from features.made_stores import contents, filled, flip

Run = Callable[..., Result]
INFO = """'features' is a feature cache.
  model          0123456789abcdef0123456789abcdef
  preprocessing  -
  dtype          exact
  rows           6 of 10 samples: 60 % full
  size           1.2 KiB in 2 shards, 52 bytes a row
  value 0        layer3: float32[5]
"""


@pytest.fixture(autouse=True)
def _features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    filled(Path("features"), range(4), [4, 5])


def test_info(run: Run) -> None:
    assert run("cache", "info", "features") == Result(0, INFO, "")


def test_info_of_int8_and_views(run: Run) -> None:
    filled(Path("other"), views=3, precision="int8", preprocessing="crop")
    lines = run("cache", "info", "other").out.splitlines()
    assert lines[2:5] == [
        "  preprocessing  crop",
        "  dtype          int8",
        "  rows           0 of 10 samples × 3 views: 0 % full",
    ]
    assert lines[6] == "  value 0        layer3: float32[5] as int8"


def test_info_as_json(run: Run) -> None:
    found: dict[str, Any] = json.loads(run("cache", "info", "features", "--json").out)
    assert found == {
        "bytes": 1232,
        "bytes_a_row": 52,
        "directory": "features",
        "dtype": "exact",
        "fingerprint": "0123456789abcdef0123456789abcdef",
        "preprocessing": "",
        "rows": 6,
        "rows_when_full": 10,
        "samples": 10,
        "shards": 2,
        "unfinished_files": 0,
        "unreadable_shards": 0,
        "values": [{"dtype": "float32", "name": "layer3", "shape": [5], "stored": "float32"}],
        "views": 1,
    }


def test_verify(run: Run) -> None:
    assert run("cache", "verify", "features") == Result(0, "'features': 0 of 2 shards damaged, 6 rows read.\n", "")


def test_verify_finds_damage_and_changes_nothing(run: Run) -> None:
    one, two = sorted(Path("features").glob("shard-*"))
    flip(one, -1)
    two.write_bytes(b"torn")
    Path("features/.shard-r0-0123456789abcdef.safetensors.01234567.part").write_bytes(b"half")
    before = contents(Path("features"))
    result = run("cache", "verify", "features")
    rows = 4 if one.stat().st_size > 800 else 2
    assert (result.code, result.err) == (1, "")
    assert result.out.splitlines() == [
        f"'features': 2 of 2 shards damaged, {rows} rows read.",
        f"  {two.name}: its header is not the header of a shard",
        f"  {one.name}: 1 of its {rows} rows are not what was stored",
        "Compute them again: cache.fill(dataset)",
        "1 file of an interrupted fill; the next fill cleans up.",
    ]
    assert contents(Path("features")) == before
    assert "  unreadable     1 shard; see: frostline cache verify\n" in run("cache", "info", "features").out


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, False), ("n\n", 1, True), ("", 1, True)])
def test_clear_asks(run: Run, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, left: bool) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO(answer))
    result = run("cache", "clear", "features")
    assert (result.code, Path("features").exists()) == (code, left)
    assert result.out.startswith(INFO + "Delete it? [y/N]: ")
    assert result.out.endswith("Deleted.\n") != left


def test_clear_does_not_ask(run: Run) -> None:
    Path("features/notes.txt").write_bytes(b"mine")
    assert run("cache", "clear", "features", "--yes") == Result(0, INFO + "Deleted.\n", "")
    assert os.listdir("features") == ["notes.txt"]


def test_clear_is_refused_by_the_system(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    err = "'features' cannot be deleted: Permission denied.\nThe remaining files are still a valid cache.\n"
    assert run("cache", "clear", "features", "--yes") == Result(2, INFO, err)


@pytest.mark.parametrize("command", ["info", "verify", "clear"])
def test_what_is_no_cache_is_left_as_it_is(run: Run, command: str) -> None:
    Path("photos").mkdir()
    Path("photos/a.png").write_bytes(b"mine")
    result = run("cache", command, "photos", *(["--yes"] if command == "clear" else []))
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines() == [
        "'photos' is not a feature cache: none of its 1 files is frostline-cache.json. Nothing was changed.",
        "  a.png",
        "Use a new folder: FeatureCache('photos-features', line)",
    ]
    assert contents(Path("photos")) == {"a.png": b"mine"}


def test_no_framework_is_needed() -> None:
    names = ("torch", "jax", "numpy", "networkx")
    code = f"import sys; sys.modules.update(dict.fromkeys({names!r})); from frostline.cli import main; main()"
    command = [sys.executable, "-c", code, "cache", "info", "features"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.stderr, result.stdout) == ("", INFO)
