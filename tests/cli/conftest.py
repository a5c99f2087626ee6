"""Files to look at, and a way to run the command line as `main` does."""

import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from cli.made_files import Made, floats, safetensors_bytes
from frostline.cli import main


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run `frostline ARGUMENTS`; an exception that is not SystemExit goes through, as a traceback would."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["frostline", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        return Result(caught.value.code or 0, *capsys.readouterr())

    return call


@pytest.fixture
def model() -> Made:
    """A trunk with batch norm and a head."""
    return {
        "head.bias": ("F32", [2], floats(1, 2)),
        "head.weight": ("F32", [2, 3], floats(1, 2, 3, 4, 5, 6)),
        "trunk.0.weight": ("F32", [3, 2], floats(1, 2, 3, 4, 5, 6)),
        "trunk.1.num_batches_tracked": ("I64", [], struct.pack("<q", 7)),
        "trunk.1.running_mean": ("F32", [3], floats(1, 2, 3)),
        "trunk.1.weight": ("F32", [3], floats(1, 2, 3)),
    }


@pytest.fixture
def file(tmp_path: Path, model: Made, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`model` as ./model.safetensors."""
    monkeypatch.chdir(tmp_path)
    Path("model.safetensors").write_bytes(safetensors_bytes(model))
    return Path("model.safetensors")
