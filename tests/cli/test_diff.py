import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.made_files import Made, floats, safetensors_bytes

Run = Callable[..., tuple[int, str, str]]


def other(model: Made) -> Path:
    Path("other.safetensors").write_bytes(safetensors_bytes(model))
    return Path("other.safetensors")


def test_the_same_file_twice(run: Run, file: Path, model: Made) -> None:
    assert run("diff", file, other(model)) == (0, "0 of 6 tensors differ.\n", "")


def test_every_kind_of_difference(run: Run, file: Path, model: Made) -> None:
    model["head.weight"] = ("F32", [2, 3], floats(1, 2, 3, 4, 5.5, 6))
    model["trunk.1.weight"] = ("F32", [1, 3], floats(1, 2, 3))
    model["trunk.1.running_mean"] = ("F64", [3], struct.pack("<3d", 1, 2, 3))
    del model["head.bias"]
    model["tail"] = ("U8", [1], b"x")
    code, out, err = run("diff", file, other(model))
    assert out.splitlines() == [
        "5 of 7 tensors differ.",
        "head.bias             only in A  float32[2]",
        "head.weight           values     float32[2, 3], first at [1, 1]",
        "trunk.1.running_mean  dtype      float32[3] -> float64[3]",
        "trunk.1.weight        shape      float32[3] -> float32[1, 3]",
        "tail                  only in B  uint8[1]",
    ]
    assert (code, err) == (1, "")


def test_only_a_frozen_difference_is_a_failure(run: Run, file: Path, model: Made) -> None:
    model["head.weight"] = ("F32", [2, 3], floats(1, 2, 3, 4, 5, 7))
    b = other(model)
    code, out, err = run("diff", file, b, "--frozen", "trunk")
    assert out.splitlines() == [
        "1 of 6 tensors differ, none of them frozen.",
        "trainable  head.weight  values  float32[2, 3], first at [1, 2]",
    ]
    assert (code, err) == (0, "")
    code, out, err = run("diff", file, b, "--frozen", "trunk", "--frozen", "head.weight")
    assert out.splitlines() == [
        "1 of 6 tensors differ, 1 of them frozen.",
        "frozen  head.weight  values  float32[2, 3], first at [1, 2]",
    ]
    assert (code, err) == (1, "")


@pytest.mark.parametrize(
    ("patterns", "code"),
    [
        (["trunk"], 1),
        (["trunk.1"], 1),
        (["**"], 1),
        (["trunk.1.running_mean"], 1),
        # All parameters of the norm are frozen, so it is held.
        (["trunk.1.weight"], 1),
        (["trunk[-1]"], 1),
        (["head"], 0),
        (["trunk.0"], 0),
        (["**", "!trunk"], 0),
        (["**", "!trunk.1.*"], 0),
    ],
)
def test_the_statistics_of_a_frozen_norm_are_frozen(
    run: Run, file: Path, model: Made, patterns: list[str], code: int
) -> None:
    model["trunk.1.running_mean"] = ("F32", [3], floats(1, 2, 3.5))
    options = [word for pattern in patterns for word in ("--frozen", pattern)]
    assert run("diff", file, other(model), *options)[0] == code


@pytest.mark.parametrize("change", ["missing", "extra", "retyped", "reshaped", "changed"])
def test_each_change_of_a_frozen_tensor_is_seen(run: Run, file: Path, model: Made, change: str) -> None:
    if change == "missing":
        del model["trunk.0.weight"]
    elif change == "extra":
        model["trunk.2.weight"] = ("F32", [1], floats(0))
    else:
        model["trunk.0.weight"] = {
            "retyped": ("I32", [3, 2], model["trunk.0.weight"][2]),
            "reshaped": ("F32", [2, 3], model["trunk.0.weight"][2]),
            "changed": ("F32", [3, 2], floats(1, 2, 3, 4, 5, 6.0000005)),
        }[change]
    b = other(model)
    assert run("diff", file, b, "--frozen", "trunk")[0] == 1
    assert run("diff", file, b, "--frozen", "head")[0] == 0


def test_bits_are_compared_and_not_values(run: Run, file: Path, model: Made) -> None:
    """-0.0 equals 0.0, and NaN differs from itself; as bytes it is the other way round."""
    nan = struct.pack("<I", 0x7FC00001)
    model["head.bias"] = ("F32", [2], floats(0.0) + nan)
    a = other(model).rename("a.safetensors")
    assert run("diff", a, other(model))[0] == 0
    model["head.bias"] = ("F32", [2], floats(-0.0) + nan)
    assert "head.bias  values  float32[2], first at [0]" in run("diff", a, other(model)).out


def test_the_first_difference_beyond_the_first_chunk(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values = bytearray(3 << 20)
    Path("a.safetensors").write_bytes(safetensors_bytes({"w": ("F32", [3, 1 << 18], bytes(values))}))
    values[(2 << 20) + 4 * 77 + 3] = 1
    Path("b.safetensors").write_bytes(safetensors_bytes({"w": ("F32", [3, 1 << 18], bytes(values))}))
    assert "first at [2, 77]" in run("diff", "a.safetensors", "b.safetensors").out


def test_scalars_empty_tensors_and_half_bytes(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made: Made = {
        "half": ("F4", [4], b"ab"),
        "none": ("F32", [0, 5], b""),
        "one": ("F32", [], floats(1)),
    }
    Path("a.safetensors").write_bytes(safetensors_bytes(made))
    made["half"], made["one"] = ("F4", [4], b"ac"), ("F32", [], floats(2))
    code, out, _ = run("diff", "a.safetensors", other(made))
    assert out.splitlines() == [
        "2 of 3 tensors differ.",
        "half  values  f4[4], first at [2]",
        "one   values  float32[], first at []",
    ]
    assert code == 1


def test_json(run: Run, file: Path, model: Made) -> None:
    model["head.weight"] = ("F32", [2, 3], floats(1, 2, 3, 4, 5.5, 6))
    del model["trunk.0.weight"]
    code, out, err = run("diff", file, other(model), "--frozen", "head", "--json")
    assert json.loads(out) == {
        "a": "model.safetensors",
        "b": "other.safetensors",
        "tensors": 6,
        "different": 2,
        "frozen_different": 1,
        "frozen_patterns": ["head"],
        "differences": [
            {
                "path": "head.weight",
                "kind": "values",
                "frozen": True,
                "a": {"dtype": "float32", "shape": [2, 3]},
                "b": {"dtype": "float32", "shape": [2, 3]},
                "first": [1, 1],
            },
            {
                "path": "trunk.0.weight",
                "kind": "only in A",
                "frozen": False,
                "a": {"dtype": "float32", "shape": [3, 2]},
                "b": None,
                "first": None,
            },
        ],
    }
    assert (code, err) == (1, "")


def test_the_command_line_imports_rich_only_to_show_a_table() -> None:
    code = "import sys, frostline.cli; print('rich' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("False\n", "")
