"""`frostline schedule`: a schedule as a chart, before the run starts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from frostline.schedules import LISA, Phase, Phases, Span

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


@pytest.mark.parametrize("period", [3 * 10**22, 10**22 + 9])
def test_steps_without_end(run: Run, plan: Path, period: int) -> None:
    LISA(["a", "b"], sampled=1, period=period).save(plan)
    code, out, err = run("schedule", plan)
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()[1:4]] == ["a", "b", "everything"]


def test_a_file_of_an_editor_for_windows(run: Run, plan: Path) -> None:
    before = run("schedule", plan, "--steps", 60)
    plan.write_bytes(b"\xef\xbb\xbf" + plan.read_bytes().replace(b"\n", b"\r\n"))
    assert run("schedule", plan, "--steps", 60) == before


def test_as_json(run: Run, plan: Path) -> None:
    code, out, _ = run("schedule", plan, "--steps", 60, "--json")
    assert code == 0
    assert json.loads(out)["steps"] == 60


def test_a_picture_beside_the_schedule(run: Run, plan: Path) -> None:
    code, out, err = run("schedule", plan, "--steps", 60, "--plot")
    assert (code, err) == (0, "")
    assert (out, Path("run.png").read_bytes()[:8]) == (run("schedule", plan, "--steps", 60)[1], b"\x89PNG\r\n\x1a\n")


def test_a_picture_that_cannot_be_written(run: Run, plan: Path) -> None:
    Path("run.png").mkdir()
    assert run("schedule", plan, "--steps", 60, "--plot") == (
        2,
        "",
        "'run.png' cannot be written: Is a directory.\nCopy the schedule to where you may write.\n",
    )


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
