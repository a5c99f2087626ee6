"""Whatever a file holds, the command line says what is wrong in words, and exits with 2."""

import errno
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.made_files import Made, mutated, safetensors_bytes, with_length
from frostline.checkpoint import safetensors_file

Run = Callable[..., tuple[int, str, str]]
FIX = 'Write the file again: safetensors.torch.save_file(model.state_dict(), "model.safetensors")'
ENTRY = b'{"dtype":"U8","shape":[2],"data_offsets":[0,2]}'


def entry(path: str, begin: int = 0, end: int = 2, dtype: str = "U8", shape: tuple[int, ...] = (2,)) -> bytes:
    return with_length(
        json.dumps({path: {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}).encode()
    ) + bytes(2)


HOSTILE = {
    "empty": (b"", "header too small"),
    "seven bytes": (b"\x01" * 7, "header too small"),
    "no header": (b"\x00" * 8, "invalid JSON in header"),
    "length of 2**63": (b"\x00" * 7 + b"\x80{}", "header too large"),
    "length of 2**64 - 1": (b"\xff" * 8 + b"{}", "header too large"),
    "length beyond the end": (b"\xff\x00\x00\x00\x00\x00\x00\x00{}", "invalid header length"),
    "a pointer of git-lfs": (b"version https://git-lfs.github.com/spec/v1\n", "header too large"),
    "not JSON": (with_length(b"{{{{"), "invalid JSON in header"),
    "a list": (with_length(b"[1, 2]"), "invalid JSON in header"),
    "deep nesting": (with_length(b'{"a":' * 100_000), "recursion limit exceeded"),
    "a deep list": (with_length(b"[" * 100_000), "invalid JSON in header"),
    "not UTF-8": (with_length(b'{"\xff\xfe":' + ENTRY + b"}") + b"12", "invalid UTF-8 in header"),
    "half a surrogate": (with_length(b'{"\\ud800":' + ENTRY + b"}") + b"12", "invalid JSON in header"),
    "a name twice": (with_length(b'{"a":' + ENTRY + b',"a":' + ENTRY + b"}") + b"12", "its header names 'a' twice"),
    "overlapping offsets": (
        with_length(b'{"a":' + ENTRY + b',"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}') + b"123",
        "invalid offset for tensor `b`",
    ),
    "backward offsets": (entry("a", 2, 0), "invalid offset for tensor `a`"),
    "too little data": (entry("a")[:-1], "incomplete metadata, file not fully covered"),
    "too much data": (entry("a") + b"x", "incomplete metadata, file not fully covered"),
    "shape and offsets disagree": (entry("a", shape=(3,)), "invalid shape, data type, or offset for tensor"),
    "a shape beyond 2**64": (entry("a", shape=(2**40, 2**40)), "overflow"),
    "a negative shape": (entry("a", shape=(-2,)), "expected usize"),
    "an unknown dtype": (entry("a", dtype="U9"), "unknown variant `U9`"),
    "a name that paints the terminal": (entry("a\x1b[31m"), "the tensor name 'a\\x1b[31m' has unprintable characters"),
    "a name with a newline": (entry("a\nb"), "the tensor name 'a\\nb' has unprintable characters"),
    "a name that turns the writing": (entry("a\u202eb"), "the tensor name 'a\\u202eb' has unprintable characters"),
    "no name": (entry(""), "the tensor name '' is empty"),
    "a name with an empty part": (entry("a..b"), "the tensor name 'a..b' has an empty part"),
    "a long name": (entry("a" * 5000), "has 5000 characters and 1 parts"),
    "a deep name": (entry(".".join("a" * 101)), "has 201 characters and 101 parts"),
}


def said(error: str) -> str:
    """The message, once it is known to be one of ours: what, why, and the fix."""
    assert error.count("\n") <= 14, error
    assert error.endswith("\n")
    return error


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file(run: Run, file: Path, name: str) -> None:
    content, problem = HOSTILE[name]
    Path("bad.safetensors").write_bytes(content)
    code, out, err = run("tree", "bad.safetensors")
    assert (code, out) == (2, "")
    assert said(err).startswith("'bad.safetensors' cannot be read: ")
    assert problem in err
    assert run("diff", file, "bad.safetensors") == (2, "", err)
    assert run("diff", "bad.safetensors", file, "--json", "--frozen", "a") == (2, "", err)


def test_the_whole_text(run: Run, file: Path) -> None:
    Path("bad.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert run("tree", "bad.safetensors").err == (
        "'bad.safetensors' cannot be read: header too large.\n"
        "It has 43 bytes and begins with b'version http'.\n"
        f"{FIX}\n"
    )


def test_missing(run: Run, file: Path) -> None:
    text = "'absent' cannot be read: no such file or directory.\nCheck the name and the permissions: ls -l FILE\n"
    assert run("tree", "absent") == (2, "", text)
    assert run("diff", file, "absent") == (2, "", text)


def test_a_folder(run: Run, file: Path, tmp_path: Path) -> None:
    Path("folder.safetensors").mkdir()
    text = "'folder.safetensors' cannot be read: it is a folder, not a file.\nGive a file: ls .\n"
    assert run("tree", "folder.safetensors") == (2, "", text)
    assert run("diff", "folder.safetensors", file) == (2, "", text)


@pytest.mark.parametrize("name", ["pipe.safetensors", "pipe.pt"])
def test_a_pipe_is_refused_and_not_waited_for(run: Run, file: Path, name: str) -> None:
    os.mkfifo(name)
    text = f"'{name}' cannot be read: it is a pipe or a device, not a file.\nGive a file: ls .\n"
    assert run("tree", name) == (2, "", text)


def test_a_name_that_no_system_has(run: Run) -> None:
    code, out, err = run("tree", "a\0b")
    assert (code, out) == (2, "")
    assert err.startswith("'a\\x00b' cannot be read: ")


def test_an_unreadable_file(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by the system: made up, since the tests may run as a user who may read everything."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(safetensors_file, "safe_open", refuse)
    assert run("tree", file) == (
        2,
        "",
        "'model.safetensors' cannot be read: permission denied.\nCheck the name and the permissions: ls -l FILE\n",
    )


def test_a_file_that_shrinks_while_it_is_read(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = file.read_bytes()
    Path("b.safetensors").write_bytes(content)
    read = safetensors_file._read_header

    def read_and_cut(name: Path) -> object:
        found = read(name)
        name.write_bytes(content[:-1])
        return found

    monkeypatch.setattr(safetensors_file, "_read_header", read_and_cut)
    assert run("diff", file, "b.safetensors") == (
        2,
        "",
        f"'model.safetensors' cannot be read: it became shorter while it was read.\n{FIX}\n",
    )


def test_a_pattern_that_matches_nothing(run: Run, file: Path) -> None:
    code, out, err = run("tree", file, "truk")
    assert (code, out) == (2, "")
    assert err == (
        "'truk' matches none of the 4 parameters.\n"
        "Closest paths:\n"
        "  trunk\n"
        "  trunk.1\n"
        "  trunk.0\n"
        "Fix the pattern, and quote it, or the shell expands it: '**.bias'\n"
    )
    code, out, err = run("diff", file, file, "--frozen", "head", "--frozen", "truk.*")
    assert (code, out) == (2, "")
    assert err.startswith("'truk.*' matches none of the 6 parameters.\n")


@pytest.mark.parametrize(
    "pattern", ["", "a[", "{a", "trunk..0", "a.b]", "head.weight[:2]", "!", "[']", "!head", "\x1b"]
)
def test_a_pattern_that_cannot_be_used(run: Run, file: Path, pattern: str) -> None:
    for arguments in (["tree", file, pattern], ["diff", file, file, "--frozen", pattern]):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert said(err)


@pytest.mark.parametrize("arguments", [["tree"], ["diff", "a"], ["diff", "a", "b", "c"], ["melt"], ["tree", "--no"]])
def test_wrong_usage(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: " in err


def frostline(*arguments: object, shell: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", f'set -o pipefail; "$@" {shell}', "-", sys.executable, "-m", "frostline.cli"]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False, env={**os.environ, **settings}
    )


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    made: Made = {f"layer.{i}.weight": ("U8", [1], b"a") for i in range(4_000)}
    (tmp_path / "a.safetensors").write_bytes(safetensors_bytes(made))
    made = {f"layer.{i}.weight": ("U8", [1], b"b") for i in range(4_000)}
    (tmp_path / "b.safetensors").write_bytes(safetensors_bytes(made))
    result = frostline("diff", tmp_path / "a.safetensors", tmp_path / "b.safetensors", shell="| head -n 1")
    assert (result.returncode, result.stdout, result.stderr) == (141, "4000 of 4000 tensors differ.\n", "")


def test_a_full_disk(file: Path) -> None:
    result = frostline("diff", file, file, shell="> /dev/full")
    assert (result.returncode, result.stderr) == (2, "The output cannot be written: No space left on device.\n")


def test_a_terminal_that_knows_no_unicode(file: Path, model: Made) -> None:
    model["schicht.größe"] = ("U8", [1], b"x")
    Path("b.safetensors").write_bytes(safetensors_bytes(model))
    result = frostline("diff", file, "b.safetensors", PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (1, "")
    assert "schicht.gr\\xf6\\xdfe" in result.stdout


def test_no_mutation_of_a_file_ends_in_a_traceback(run: Run, file: Path, model: Made) -> None:
    """And what the library refuses is refused; `run` lets every exception but SystemExit through."""
    good = file.read_bytes()
    refused = 0
    for seed in range(400):
        Path("bad.safetensors").write_bytes(mutated(good, random.Random(seed)))
        code, out, err = run("diff", file, "bad.safetensors", "--frozen", "**")
        assert code in (0, 1, 2), seed
        assert (out == "") == (code == 2) == (err != ""), seed
        refused += code == 2
    assert 100 < refused < 400
