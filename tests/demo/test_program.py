"""The command's own work: files looked at first, one document, one page, one picture."""

import io
import json
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from rich.console import Console

from demo.facts import Facts
from frostline.demo import program, run
from frostline.demo.budget import Budget
from frostline.demo.destination import DestinationError, picture, writable, write
from frostline.demo.framework import Name
from frostline.demo.outcome import Outcome


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=100)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch, outcome: Outcome) -> None:
    """The work is done already."""
    monkeypatch.setattr(program, "perform", lambda framework, budget, tick: outcome)


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise AssertionError("the training has begun")

    monkeypatch.setattr(program, "perform", fail)


@pytest.mark.usefixtures("done")
def test_it_writes_a_page_and_a_picture(console: Console, tmp_path: Path, budget: Budget, name: Name) -> None:
    html, plot = tmp_path / "page.html", tmp_path / "picture.png"
    run(framework=name, html=html, plot=plot, as_json=False, console=console, budget=budget)
    assert html.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert plot.read_bytes()[:4] == b"\x89PNG"
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.startswith("1,797 scans of handwritten digits")
    assert text.endswith(f"Wrote {html}\nWrote {plot}\n")


@pytest.mark.usefixtures("done")
def test_json_is_one_document_and_nothing_else(
    console: Console, capsys: pytest.CaptureFixture[str], budget: Budget, name: Name, facts: Facts
) -> None:
    run(framework=name, html=None, plot=None, as_json=True, console=console, budget=budget)
    document = json.loads(capsys.readouterr().out)
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
    assert list(document) == [
        "framework",
        "budget",
        "unseen_scans",
        "accuracy_on_0_to_4_before",
        "ways",
        "proof",
        "limits",
        "sharing",
        "report",
    ]
    assert [way["trainable_params"] for way in document["ways"]] == [645, 14_773, 14_773]
    assert [way["accuracy_on_0_to_4_afterwards"] is None for way in document["ways"]] == [False, False, True]
    assert document["framework"] == {"torch": "PyTorch", "jax": "JAX"}[name]
    assert document["proof"]["steps"] == 12
    assert set(document["proof"]["bitwise_equal"]) == facts.parameters | facts.statistics
    assert set(document["proof"]["frozen_by_hand"]["moved"]) == facts.moved


@pytest.mark.usefixtures("untrained")
def test_a_picture_of_no_format_is_said_before_the_training(console: Console, tmp_path: Path) -> None:
    file = tmp_path / "picture.gif"
    with pytest.raises(DestinationError) as caught:
        run(framework="torch", html=None, plot=file, as_json=False, console=console)
    assert str(caught.value) == "\n".join(
        [
            f"'{file}' cannot be written: its suffix is '.gif', and there are 3: .pdf, .png and .svg.",
            f"frostline demo --plot {tmp_path / 'picture.png'}",
        ]
    )


@pytest.mark.usefixtures("untrained")
def test_a_folder_that_is_not_there_is_said_before_the_training(console: Console, tmp_path: Path) -> None:
    file = tmp_path / "no" / "page.html"
    with pytest.raises(DestinationError) as caught:
        run(framework="torch", html=file, plot=None, as_json=False, console=console)
    assert str(caught.value) == "\n".join(
        [
            f"'{file}' cannot be written: no such file or directory.",
            "Name a file in a folder that you may write to.",
        ]
    )


def test_the_probe_of_a_file_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "old.png").write_bytes(b"old")
    assert picture(tmp_path / "old.png").read_bytes() == b"old"
    assert not writable(tmp_path / "new.html").exists()


def test_a_file_that_cannot_be_written_any_more(tmp_path: Path) -> None:
    with pytest.raises(DestinationError) as caught:
        write(tmp_path, b"")
    assert str(caught.value) == "\n".join(
        [f"'{tmp_path}' cannot be written: is a directory.", "Make room for it, and run the demo again."]
    )


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("option", ["html", "plot"])
def test_matplotlib_is_asked_for_before_the_training(
    console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("page", "picture", "drawing"):
        monkeypatch.delitem(sys.modules, f"frostline.demo.{name}", raising=False)
    files = {"html": None, "plot": None, option: tmp_path / "file.png"}
    with pytest.raises(ModuleNotFoundError, match="matplotlib"):
        run(framework="torch", as_json=False, console=console, **files)


@pytest.mark.usefixtures("done")
def test_without_files_matplotlib_is_not_needed(
    console: Console, monkeypatch: pytest.MonkeyPatch, budget: Budget
) -> None:
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.setitem(sys.modules, name, None)
    run(framework="torch", html=None, plot=None, as_json=False, console=console, budget=budget)
    assert "In one sentence" in console.file.getvalue()  # type: ignore[attr-defined]
