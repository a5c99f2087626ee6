"""What a type checker knows of the installed package, in a file of a user's."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

USERS = Path(__file__).parent / "types"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source tree."""
    folder = tmp_path_factory.mktemp("wheel")
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(root)]
    subprocess.run(command, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel in it, and what it depends on."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # The folder is put on the path as it is: what is installed there for development is not.
    (packages / "dependencies.pth").write_text(str(Path(pytest.__file__).parents[1]))
    return environment / "bin" / "python"


def errors_of_mypy(python: Path, *files: str) -> list[str]:
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", f"--python-executable={python}", *files],
        cwd=USERS,
        capture_output=True,
        text=True,
    )
    return [line for line in checked.stdout.splitlines() if ": error:" in line]


def errors_of_pyright(python: Path, folder: Path, *files: str) -> list[str]:
    # Unknown members are those of jax.numpy; a name of ours that is unknown fails its assertion.
    include = [str(USERS / file) for file in files]
    project = {"include": include, "typeCheckingMode": "strict", "reportUnknownMemberType": False}
    (folder / "pyrightconfig.json").write_text(json.dumps(project))
    where = ["--project", str(folder), "--pythonpath", str(python)]
    command = [sys.executable, "-m", "basedpyright", "--outputjson", *where]
    checked = subprocess.run(command, capture_output=True, text=True)
    found = json.loads(checked.stdout)["generalDiagnostics"]
    return [f"{Path(each['file']).name}:{each['range']['start']['line'] + 1}: {each['message']}" for each in found]


def test_the_wheel_says_that_it_is_typed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert "frostline/py.typed" in archive.namelist()


def test_mypy_knows_the_types_of_the_wheel(python: Path) -> None:
    errors = errors_of_mypy(python, "user_torch.py", "user_jax.py", "untyped.py")
    assert [error for error in errors if not error.startswith("untyped.py")] == []
    assert [int(error.split(":")[1]) for error in errors] == list(range(13, 21))


def test_pyright_knows_the_types_of_the_wheel(python: Path, tmp_path: Path) -> None:
    errors = errors_of_pyright(python, tmp_path, "user_torch.py", "user_jax.py", "untyped.py")
    assert [error for error in errors if not error.startswith("untyped.py")] == []
    assert sorted({int(error.split(":")[1]) for error in errors}) == list(range(13, 21))
