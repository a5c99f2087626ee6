"""The command's own work: one document, one page, one picture."""

import io
import json
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from rich.console import Console

from demo.facts import Facts
from frostline.demo import program, run
from frostline.demo.outcome import WAYS, Outcome, Settings
from frostline.demo.sections import summary


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=100)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch, outcome: Outcome) -> None:
    """The work is done already."""
    monkeypatch.setattr(program, "perform", lambda framework, settings, progress: outcome)


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise AssertionError("the training has begun")

    monkeypatch.setattr(program, "perform", fail)


@pytest.mark.usefixtures("done")
def test_it_writes_a_page_and_a_picture(
    console: Console, tmp_path: Path, settings: Settings, name: str, outcome: Outcome
) -> None:
    html, plot = tmp_path / "page.html", tmp_path / "picture.png"
    run(framework=name, html=html, plot=plot, as_json=False, console=console, settings=settings)
    assert html.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert plot.read_bytes()[:4] == b"\x89PNG"
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.startswith("1,797 images of handwritten digits")
    assert " ".join(summary(outcome).split()) in " ".join(text.split())
    assert text.endswith(f"Wrote {html}\nWrote {plot}\n")


@pytest.mark.usefixtures("done")
def test_json_is_one_document_and_nothing_else(
    console: Console, capsys: pytest.CaptureFixture[str], settings: Settings, name: str, facts: Facts
) -> None:
    run(framework=name, html=None, plot=None, as_json=True, console=console, settings=settings)
    document = json.loads(capsys.readouterr().out)
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
    assert list(document) == [
        "framework",
        "settings",
        "results",
        "old_before",
        "new_images",
        "old_images",
        "watched",
        "message",
        "moved",
        "changed_scores",
        "cost",
        "cached_bytes",
        "score_difference",
        "shared",
        "report",
    ]
    assert [result["way"] for result in document["results"]] == list(WAYS)
    assert [way["old_accuracy"] is None for way in document["results"]] == [False, False, False, True, False]
    assert all(result["step_seconds"] > 0 for result in document["results"])
    assert document["framework"] == {"torch": "PyTorch", "jax": "JAX"}[name]
    assert document["settings"]["runs"] == 2
    assert document["report"]["totals"]["params"] == 14_773
    assert document["shared"]["changed"] == [1024, 0]
    assert set(document["watched"]) == facts.parameters | facts.statistics
    assert set(document["moved"]) == facts.moved


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("option", ["html", "plot"])
def test_matplotlib_is_asked_for_before_the_training(
    console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("page", "picture"):
        monkeypatch.delitem(sys.modules, f"frostline.demo.{name}", raising=False)
    files = {"html": None, "plot": None, option: tmp_path / "file.png"}
    with pytest.raises(ModuleNotFoundError, match="matplotlib"):
        run(framework="torch", as_json=False, console=console, **files)


@pytest.mark.usefixtures("done")
def test_without_files_matplotlib_is_not_needed(
    console: Console, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.setitem(sys.modules, name, None)
    run(framework="torch", html=None, plot=None, as_json=False, console=console, settings=settings)
    assert "In short" in console.file.getvalue()  # type: ignore[attr-defined]
