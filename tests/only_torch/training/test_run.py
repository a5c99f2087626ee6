"""A whole run in a folder: stop and go is bitwise the run that was not stopped, and what does not fit is said."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import frostline.torch as ft
from frostline import Rule
from frostline.errors import RunError, ScheduleError
from frostline.schedules import LISA, LinearProbe, Schedule, ULMFiT

BLOCKS = ["[0]", "[1]"]
SCHEDULES: list[Schedule] = [
    LinearProbe(["[2]"], steps=3),
    ULMFiT([*BLOCKS, "[2]"], period=2),
    LISA(BLOCKS, sampled=1, period=1, always=["[2]"], seed=1),
]


def net(layers: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    body = [nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)) for _ in range(layers - 1)]
    return nn.Sequential(*body, nn.Linear(4, 4))


def made(schedule: Schedule, lr: float = 0.1) -> tuple[nn.Sequential, ft.Driver]:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1)
    return model, ft.Driver(schedule, model, ft.bind(optimizer, model, rules=[Rule("**.bias", weight_decay=0.0)]))


def train(model: nn.Module, driver: ft.Driver, until: int) -> None:
    optimizer = driver.bindings[0].optimizer
    while driver.steps < until:
        optimizer.zero_grad()
        model(torch.randn(5, 4, generator=torch.Generator().manual_seed(driver.steps))).square().sum().backward()
        optimizer.step()
        driver.step()


def contents(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
@pytest.mark.parametrize("cut", [0, 1, 3, 4])
def test_stop_and_go_is_the_run(schedule: Schedule, cut: int, tmp_path: Path) -> None:
    model, driver = made(schedule)
    train(model, driver, cut)
    ft.save_run(tmp_path, model=model, driver=driver, epoch=cut)
    train(model, driver, 7)
    other, resumed = made(schedule, lr=7.0)
    train(other, resumed, 2)
    assert ft.load_run(tmp_path, model=other, driver=resumed) == {"epoch": cut}
    assert resumed.steps == cut
    train(other, resumed, 7)
    assert contents(other) == contents(model)


def test_without_a_driver_the_model_is_frozen_as_it_was(tmp_path: Path) -> None:
    model, other = net(), net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    ft.bind(optimizer, model)
    ft.freeze(model, "[0]")
    model(torch.ones(3, 4)).sum().backward()
    optimizer.step()
    ft.save_run(tmp_path, model=model, optimizer=optimizer)
    binding = ft.bind(torch.optim.SGD(other.parameters(), lr=0.2, momentum=0.9), other)
    assert ft.load_run(tmp_path, model=other, optimizer=[binding]) == {}
    assert sorted(ft.trainable(other)) == sorted(ft.trainable(model))
    assert contents(other) == contents(model)
    assert binding.optimizer.param_groups[0]["lr"] == 0.1
    for a, b in zip(model[2].parameters(), other[2].parameters(), strict=True):
        assert torch.equal(optimizer.state[a]["momentum_buffer"], binding.optimizer.state[b]["momentum_buffer"])


def test_the_model_alone(tmp_path: Path) -> None:
    model, other = net(), net()
    with torch.no_grad():
        model[2].weight.fill_(3.0)
    ft.save_run(tmp_path / "new" / "folder", model=model)
    ft.load_run(tmp_path / "new" / "folder", model=other)
    assert contents(other) == contents(model)


def test_the_later_run_takes_the_place_of_the_earlier_one(tmp_path: Path) -> None:
    model, driver = made(SCHEDULES[0])
    for _ in range(3):
        ft.save_run(tmp_path, model=model, driver=driver)
        train(model, driver, driver.steps + 1)
    assert sorted(os.listdir(tmp_path)) == ["data-3", "run.json"]
    assert json.loads((tmp_path / "run.json").read_text())["driver"]["step"] == 2


def test_a_crash_leaves_the_run_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, driver = made(SCHEDULES[0])
    ft.save_run(tmp_path, model=model, driver=driver)
    before = contents(model)
    train(model, driver, 5)

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            ft.save_run(tmp_path, model=model, driver=driver)
    assert sorted(os.listdir(tmp_path)) == ["data-1", "data-2", "run.json"]
    other, resumed = made(SCHEDULES[0])
    ft.load_run(tmp_path, model=other, driver=resumed)
    assert (contents(other), resumed.steps) == (before, 0)
    ft.save_run(tmp_path, model=model, driver=driver)
    assert sorted(os.listdir(tmp_path)) == ["data-3", "run.json"]


def test_a_longer_schedule_with_the_same_past(tmp_path: Path) -> None:
    model, driver = made(LinearProbe(["[2]"], steps=3))
    train(model, driver, 2)
    ft.save_run(tmp_path, model=model, driver=driver)
    other, resumed = made(LinearProbe(["[2]"], steps=6))
    ft.load_run(tmp_path, model=other, driver=resumed)
    train(other, resumed, 4)
    assert sorted(ft.trainable(other)) == ["2.bias", "2.weight"]


class Extra(nn.Linear):
    """A layer with something in its state that is not a tensor."""

    def get_extra_state(self) -> Any:
        return {"seen": 1}

    def set_extra_state(self, state: Any) -> None:
        pass


AGAIN = "Save the run with the same model and optimizers: save_run(folder, model=model, driver=driver)."


def _sgd(model: nn.Module) -> ft.Binding:
    return ft.bind(torch.optim.SGD(model.parameters(), lr=0.1), model)


def _load_a_driver(folder: str) -> None:
    model, driver = made(SCHEDULES[0])
    ft.save_run(folder, model=net())
    ft.load_run(folder, model=model, driver=driver)


def _wider() -> nn.Sequential:
    model = net()
    model[2] = nn.Linear(4, 5)
    return model


REFUSED: list[tuple[Callable[[str], object], list[str]]] = [
    (
        lambda folder: ft.load_run(f"{folder}/none", model=net()),
        [
            "load_run('FOLDER/none', ...) finds no run.json in the folder.",
            "Save one first: save_run(folder, model=model, driver=driver).",
        ],
    ),
    (
        lambda folder: ft.load_run(folder, model=net()),
        ["load_run('FOLDER', ...) holds 1 optimizers for 0.", AGAIN],
    ),
    (
        lambda folder: ft.load_run(folder, model=(model := net(2)), optimizer=_sgd(model)),
        [
            "load_run('FOLDER', ...) holds another model: 2 tensors missing, 9 unknown.",
            "  missing: 1.bias",
            "  missing: 1.weight",
            "  unknown: 1.0.bias",
            "  unknown: 1.0.weight",
            AGAIN,
        ],
    ),
    (
        lambda folder: ft.load_run(folder, model=(model := _wider()), optimizer=_sgd(model)),
        [
            "load_run('FOLDER', ...) holds 2 tensors of other shapes:",
            "  2.weight: saved (4, 4), in the model (5, 4)",
            "  2.bias: saved (4,), in the model (5,)",
            AGAIN,
        ],
    ),
    (
        lambda folder: ft.load_run(folder, model=(model := net()), optimizer=_sgd(model)),
        [
            "load_run('FOLDER', ...) got the state of AdamW for SGD.",
            AGAIN,
        ],
    ),
    (
        lambda folder: ft.load_run(folder, model=net(), optimizer=torch.optim.SGD([torch.ones(1)])),
        [
            "load_run(folder, ..., optimizer=...) got SGD, which is not bound to the model.",
            "Bind it first: binding = bind(optimizer, model); load_run(folder, ..., optimizer=binding).",
        ],
    ),
    (
        lambda folder: ft.save_run(folder, model=net(), rng={1, 2}),
        [
            "save_run('FOLDER', ...) got something that is not JSON: Object of type set is not JSON serializable.",
            "Save plain values.",
        ],
    ),
    (
        lambda folder: ft.save_run(folder, model=nn.Sequential(Extra(2, 2))),
        [
            "save_run('FOLDER', ...) finds 1 of 3 values in the state of the model that are not tensors:",
            "  0._extra_state",
            "Save such a model by torch.save(model.state_dict(), file).",
        ],
    ),
    (
        _load_a_driver,
        ["load_run('FOLDER', ...) holds no driver.", "Load it without: load_run(folder, model=model)."],
    ),
]


@pytest.mark.parametrize(("act", "lines"), REFUSED)
def test_the_whole_text_of_each_refusal(act: Callable[[str], object], lines: list[str], tmp_path: Path) -> None:
    model, driver = made(SCHEDULES[0])
    ft.save_run(tmp_path, model=model, driver=driver)
    with pytest.raises(RunError) as caught:
        act(str(tmp_path))
    assert str(caught.value).replace(str(tmp_path), "FOLDER").split("\n") == lines


def test_a_run_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    model, driver = made(LinearProbe(["[2]"], steps=1))
    train(model, driver, 3)
    ft.save_run(tmp_path, model=model, driver=driver)
    other, resumed = made(LinearProbe(["[2]"], steps=2))
    train(other, resumed, 1)
    before, moments = contents(other), resumed.bindings[0].state_dict()["moments"]
    with pytest.raises(ScheduleError) as caught:
        ft.load_run(tmp_path, model=other, driver=resumed)
    assert str(caught.value).split("\n") == [
        "driver.load_state_dict(state) got the state of another LinearProbe: it differs in 1 field.",
        "  steps: saved 1, here 2",
        "  at step 1: saved Phase(name='fine-tune'), here Phase(frozen=('**', '![2]'), name='probe')",
        "Load what driver.state_dict() gave, into a driver with the same schedule.",
    ]
    assert contents(other) == before
    assert resumed.bindings[0].state_dict()["moments"] == moments
    assert resumed.steps == 1
