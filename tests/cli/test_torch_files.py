"""Files of torch.save; the code that one may hold is never run."""

import builtins
import json
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cli.made_files import mutated

Run = Callable[..., tuple[int, str, str]]
FIX = 'Write the file again: torch.save(model.state_dict(), "model.pt")'


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Linear(2, 3).to(torch.bfloat16))


def frozen(run: Run, *arguments: str) -> list[str]:
    code, out, err = run("tree", *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)["frozen"]


@pytest.mark.parametrize("nest", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["model.pt", "model.pth"])
def test_a_state_dict_plain_or_nested_new_or_old(
    run: Run, net: nn.Module, nest: str | None, zipped: bool, name: str
) -> None:
    values: Any = net.state_dict()
    values = {"epoch": 3, "optimizer": {"state": {}}, nest: values} if nest else values
    torch.save(values, name, _use_new_zipfile_serialization=zipped)
    assert frozen(run, name, "[1:]") == ["1.bias", "1.weight", "3.bias", "3.weight"]
    assert json.loads(run("tree", name, "--json").out)["not_parameters"] == [
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    ]


def test_tied_names_are_one_parameter(run: Run, net: nn.Module) -> None:
    tied = nn.ModuleDict({"embed": nn.Embedding(5, 4), "head": nn.Linear(4, 5, bias=False)})
    tied["head"].weight = tied["embed"].weight
    torch.save(tied.state_dict(), "tied.pt")
    assert frozen(run, "tied.pt", "head") == ["embed.weight"]
    assert run("tree", "tied.pt", "**", "!head") == (
        2,
        "",
        "'embed.weight' and 'head.weight' are two names of one tensor, and it cannot be both frozen and trainable.\n"
        "  'embed.weight' is chosen by '**'\n"
        "  'head.weight' is refused by '!head'\n"
        "Choose both names, or refuse both: add '!embed.weight' as the last selector to leave the tensor out.\n",
    )


def test_the_same_tensors_in_three_kinds_of_file(run: Run, net: nn.Module) -> None:
    torch.save(net.state_dict(), "new.pt")
    torch.save(net.state_dict(), "old.pt", _use_new_zipfile_serialization=False)
    save_file(net.state_dict(), "model.safetensors")
    for a, b in [("new.pt", "old.pt"), ("new.pt", "model.safetensors"), ("model.safetensors", "old.pt")]:
        assert run("diff", a, b) == (0, "0 of 9 tensors differ.\n", "")


def test_a_difference_in_a_frozen_norm(run: Run, net: nn.Module) -> None:
    torch.save(net.state_dict(), "before.pt")
    net[1](torch.ones(2, 2, 1, 1))
    torch.save(net.state_dict(), "after.pt")
    code, out, _ = run("diff", "before.pt", "after.pt", "--frozen", "[1]")
    assert out.splitlines() == [
        "3 of 9 tensors differ, 3 of them frozen.",
        "frozen  1.running_mean         values  float32[2], first at [0]",
        "frozen  1.running_var          values  float32[2], first at [0]",
        "frozen  1.num_batches_tracked  values  int64[], first at []",
    ]
    assert code == 1
    assert run("diff", "before.pt", "after.pt", "--frozen", "[0]").code == 0


def test_views_complex_empty_and_transposed_tensors(run: Run, net: nn.Module) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    odd = {
        "t": base.T,
        "part": base[1:, ::2],
        "none": torch.empty(0, 3),
        "z": torch.tensor([1 + 2j]).conj(),
        "neg": torch.tensor([1 + 2j]).conj().imag,
        "flag": torch.tensor(True),
    }
    torch.save(odd, "a.pt")
    torch.save({path: value.resolve_conj().resolve_neg().contiguous() for path, value in odd.items()}, "b.pt")
    assert run("diff", "a.pt", "b.pt") == (0, "0 of 6 tensors differ.\n", "")
    torch.save({**odd, "t": base.T.contiguous() + torch.eye(4, 3)}, "b.pt")
    assert "t  values  float32[4, 3], first at [0, 0]" in run("diff", "a.pt", "b.pt").out


