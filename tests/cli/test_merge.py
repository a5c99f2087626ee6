"""`frostline merge`: a full checkpoint from a base and a delta, or nothing at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import nn

import frostline.torch as ft
from checkpoint.deltas import small, source, with_document, write
from cli.test_memory import SIZE, peak, sparse
from frostline import Plan
from frostline._core.fingerprint import Fingerprint, digest_of
from only_torch.bits import contents

Run = Callable[..., tuple[int, str, str]]
FIX = "Pass the full checkpoint from which the training started."
MERGE = "frostline merge base.safetensors run.safetensors out.safetensors"


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2).to(torch.bfloat16))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Sequential:
    """A model that was trained, what it was made of, and the delta."""
    monkeypatch.chdir(tmp_path)
    made = net()
    save_file(made.state_dict(), "base.safetensors", metadata={"format": "pt", "frostline": "an older note"})
    torch.save(made.state_dict(), "base.pt")
    ft.freeze(made, "[:2]")
    binding = ft.bind(torch.optim.AdamW(made.parameters()), made)
    for parameter in ft.trainable(made).values():
        parameter.grad = torch.ones_like(parameter)
    binding.optimizer.step()
    ft.save_delta("run.safetensors", made, optimizer=binding, schedule={"step": 1})
    return made


def metadata(file: str) -> Any:
    content = Path(file).read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__")


@pytest.mark.parametrize("base", ["base.safetensors", "base.pt"])
def test_it_loads_as_the_model(run: Run, model: nn.Sequential, base: str) -> None:
    found = run("merge", base, "run.safetensors", "out.safetensors")
    assert found == (0, "out.safetensors: 9 tensors, 2 of them from run.safetensors.\n", "")
    other = net(1)
    other.load_state_dict(load_file("out.safetensors"), strict=True)
    assert contents(other) == contents(model)
    assert contents(other) != contents(net())


def test_metadata_are_those_of_the_base_without_a_document(run: Run, model: nn.Sequential) -> None:
    run("merge", "base.safetensors", "run.safetensors", "out.safetensors")
    assert metadata("out.safetensors") == {"format": "pt"}
    run("merge", "base.pt", "run.safetensors", "out.safetensors")
    assert metadata("out.safetensors") is None


def test_the_same_files_give_the_same_bytes_also_over_one_of_them(run: Run, model: nn.Sequential) -> None:
    run("merge", "base.safetensors", "run.safetensors", "out.safetensors")
    run("merge", "base.safetensors", "run.safetensors", "base.safetensors")
    assert Path("base.safetensors").read_bytes() == Path("out.safetensors").read_bytes()


def test_a_merged_file_is_a_base_again(run: Run, model: nn.Sequential) -> None:
    """What the delta brings is not compared: a base may have been trained on."""
    run("merge", "base.safetensors", "run.safetensors", "out.safetensors")
    assert run("merge", "out.safetensors", "run.safetensors", "again.safetensors")[0] == 0
    assert Path("again.safetensors").read_bytes() == Path("out.safetensors").read_bytes()


def test_tied_parameters_have_all_of_their_names(run: Run, model: nn.Sequential) -> None:
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight, tied[2].bias = tied[0].weight, tied[1].bias
    torch.save(tied.state_dict(), "base.pt")
    save_model(tied, "base.safetensors")
    ft.freeze(tied, "**.bias")
    with torch.no_grad():
        tied[0].weight.mul_(2)
    ft.save_delta("run.safetensors", tied)
    assert run("merge", "base.pt", "run.safetensors", "out.safetensors")[0] == 0
    assert set(load_file("out.safetensors")) == set(tied.state_dict())
    other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    other.load_state_dict(load_file("out.safetensors"))
    assert contents(other) == contents(tied)
    # A file that has one name of each keeps that one.
    assert run("merge", "base.safetensors", "run.safetensors", "out.safetensors")[0] == 0
    assert load_file("out.safetensors").keys() == load_file("base.safetensors").keys()


def test_a_frozen_use_of_what_trains_has_the_new_values(run: Run, model: nn.Sequential) -> None:
    layer = nn.BatchNorm1d(3)
    twice = nn.Sequential(layer, ft.Frozen(layer), nn.Linear(3, 3))
    torch.save(twice.state_dict(), "base.pt")
    ft.freeze(twice, "[2]")
    with torch.no_grad():
        layer.weight.mul_(3)
    ft.save_delta("run.safetensors", twice)
    assert run("merge", "base.pt", "run.safetensors", "out.safetensors")[0] == 0
    found = load_file("out.safetensors")
    assert found.keys() == twice.state_dict().keys()
    assert {path for path, value in twice.state_dict().items() if not torch.equal(value, found[path])} == set()


def test_what_the_base_lacks_is_added(run: Run, model: nn.Sequential) -> None:
    """An adapter that came after the base, and a head of another size."""
    grown = net().append(nn.Linear(2, 2))
    grown[2] = nn.Linear(3, 5).to(torch.float32)
    ft.freeze(grown, "[:2]")
    ft.save_delta("run.safetensors", grown)
    assert run("merge", "base.safetensors", "run.safetensors", "out.safetensors")[0] == 0
    assert {path: value.shape for path, value in load_file("out.safetensors").items()} == {
        path: value.shape for path, value in grown.state_dict().items()
    }


def refused(run: Run, *lines: str, base: str = "base.safetensors") -> None:
    before = sorted(os.listdir())
    Path("out.safetensors").write_bytes(b"old")
    assert run("merge", base, "run.safetensors", "out.safetensors") == (2, "", "\n".join([*lines, ""]))
    assert Path("out.safetensors").read_bytes() == b"old"
    assert sorted(os.listdir()) == sorted({*before, "out.safetensors"})


def test_another_base_is_refused_with_the_names(run: Run, model: nn.Sequential) -> None:
    values = net().state_dict()
    values["0.weight"][0, 0] += 1
    values["1.running_var"][2] = -0.0
    values["2.weight"][0, 0] += 1
    save_file(values, "base.safetensors")
    lines = [f"{MERGE} has another base: 2 of its 9 tensors differ.", "  differs: 0.weight", "  differs: 1.running_var"]
    refused(run, *lines, FIX)


def test_other_names_are_refused(run: Run, model: nn.Sequential) -> None:
    values = net().state_dict()
    values["0.kernel"] = values.pop("0.weight")
    save_file(values, "base.safetensors")
    lines = [f"{MERGE} has another base: 1 tensors are missing in it, 1 are unknown."]
    refused(run, *lines, "  missing: 0.weight", "  unknown: 0.kernel", FIX)


def test_a_delta_for_a_base_is_refused(run: Run, model: nn.Sequential) -> None:
    Path("base.safetensors").write_bytes(Path("run.safetensors").read_bytes())
    code, out, err = run("merge", "base.safetensors", "run.safetensors", "out.safetensors")
    assert (code, out) == (2, "")
    assert err.startswith(f"{MERGE} has another base: 7 tensors are missing in it, 6 are unknown.\n")


def test_other_dtypes_are_another_base(run: Run, model: nn.Sequential) -> None:
    save_file({path: value.half() for path, value in net().state_dict().items()}, "base.safetensors")
    code, _, err = run("merge", "base.safetensors", "run.safetensors", "out.safetensors")
    assert (code, err.splitlines()[0]) == (2, f"{MERGE} has another base: 7 of its 9 tensors differ.")


def test_a_damaged_delta(run: Run, model: nn.Sequential) -> None:
    content = bytearray(Path("run.safetensors").read_bytes())
    begin = 8 + int.from_bytes(content[:8], "little")
    content[begin + load_offset("2.weight")] ^= 1
    Path("run.safetensors").write_bytes(content)
    refused(
        run,
        "'run.safetensors' cannot be read: 1 of its 8 tensors are not what was saved: 2.weight.",
        "Save it again, save_delta(file, model), or take an older one.",
    )


def load_offset(path: str) -> int:
    content = Path("run.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return int(header[path]["data_offsets"][0])


def test_what_is_no_delta(run: Run, model: nn.Sequential) -> None:
    Path("run.safetensors").write_bytes(Path("base.safetensors").read_bytes())
    text = with_document(Path("base.safetensors"), "{")
    refused(
        run,
        "'run.safetensors' cannot be read: its metadata is wrong: it is not JSON (Expecting value: line 1 "
        "column 1 (char 0)).",
        "Save it again, save_delta(file, model), or take an older one.",
    )
    Path("run.safetensors").write_bytes(text)
    assert run("merge", "base.safetensors", "run.safetensors", "out.safetensors")[0] == 2


def test_a_dtype_that_safetensors_has_not(run: Run, model: nn.Sequential) -> None:
    grown = net().append(nn.Linear(2, 2, bias=False))
    grown[3].weight = nn.Parameter(torch.zeros(2, 2, dtype=torch.complex128))
    ft.freeze(grown, "[:3]")
    ft.save_delta("run.safetensors", grown)
    refused(
        run,
        f"{MERGE} has 1 of 10 tensors of dtypes that safetensors cannot store.",
        "  3.weight: complex128[2, 2]",
        "Load the delta into the model, and save the model in another format.",
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("absent", "run.safetensors", "out.safetensors"), "'absent' cannot be read: no such file or directory."),
        (("base.pt", "absent", "out.safetensors"), "'absent' cannot be read: no such file or directory."),
        (("base.pt", "run.safetensors", "a/out"), "cannot write the file: no such file or directory."),
        (("base.pt", "run.safetensors", "."), "cannot write the file: it is a folder."),
        (("base.pt", "run.safetensors", "out.pt"), "'out.pt' is written as safetensors.\nName it so: out.safetensors"),
        (("base.pt", "run.safetensors", "a\0b"), "cannot write the file: embedded null byte."),
    ],
)
def test_bad_names(run: Run, model: nn.Sequential, arguments: tuple[str, ...], words: str) -> None:
    before = sorted(os.listdir())
    code, out, err = run("merge", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert sorted(os.listdir()) == before


def large(folder: Path) -> tuple[Path, Path]:
    """A base of 200 MB, and a delta of a byte beside it."""
    base = sparse(folder / "base.safetensors", b"\1")
    zeros = (bytes(1 << 20) for _ in range((SIZE >> 20) - 1))
    told = digest_of("float32", (SIZE // 4,), [*zeros, bytes((1 << 20) - 1), b"\1"])
    plan = Plan(frozenset({"w"}), frozenset({"b"}))
    tensors = {"b": source("uint8", (1,), b"x")}
    return base, write(folder / "run", small(plan=plan, base=Fingerprint((("w", told),)), tensors=tensors))


def test_a_large_base_is_streamed(run: Run, tmp_path: Path) -> None:
    base, delta = large(tmp_path)
    found = []
    assert peak(lambda: found.append(run("merge", base, delta, tmp_path / "out"))) < 10
    assert found[0][0] == 0
    assert (tmp_path / "out").stat().st_size > SIZE
    with (tmp_path / "out").open("rb") as stream:
        stream.seek(-2, os.SEEK_END)
        assert stream.read() == b"\1x"


def test_a_full_disk(model: nn.Sequential) -> None:
    Path("out.safetensors").write_bytes(b"old")
    code = (
        "import resource\n"
        "from frostline.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code, *MERGE.split()[1:]]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"{MERGE} cannot write the file: file too large.\n"
        "Check the folder and the room on the disk: ls -ld .; df -h .\n"
    )
    assert Path("out.safetensors").read_bytes() == b"old"
    assert not [name for name in os.listdir() if name.endswith(".part")]
