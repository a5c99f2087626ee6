"""Who may import whom. The table is the architecture; the rest of this file reads the sources against it."""

import subprocess
import sys
from pathlib import Path

import pytest

from sources import ROOT, SOURCES, imported, package_of

# part of the package: (parts it may import, third parties it may import). "" is frostline/__init__.py.
MAY_IMPORT: dict[str, tuple[set[str], set[str]]] = {
    "_core": (set(), {"rich", "tomli_w", "xxhash"}),
    "schedules": ({"_core"}, {"rich"}),
    "errors": ({"_core"}, set()),
    "": ({"_core", "errors"}, set()),
    "torch": ({"_core", "schedules", "checkpoint", "features"}, {"numpy", "torch"}),
    # Orbax is imported when a run is saved, and need not be installed.
    "jax": ({"_core", "schedules", "checkpoint", "features"}, {"jax", "numpy", "optax", "orbax"}),
    "checkpoint": ({"_core"}, {"safetensors"}),
    # What is behind the frost line: where to cut, and the store of what was computed there.
    "features": ({"_core", "checkpoint"}, {"networkx", "rich", "safetensors", "xxhash"}),
    "integrations": (
        {"", "_core", "schedules", "torch", "jax", "checkpoint"},
        {
            "equinox",
            "flax",
            "haiku",
            "jax",
            "lightning",
            "matplotlib",
            "numpy",
            "peft",
            "pytorch_lightning",
            "torch",
            "transformers",
        },
    ),
    "demo": (
        {"", "_core", "schedules", "torch", "jax", "integrations"},
        {"jax", "matplotlib", "numpy", "optax", "rich", "sklearn", "torch"},
    ),
    "cli": ({"", "_core", "schedules", "checkpoint", "features", "integrations", "demo"}, {"rich", "typer"}),
}
MOST_LINES = 300
MOST_LINES_OF_AN_INTEGRATION = 150
FRAMEWORKS = ("torch", "jax", "flax", "equinox", "haiku", "optax", "numpy", "sklearn", "matplotlib")


def part_of(file: Path) -> str:
    first = file.relative_to(SOURCES).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def offences(source: str, part: str, package: str) -> list[str]:
    """What `source`, a file of `part`, imports against the table."""
    own, third = MAY_IMPORT[part]
    found = []
    for name in imported(source, package):
        top, _, below = name.partition(".")
        if top == "frostline":
            target = below.split(".")[0]
            target = target if target in MAY_IMPORT else ""
            if target != part and target not in own:
                found.append(name)
        elif top not in third and top not in sys.stdlib_module_names:
            found.append(name)
    return found


@pytest.mark.parametrize("file", sorted(SOURCES.rglob("*.py")), ids=lambda file: str(file.relative_to(SOURCES)))
def test_a_file_keeps_the_arrows_and_the_ceiling(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    part = part_of(file)
    assert part in MAY_IMPORT, "a new part of the package needs a row in the table"
    assert offences(source, part, package_of(file)) == []
    ceiling = MOST_LINES_OF_AN_INTEGRATION if part == "integrations" else MOST_LINES
    assert source.count("\n") <= ceiling


@pytest.mark.parametrize(
    ("part", "source", "expected"),
    [
        ("_core", "import torch", ["torch"]),
        ("_core", "def f():\n    from numpy import array", ["numpy.array"]),
        ("_core", "import importlib\nimportlib.import_module('jax')", ["jax"]),
        ("_core", "from frostline.torch import freeze", ["frostline.torch.freeze"]),
        ("_core", "from frostline import Plan", ["frostline.Plan"]),
        ("_core", "from ..schedules import gradual", ["frostline.schedules.gradual"]),
        ("_core", "from .. import torch", ["frostline.torch"]),
        ("_core", "from .plan import Plan\nimport xxhash, json", []),
        ("schedules", "from frostline.torch import plan", ["frostline.torch.plan"]),
        ("torch", "import frostline.jax", ["frostline.jax"]),
        ("torch", "import typer", ["typer"]),
        ("jax", "from frostline import torch", ["frostline.torch"]),
        ("jax", "import torch", ["torch"]),
        ("cli", "import torch", ["torch"]),
        ("cli", "from frostline.torch import freeze", ["frostline.torch.freeze"]),
        ("torch", "if TYPE_CHECKING:\n    import jax", ["jax"]),
        ("cli", "from frostline import demo", []),
        ("checkpoint", "import torch", ["torch"]),
        ("checkpoint", "from frostline.jax import plan", ["frostline.jax.plan"]),
        ("checkpoint", "from frostline.schedules import Schedule", ["frostline.schedules.Schedule"]),
        ("torch", "import safetensors", ["safetensors"]),
        ("torch", "from frostline.checkpoint.delta import save", []),
        ("jax", "from frostline.checkpoint.delta import save", []),
    ],
)
def test_the_reader_sees_every_kind_of_import(part: str, source: str, expected: list[str]) -> None:
    """The negative control: made-up sources that break the table, and some that do not."""
    assert offences(source, part, f"frostline.{part}") == expected


def test_the_table_has_no_cycle_and_the_front_ends_never_meet() -> None:
    def below(part: str) -> set[str]:
        return MAY_IMPORT[part][0] | {deep for near in MAY_IMPORT[part][0] for deep in below(near)}

    assert [part for part in MAY_IMPORT if part in below(part)] == []
    assert "jax" not in below("torch")
    assert "torch" not in below("jax")


def test_no_test_folder_shadows_a_framework_or_is_a_package() -> None:
    folders = [folder for folder in (ROOT / "tests").rglob("*") if folder.is_dir()]
    assert [folder for folder in folders if folder.name in FRAMEWORKS] == []
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def run_without_frameworks(code: str) -> subprocess.CompletedProcess[str]:
    blocked = f"import sys; sys.modules.update(dict.fromkeys({FRAMEWORKS!r}))\n"
    return subprocess.run([sys.executable, "-c", blocked + code], capture_output=True, text=True, check=False)


def test_the_base_install_works_without_a_framework() -> None:
    result = run_without_frameworks("import frostline, frostline.cli; print(frostline.__name__)")
    assert (result.stderr, result.stdout) == ("", "frostline\n")


def test_the_probe_without_frameworks_can_fail() -> None:
    result = run_without_frameworks("import frostline.torch")
    assert "import of torch halted" in result.stderr
    assert result.returncode == 1
