"""What the command hands to the demo; what the demo does has tests of its own."""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import frostline

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """The calls of a demo that does nothing."""
    found: list[dict[str, Any]] = []
    module = types.ModuleType("frostline.demo")
    module.run = lambda **arguments: found.append(arguments)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "frostline.demo", module)
    monkeypatch.setattr(frostline, "demo", module, raising=False)
    monkeypatch.chdir(tmp_path)
    return found


def test_what_the_demo_is_given(run: Run, calls: list[dict[str, Any]]) -> None:
    assert run("demo") == (0, "", "")
    assert run("demo", "--framework", "jax", "--html", "a.html", "--plot", "b.png", "--json") == (0, "", "")
    consoles = [call.pop("console") for call in calls]
    assert calls == [
        {"framework": "torch", "html": None, "plot": None, "as_json": False},
        {"framework": "jax", "html": Path("a.html"), "plot": Path("b.png"), "as_json": True},
    ]
    # With --json, stdout is for the document alone.
    assert [console.stderr for console in consoles] == [False, True]


@pytest.mark.parametrize("option", ["--html", "--plot"])
def test_a_file_that_cannot_be_written_is_said_before_the_training(
    run: Run, calls: list[dict[str, Any]], option: str
) -> None:
    text = "'no/page' cannot be written: there is no folder 'no'.\nMake the folder: mkdir -p no\n"
    assert run("demo", option, "no/page") == (2, "", text)
    Path("page").mkdir()
    text = "'page' cannot be written: it is a folder.\nName a file in it: page/demo\n"
    assert run("demo", option, "page") == (2, "", text)
    assert calls == []


def test_a_framework_that_is_none_of_the_two(run: Run, calls: list[dict[str, Any]]) -> None:
    code, out, error = run("demo", "--framework", "tensorflow")
    assert (code, out) == (2, "")
    assert "--framework" in error
    assert all(name in error for name in ("'tensorflow'", "'torch'", "'jax'"))
    assert calls == []


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_missing_package_and_the_line_to_install_it(
    run: Run, calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, framework: str
) -> None:
    def fail(**_: Any) -> None:
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")

    monkeypatch.setattr(frostline.demo, "run", fail)  # type: ignore[attr-defined]
    fix = f"Install it:\n  pip install 'frostline[{framework},demo,plot]'\n"
    expected = (2, "", f"The demo needs sklearn, which is not installed.\n{fix}")
    assert run("demo", "--framework", framework) == expected
