"""A run that is saved, killed, loaded and continued has the same bytes, for every schedule and every cut."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.benches import required
from conformance.walks import STEPS, WALKS
from frostline import schedules

RUNS = [name for name in ("torch", "jax") if name in required()]


def module(name: str) -> Any:
    return importlib.import_module(f"conformance.run_{name}")


@pytest.fixture(autouse=True)
def _one_thread(request: pytest.FixtureRequest) -> None:
    """The tensors are so small that several threads would only be slower."""
    if "torch" in RUNS:
        request.getfixturevalue("one_thread_of_torch")


@pytest.fixture
def one_thread_of_torch() -> Iterator[None]:
    torch = importlib.import_module("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def recipes() -> list[Any]:
    """The first schedule of each front end runs always, and the others run in the long sweeps."""
    found = [(name, recipe, number) for name in RUNS for number, recipe in enumerate(module(name).RECIPES)]
    return [pytest.param(name, recipe, marks=[pytest.mark.slow] if number else []) for name, recipe, number in found]


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def test_every_schedule_and_policy_has_a_run() -> None:
    found = [vars(schedules)[name] for name in schedules.__all__]
    tops = (schedules.Schedule, schedules.Policy)
    kinds = {kind for kind in found if isinstance(kind, type) and issubclass(kind, tops)}
    assert {type(walk) for walk in WALKS.values()} == kinds - set(tops)


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize(("name", "recipe"), recipes())
def test_every_cut(name: str, recipe: str, walk: str) -> None:
    make = module(name).Run
    whole = make(walk, recipe)
    saved, contents = [whole.save()], [whole.content()]
    for _ in range(STEPS):
        whole.step()
        saved.append(whole.save())
        contents.append(whole.content())
    for cut in range(STEPS):
        run = make.load(walk, recipe, saved[cut], driver_first=cut % 2 == 0)
        assert differing(run.content(), contents[cut]) == [], f"cut at {cut}"
        for step in range(cut, STEPS):
            run.step()
            assert differing(run.content(), contents[step + 1]) == [], f"cut at {cut}, after step {step}"


@pytest.mark.parametrize("walk", ["LISA", "LinearProbe"])
@pytest.mark.parametrize("name", RUNS)
def test_without_the_state_of_the_driver_a_run_differs(name: str, walk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control."""
    whole = module(name).Run(walk, "AdamW, release")
    for _ in range(5):
        whole.step()
    monkeypatch.setattr(type(whole.driver), "load_state_dict", lambda driver, _, tree=None: tree and driver.start(tree))
    again = module(name).Run.load(walk, "AdamW, release", whole.save(), driver_first=True)
    assert {"driver", "plan"} <= set(differing(again.content(), whole.content()))


@pytest.mark.parametrize("name", RUNS)
def test_each_run_changes_the_frozen_set(name: str) -> None:
    """Without a change the tests of resuming would prove nothing."""
    plans: dict[str, set[str]] = {walk: set() for walk in WALKS}
    for walk, seen in plans.items():
        run = module(name).Run(walk, "AdamW, release")
        for _ in range(STEPS):
            seen.add(run.content()["plan"])
            run.step()
    assert [walk for walk, seen in plans.items() if len(seen) < 2] == []
    assert {walk: len(plans[walk]) for walk in ("Phases", "ULMFiT", "LISA", "BAdam", "HiFT", "FreezeOut")} == {
        "Phases": 4,
        "ULMFiT": 4,
        "LISA": 3,
        "BAdam": 3,
        "HiFT": 3,
        "FreezeOut": 5,
    }


_GOES_ON = """
import json, sys, traceback
from pathlib import Path
from conformance.test_resume import module
for name, recipe, walk, steps, file in json.loads(sys.argv[1]):
    try:
        run = module(name).Run.load(walk, recipe, Path(file).read_bytes(), driver_first=True)
        for _ in range(steps):
            run.step()
        Path(file).write_bytes(run.save())
    except Exception:
        Path(file).write_text(traceback.format_exc())
"""
ELSEWHERE = [(name, walk, cut) for name in RUNS for walk, cut in (("LISA", 3), ("Egeria", 5))]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, tuple[bytes, dict[str, Any]]]:
    """The result of each run after it continued in one other process, and the result in this process."""
    folder, recipe = tmp_path_factory.mktemp("runs"), "AdamW, release"
    contents, tasks = [], []
    for number, (name, walk, cut) in enumerate(ELSEWHERE):
        whole, file = module(name).Run(walk, recipe), folder / str(number)
        for _ in range(cut):
            whole.step()
        file.write_bytes(whole.save())
        for _ in range(cut, STEPS):
            whole.step()
        contents.append(whole.content())
        tasks.append((name, recipe, walk, STEPS - cut, str(file)))
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    others = {"PYTHONHASHSEED": "12345", "PYTHONPATH": paths}
    command = [sys.executable, "-c", _GOES_ON, json.dumps(tasks)]
    subprocess.run(command, env=os.environ | others, check=True, timeout=300)
    files = [Path(file).read_bytes() for *_, file in tasks]
    return dict(zip(ELSEWHERE, zip(files, contents, strict=True), strict=True))


@pytest.mark.parametrize(("name", "walk", "cut"), ELSEWHERE)
def test_in_another_process(name: str, walk: str, cut: int, elsewhere: Any) -> None:
    """Nothing depends on the identity of an object or on a hash."""
    saved, expected = elsewhere[name, walk, cut]
    assert not saved.startswith(b"Traceback"), saved.decode()
    again = module(name).Run.load(walk, "AdamW, release", saved, driver_first=True)
    assert differing(again.content(), expected) == []
