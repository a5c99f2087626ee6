"""`frostline schedule`: a schedule as a chart, before the run starts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from frostline.schedules import Phase, Phases, Span

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A head that trains first, and then all of it."""
    monkeypatch.chdir(tmp_path)
    Phases([Span(0, 30, Phase(("**", "!head"))), Span(30, None, Phase())]).save(Path("run.toml"))
    return Path("run.toml")


def test_a_chart(run: Run, plan: Path) -> None:
    code, out, err = run("schedule", plan, "--steps", 60)
    assert (code, err) == (0, "")
    assert [line.rstrip() for line in out.splitlines()[1:3]] == [
        f"head             {60 * '█'}  100%",
        f"everything else  {30 * '·'}{30 * '█'}   50%",
    ]


def test_as_json(run: Run, plan: Path) -> None:
    code, out, _ = run("schedule", plan, "--steps", 60, "--json")
    assert code == 0
    assert json.loads(out)["steps"] == 60


@pytest.mark.parametrize(
    ("name", "begins"), [("a.png", b"\x89PNG\r\n\x1a\n"), ("a.pdf", b"%PDF-"), ("a.svg", b"<?xml")]
)
def test_a_picture(run: Run, plan: Path, name: str, begins: bytes) -> None:
    assert run("schedule", plan, "--steps", 60, "--plot", name)[0] == 0
    assert Path(name).read_bytes().startswith(begins)


def test_a_picture_of_no_kind(run: Run, plan: Path) -> None:
    code, out, err = run("schedule", plan, "--steps", 60, "--plot", "a.gif")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "picture(chart, '.gif') draws none of the 3 kinds there are: .pdf, .png, .svg.",
        "Name the file schedule.png.",
    ]
    assert not Path("a.gif").exists()


def test_a_selector_that_the_model_has_not(run: Run, file: Path) -> None:
    Phases([Span(0, None, Phase(("trunc",)))]).save(Path("run.toml"))
    code, out, err = run("schedule", "run.toml", "--steps", 60, "--model", file)
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == "'trunc' matches none of the 4 parameters."


def test_a_file_that_is_not_there(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run("schedule", "run.toml")
    assert (code, out) == (2, "")
    assert "run.toml" in err
