"""A file is replaced whole, or left as it is."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from frostline.checkpoint import replacement
from frostline.checkpoint.replacement import replacing


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "a").write_bytes(b"old")
    return tmp_path / "a"


def replace(file: Path, content: bytes) -> None:
    with replacing(file) as stream:
        stream.write(content)


def names(file: Path) -> list[str]:
    return sorted(os.listdir(file.parent))


def test_the_new_content_takes_the_place_of_the_old(file: Path) -> None:
    replace(file, b"new")
    assert (file.read_bytes(), names(file)) == (b"new", ["a"])


def test_a_file_that_was_not_there(file: Path) -> None:
    replace(file.with_name("b"), b"new")
    assert (file.with_name("b").read_bytes(), names(file)) == (b"new", ["a", "b"])


def test_until_the_end_the_old_content_is_there(file: Path) -> None:
    with replacing(file) as stream:
        stream.write(b"new")
        stream.flush()
        assert file.read_bytes() == b"old"
        assert len(names(file)) == 2


def test_what_is_done_and_in_which_order(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash of the machine cannot be had; the order on which it depends can be seen."""
    done: list[str] = []
    fsync, rename = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        mode = os.fstat(descriptor).st_mode
        written = "" if stat.S_ISDIR(mode) else f" of {os.fstat(descriptor).st_size} bytes"
        done.append(f"sync a {'folder' if stat.S_ISDIR(mode) else 'file'}{written}")
        fsync(descriptor)

    def renamed(one: Path, other: Path) -> None:
        done.append("rename")
        rename(one, other)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    replace(file, b"newer")
    assert done == ["sync a file of 5 bytes", "rename", "sync a folder"]


def test_a_link_stays_and_its_file_is_replaced(file: Path) -> None:
    file.with_name("link").symlink_to("a")
    file.with_name("elsewhere").mkdir()
    file.with_name("far").symlink_to("elsewhere/b")
    replace(file.with_name("link"), b"new")
    replace(file.with_name("far"), b"far")
    assert (file.read_bytes(), file.with_name("link").readlink()) == (b"new", Path("a"))
    assert (file.parent / "elsewhere/b").read_bytes() == b"far"


def test_permissions_stay(file: Path) -> None:
    file.chmod(0o600)
    replace(file, b"new")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_leftovers_of_the_same_name_are_removed_and_no_others(file: Path) -> None:
    others = ["a.part", ".a.part", ".a.b.01234567.part", ".ab.01234567.part", ".a.0123456x.part", ".a.01234567.part.b"]
    for name in [".a.01234567.part", ".a.89abcdef.part", *others]:
        file.with_name(name).write_bytes(b"half")
    replace(file, b"new")
    assert names(file) == sorted(["a", *others])


def test_what_another_process_writes_now_is_no_leftover(file: Path) -> None:
    """Ranks that save to one file at the same time all succeed, and the last one to end decides."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from frostline.checkpoint.replacement import replacing\n"
        "with replacing(Path(sys.argv[1])) as stream:\n"
        "    stream.write(b'theirs')\n"
        "    stream.flush()\n"
        "    print('begun', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"begun\n"
        replace(file, b"ours")
        assert (file.read_bytes(), len(names(file))) == (b"ours", 2)
        other.communicate()
    assert (other.returncode, file.read_bytes(), names(file)) == (0, b"theirs", ["a"])


def test_a_leftover_that_is_a_link_leads_nowhere(file: Path) -> None:
    file.with_name("precious").write_bytes(b"precious")
    file.with_name(".a.01234567.part").symlink_to("precious")
    replace(file, b"new")
    assert (names(file), file.with_name("precious").read_bytes()) == (["a", "precious"], b"precious")


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_an_error_of_who_writes_comes_out_and_changes_nothing(file: Path, error: type[BaseException]) -> None:
    def write() -> None:
        with replacing(file) as stream:
            stream.write(b"ne")
            raise error

    with pytest.raises(error):
        write()
    assert (file.read_bytes(), names(file)) == (b"old", ["a"])


@pytest.mark.parametrize(("module", "call"), [(os, "fsync"), (os, "replace"), (os, "open")])
def test_the_system_refuses(file: Path, monkeypatch: pytest.MonkeyPatch, module: Any, call: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, call, refuse)
    with pytest.raises(OSError, match="No space left on device"):
        replace(file, b"new")
    assert (file.read_bytes(), names(file)) == (b"old", ["a"])


class Full:
    """A stream for which there is room for some bytes, and then no more."""

    def __init__(self, stream: Any, room: int) -> None:
        self.stream, self.room = stream, room

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def writelines(self, lines: list[bytes]) -> None:
        for data in lines:
            self.stream.write(data[: self.room])
            self.room -= len(data)
            if self.room < 0:
                raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("room", range(6))
def test_a_disk_that_fills_up(file: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    created: Callable[..., Any] = replacement._created
    monkeypatch.setattr(replacement, "_created", lambda *arguments: Full(created(*arguments), room))
    with pytest.raises(OSError, match="No space left"), replacing(file) as stream:
        stream.writelines([b"n", b"ew", b"est"])
    assert (file.read_bytes(), names(file)) == (b"old", ["a"])


def test_a_limit_of_the_system_on_the_size_of_files(file: Path) -> None:
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from frostline.checkpoint.replacement import replacing\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    with replacing(Path(sys.argv[1])) as stream:\n"
        "        for _ in range(100):\n"
        "            stream.write(bytes(10_000))\n"
        "except OSError as error:\n"
        "    print(error.strerror)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("File too large\n", "")
    assert (file.read_bytes(), names(file)) == (b"old", ["a"])


def test_a_folder_a_pipe_and_a_device_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for name, words in {
        "folder": "It is a folder",
        "pipe": "It is a pipe or a device",
        "null": "pipe or a dev",
    }.items():
        with pytest.raises(OSError, match=words):
            replace(tmp_path / name, b"new")
    assert sorted(os.listdir(tmp_path)) == ["folder", "null", "pipe"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize("name", ["absent/a", "a/b", "loop", "a\0b"])
def test_a_place_where_no_file_can_be(file: Path, name: str) -> None:
    file.with_name("loop").symlink_to("loop")
    with pytest.raises(OSError, match=r"."):
        replace(file.parent / name, b"new")
    assert names(file) == ["a", "loop"]


def test_of_two_at_a_time_the_last_one_to_end_decides(file: Path) -> None:
    with replacing(file) as stream:
        stream.write(b"first")
        replace(file, b"second")
        assert file.read_bytes() == b"second"
    assert (file.read_bytes(), names(file)) == (b"first", ["a"])