class Hostile:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("broken-in",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_refused_and_not_run(run: Run, net: nn.Module, zipped: bool) -> None:
    torch.save({"a": torch.ones(1), "b": Hostile()}, "bad.pt", _use_new_zipfile_serialization=zipped)
    code, out, err = run("tree", "bad.pt")
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == (
        "'bad.pt' cannot be read: it holds more than tensors, and loading that may run code of its author."
    )
    assert err.splitlines()[2] == FIX
    assert not Path("broken-in").exists()
    torch.load("bad.pt", weights_only=False)
    assert Path("broken-in").exists(), "the file is as hostile as it should be"


def test_a_whole_model_is_refused(run: Run, net: nn.Module) -> None:
    torch.save(net, "model.pt")
    assert run("tree", "model.pt").err.startswith("'model.pt' cannot be read: it holds more than tensors")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "it holds no tensors by name.\nIt holds: nothing"),
        ({"epoch": 3, "optimizer": {}}, "it holds no tensors by name.\nIt holds: 'epoch', 'optimizer'"),
        ([torch.ones(1)], "it holds no tensors by name.\nIt holds: list"),
        (torch.ones(1), "it holds no tensors by name.\nIt holds: Tensor"),
        (3, "it holds no tensors by name.\nIt holds: int"),
        ({"a": torch.ones(1, 1).to_sparse()}, "its tensor 'a' is sparse, quantised or repeated"),
        ({"a": torch.ones(1).expand(2**50)}, "its tensor 'a' is sparse, quantised or repeated"),
        ({"a\x1b[31m": torch.ones(1)}, "the tensor name 'a\\x1b[31m' has unprintable characters"),
    ],
)
def test_what_is_no_state_dict(run: Run, net: nn.Module, value: Any, words: str) -> None:
    torch.save(value, "bad.pt")
    code, out, err = run("diff", "bad.pt", "bad.pt")
    assert (code, out) == (2, "")
    assert err.startswith(f"'bad.pt' cannot be read: {words}")


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"\x80\x02.", pickle.dumps({"a": 1}), b"text\n", b"\x80\x02c"],
)
def test_what_torch_did_not_write(run: Run, net: nn.Module, content: bytes) -> None:
    Path("bad.pt").write_bytes(content)
    code, out, err = run("tree", "bad.pt")
    assert (code, out) == (2, "")
    assert err.startswith("'bad.pt' cannot be read: ")


@pytest.mark.parametrize("name", ["absent.pt", "folder.pt"])
def test_missing_or_a_folder(run: Run, net: nn.Module, name: str) -> None:
    Path("folder.pt").mkdir()
    code, out, err = run("tree", name)
    assert (code, out) == (2, "")
    assert err.startswith(f"{name!r} cannot be read: ")


def test_without_torch_the_line_to_install_it(run: Run, net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(net.state_dict(), "model.pt")
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("frostline.integrations"):
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    text = "'model.pt' needs torch, which is not installed.\nInstall it:\n  pip install 'frostline[torch]'\n"
    assert run("tree", "model.pt") == (2, "", text)


@pytest.mark.parametrize("zipped", [True, False])
def test_no_mutation_of_a_file_ends_in_a_traceback(run: Run, net: nn.Module, zipped: bool) -> None:
    torch.save({"w": torch.ones(3), "b": torch.zeros(2, 2)}, "good.pt", _use_new_zipfile_serialization=zipped)
    good = Path("good.pt").read_bytes()
    codes = []
    for seed in range(150):
        Path("bad.pt").write_bytes(mutated(good, random.Random(seed)))
        code, out, err = run("diff", "good.pt", "bad.pt")
        assert (out == "") == (code == 2) == (err != ""), seed
        codes.append(code)
    assert set(codes) >= {2}
    assert set(codes) <= {0, 1, 2}
