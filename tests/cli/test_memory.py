"""A comparison holds a piece of one tensor, and not the files."""

import json
import os
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

SIZE = 200 << 20
Run = Callable[..., tuple[int, str, str]]


def sparse(file: Path, last: bytes) -> Path:
    """200 MB of zeros that take no room on the disk, but for the last byte."""
    entry = {"w": {"dtype": "F32", "shape": [SIZE // 4], "data_offsets": [0, SIZE]}}
    header = json.dumps(entry).encode()
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.seek(SIZE - 1, os.SEEK_CUR)
        stream.write(last)
    return file


def peak(action: Callable[[], object]) -> int:
    """Megabytes that `action` held at most. Python allocates every piece of a file that is read."""
    tracemalloc.start()
    action()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most >> 20


@pytest.mark.parametrize(("last", "text"), [(b"\x00", "0 of 1"), (b"\x01", "1 of 1")])
def test_two_large_files(run: Run, tmp_path: Path, last: bytes, text: str) -> None:
    a, b = sparse(tmp_path / "a.safetensors", b"\x00"), sparse(tmp_path / "b.safetensors", last)
    found = []
    assert peak(lambda: found.append(run("diff", a, b))) < 10
    assert found[0].out.startswith(text)


def test_the_probe_sees_a_file_that_is_read_whole(tmp_path: Path) -> None:
    assert peak(sparse(tmp_path / "a.safetensors", b"\x00").read_bytes) >= 200


def test_a_torch_file_is_mapped_and_not_loaded(tmp_path: Path) -> None:
    """The tensor of a zip file lies in the file itself, at any size."""
    torch.save({"w": torch.zeros(1 << 20)}, tmp_path / "a.pt")
    assert zipfile.is_zipfile(tmp_path / "a.pt")
    code = (
        "import sys, pathlib\n"
        "from frostline.integrations.torch_file import TorchFile\n"
        "file = TorchFile(pathlib.Path(sys.argv[1]))\n"
        "maps = pathlib.Path('/proc/self/maps').read_text()\n"
        "print(sum('a.pt' in line for line in maps.splitlines()))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.pt"], capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.stderr) == ("1\n", "")
