import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.made_files import Made, floats, safetensors_bytes

Run = Callable[..., tuple[int, str, str]]
CAVEAT = (
    "A file does not mark its parameters: 2 tensors are taken for buffers "
    "(integers, dtypes of 8 bits or less, running statistics)."
)


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


def test_what_a_pattern_would_freeze(run: Run, file: Path) -> None:
    code, out, err = run("tree", file, "trunk", "head.bias")
    assert lines(out) == [
        "                             params  frozen  memory  state",
        "model                            17      11    68 B  partly",
        "├─ head                           8       2    32 B  partly",
        "│  ├─ bias  float32[2]            2       2     8 B  frozen",
        "│  └─ weight  float32[2, 3]       6       0    24 B  trainable",
        "└─ trunk                          9       9    36 B  frozen     held",
        "   ├─ 0                           6       6    24 B  frozen",
        "   └─ 1                           3       3    12 B  frozen",
        "6 of 17 params are trainable (35.3%; 24 B of 68 B).",
        CAVEAT,
    ]
    assert (code, err) == (0, "")


def test_no_pattern_freezes_nothing(run: Run, file: Path) -> None:
    code, out, _ = run("tree", file)
    assert lines(out)[-2:] == ["17 of 17 params are trainable (100.0%; 68 B of 68 B).", CAVEAT]
    assert code == 0


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        (["**"], ["head.bias", "head.weight", "trunk.0.weight", "trunk.1.weight"]),
        (["**", "!head"], ["trunk.0.weight", "trunk.1.weight"]),
        (["**.bias"], ["head.bias"]),
        (["*.{bias,weight}"], ["head.bias", "head.weight"]),
        (["trunk[-1]"], ["trunk.1.weight"]),
        (["trunk[:1]"], ["trunk.0.weight"]),
        (["trunk", "!trunk.1", "head"], ["head.bias", "head.weight", "trunk.0.weight"]),
    ],
)
def test_patterns_are_those_of_the_library(run: Run, file: Path, patterns: list[str], frozen: list[str]) -> None:
    assert json.loads(run("tree", file, "--json", "--", *patterns).out)["frozen"] == frozen


def test_json(run: Run, file: Path) -> None:
    code, out, err = run("tree", file, "trunk.1", "--json")
    found = json.loads(out)
    report = found.pop("report")
    assert found == {
        "file": "model.safetensors",
        "patterns": ["trunk.1"],
        "frozen": ["trunk.1.weight"],
        "trainable": ["head.bias", "head.weight", "trunk.0.weight"],
        "not_parameters": ["trunk.1.num_batches_tracked", "trunk.1.running_mean"],
    }
    assert (report["totals"]["params"], report["totals"]["frozen_params"]) == (17, 3)
    assert [each["path"] for each in report["entries"] if each["held"]] == ["trunk.1"]
    assert (code, err) == (0, "")


def test_layer_10_comes_after_layer_9(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made: Made = {f"layers.{i}.w": ("F32", [1], floats(i)) for i in range(12)}
    Path("a.safetensors").write_bytes(safetensors_bytes(made))
    assert json.loads(run("tree", "a.safetensors", "layers[-2:]", "--json").out)["frozen"] == [
        "layers.10.w",
        "layers.11.w",
    ]
    assert "layers[0:9] ×9" in run("tree", "a.safetensors", "layers[9:]").out


def test_integers_quantised_tensors_and_statistics_are_no_parameters(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made: Made = {
        "a.ids": ("I64", [1], bytes(8)),
        "a.mask": ("BOOL", [1], bytes(1)),
        "a.packed": ("F8_E4M3", [1], bytes(1)),
        "a.qweight": ("U8", [1], bytes(1)),
        "a.weight": ("BF16", [1], bytes(2)),
        "norm.running_mean": ("F32", [1], bytes(4)),
        "norm.running_var": ("F32", [1], bytes(4)),
    }
    Path("a.safetensors").write_bytes(safetensors_bytes(made))
    found = json.loads(run("tree", "a.safetensors", "norm", "--json").out)
    assert found["trainable"] == ["a.weight"]
    # A norm without affine holds statistics only: it is frozen by its own name.
    assert found["frozen"] == ["norm"]
    assert found["not_parameters"] == [
        "a.ids",
        "a.mask",
        "a.packed",
        "a.qweight",
        "norm.running_mean",
        "norm.running_var",
    ]


@pytest.mark.parametrize("name", ["a[red]b[/]", ":smile:", "größe", "a/b/~/c", "a b", "[", "x" * 900, "0", "1" * 900])
def test_odd_names_are_shown_as_they_are(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    made: Made = {f"{name}.w": ("F32", [1], floats(1)), "z.w": ("F32", [1], floats(1))}
    Path("a.safetensors").write_bytes(safetensors_bytes(made))
    code, out, err = run("tree", "a.safetensors", "z")
    assert (code, err) == (0, "")
    assert name in out
    assert json.loads(run("tree", "a.safetensors", "z", "--json").out)["trainable"] == [f"{name}.w"]


@pytest.mark.parametrize("pattern", ["layers[:]", "layers[-1]", "layers[0]", "**"])
def test_a_number_that_no_list_reaches_costs_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    monkeypatch.chdir(tmp_path)
    made: Made = {f"layers.{i}.w": ("F32", [1], floats(1)) for i in (0, 10**12, 10**900)}
    Path("a.safetensors").write_bytes(safetensors_bytes(made))
    assert run("tree", "a.safetensors", pattern).code == 0


def test_a_tensor_that_is_also_a_module(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made: Made = {"a": ("F32", [1], floats(1)), "a.b": ("F32", [1], floats(1)), "a.c": ("I8", [1], b"x")}
    Path("a.safetensors").write_bytes(safetensors_bytes(made))
    assert json.loads(run("tree", "a.safetensors", "a", "--json").out)["frozen"] == ["a", "a.b"]


def test_only_the_header_is_read(run: Run, tmp_path: Path) -> None:
    """A file of 8 TB, with nothing behind its header but a hole."""
    name = tmp_path / "large.safetensors"
    size = 4 * 2**41
    entry = {"w.weight": {"dtype": "F32", "shape": [2**41], "data_offsets": [0, size]}}
    header = json.dumps(entry).encode()
    with name.open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.truncate(8 + len(header) + size)
    code, out, err = run("tree", name, "w")
    assert (code, err) == (0, "")
    assert "8.0 TiB" in out


def test_no_framework_is_imported_for_safetensors(file: Path) -> None:
    """The base install has none; a hostile file is refused there as well."""
    blocked = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['torch', 'numpy', 'jax']))\n"
        "from frostline.cli import main\n"
        "main()\n"
    )
    good = subprocess.run([sys.executable, "-c", blocked, "tree", file], capture_output=True, text=True, check=False)
    assert (good.returncode, good.stderr) == (0, "")
    assert "17 of 17 params" in good.stdout
    Path("bad.safetensors").write_bytes(file.read_bytes()[:-1])
    bad = subprocess.run(
        [sys.executable, "-c", blocked, "tree", "bad.safetensors"], capture_output=True, text=True, check=False
    )
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.startswith("'bad.safetensors' cannot be read: incomplete metadata, file not fully covered.")
