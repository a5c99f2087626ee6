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


@pytest.mark.parametrize(("option", "suffix"), [("--html", ".html"), ("--plot", ".png")])
def test_a_file_that_cannot_be_written_is_said_before_the_training(
    run: Run, calls: list[dict[str, Any]], option: str, suffix: str
) -> None:
    text = f"'no/page{suffix}' cannot be written: the folder 'no' does not exist.\nMake it: mkdir -p no\n"
    assert run("demo", option, f"no/page{suffix}") == (2, "", text)
    Path(f"page{suffix}").mkdir()
    text = f"'page{suffix}' cannot be written: it is a folder.\nName a file in it: page{suffix}/demo\n"
    assert run("demo", option, f"page{suffix}") == (2, "", text)
    name = "a" * 300 + suffix
    text = f"'{name}' cannot be written: File name too long.\nName a file in a folder that you may write to.\n"
    assert run("demo", option, name) == (2, "", text)
    assert calls == []


def test_a_picture_of_no_format_is_said_before_the_training(run: Run, calls: list[dict[str, Any]]) -> None:
    text = "'a.gif' cannot be written: a picture ends in .pdf, .png, .svg.\nName it so: a.png\n"
    assert run("demo", "--plot", "a.gif") == (2, "", text)
    assert calls == []


def test_looking_whether_a_file_can_be_written_leaves_no_trace(run: Run, calls: list[dict[str, Any]]) -> None:
    Path("old.PNG").write_bytes(b"old")
    assert run("demo", "--plot", "old.PNG", "--html", "new.html") == (0, "", "")
    assert Path("old.PNG").read_bytes() == b"old"
    assert not Path("new.html").exists()
    assert len(calls) == 1


def test_a_file_that_can_no_longer_be_written(
    run: Run, calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        Path("folder").mkdir()
        Path("folder").write_bytes(b"")

    monkeypatch.setattr(frostline.demo, "run", fail)  # type: ignore[attr-defined]
    text = "'folder' cannot be written: Is a directory.\nMake room for it, and try again.\n"
    assert run("demo") == (2, "", text)


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
