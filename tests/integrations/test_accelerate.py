"""Accelerate: a driver before or after `prepare`, a whole resume by registering it, accumulation, and offloading."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator, cpu_offload
from accelerate.hooks import remove_hook_from_submodules
from accelerate.state import AcceleratorState, GradientState
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import frostline.torch as ft
from frostline.errors import DeltaError, UnsupportedError
from frostline.schedules import LISA, LinearProbe, Schedule, ULMFiT
from only_torch.bits import contents, moved

EXAMPLE = Path(__file__).parents[2] / "examples" / "accelerate_finetuning.py"
BLOCKS = ["[0]", "[1]", "[2]"]
SCHEDULES: dict[str, Schedule] = {
    "probe": LinearProbe(["[2]"], steps=3),
    "gradual": ULMFiT(BLOCKS, period=2),
    "lisa": LISA(BLOCKS[:2], sampled=1, period=1, always=["[2]"]),
}


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """An accelerator is one for the process."""
    _reset()
    yield
    _reset()


def _reset() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def net() -> nn.Sequential:
    torch.default_generator.manual_seed(0)
    return nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.2)) for _ in range(3)])


class Run:
    """An accelerator, and what it has prepared."""

    def __init__(self, schedule: Schedule, order: str, **settings: Any) -> None:
        self.accelerator = Accelerator(cpu=True, **settings)
        self.net = net()
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=0.1, weight_decay=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
        if order == "before":
            self.driver = ft.Driver(schedule, self.net, optimizer)
        self.model, self.optimizer, self.scheduler = self.accelerator.prepare(self.net, optimizer, scheduler)
        if order == "after":
            self.driver = ft.Driver(schedule, self.model, self.optimizer)
        self.accelerator.register_for_checkpointing(self.driver)

    def step(self, number: int) -> None:
        source = torch.Generator().manual_seed(number)
        with self.accelerator.accumulate(self.model):
            self.accelerator.backward(self.model(torch.randn(6, 4, generator=source)).square().mean())
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()
            self.driver.step()


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_run_that_was_stopped_goes_on_bitwise(name: str, order: str, tmp_path: Path) -> None:
    """The dropout goes on with the numbers that Accelerate restores."""
    whole = Run(SCHEDULES[name], order)
    for number in range(7):
        whole.accelerator.save_state(str(tmp_path / str(number)))
        whole.step(number)
    assert whole.driver.steps == 7
    for cut in range(1, 7):
        again = Run(SCHEDULES[name], order)
        again.accelerator.load_state(str(tmp_path / str(cut)))
        for number in range(cut, 7):
            again.step(number)
        assert contents(again.net) == contents(whole.net), cut


def test_without_the_driver_the_same_checkpoint_goes_elsewhere(tmp_path: Path) -> None:
    """The negative control."""
    whole, again = Run(SCHEDULES["probe"], "after"), Run(SCHEDULES["probe"], "after")
    for number in range(4):
        whole.step(number)
    for run in (whole, again):
        run.accelerator._custom_objects.clear()
    whole.accelerator.save_state(str(tmp_path))
    again.accelerator.load_state(str(tmp_path))
    for run in (whole, again):
        run.step(4)
    assert contents(again.net) != contents(whole.net)


@pytest.mark.parametrize("order", ["before", "after"])
def test_accumulated_batches_are_one_step(order: str) -> None:
    run = Run(SCHEDULES["probe"], order, gradient_accumulation_steps=3)
    seen = []
    for number in range(12):
        run.step(number)
        seen.append((run.driver.steps, len(ft.trainable(run.net))))
    assert seen == [(0, 4), (0, 4), (1, 4), (1, 4), (1, 4), (2, 4), (2, 4), (2, 4), (3, 12), (3, 12), (3, 12), (4, 12)]


def test_the_last_batches_of_an_epoch_are_a_step() -> None:
    run = Run(SCHEDULES["probe"], "after", gradient_accumulation_steps=2)
    batches = run.accelerator.prepare(DataLoader(TensorDataset(torch.randn(10, 4)), batch_size=2))
    seen = []
    for (batch,) in batches:
        with run.accelerator.accumulate(run.model):
            run.accelerator.backward(run.model(batch).square().mean())
            run.optimizer.step()
            run.optimizer.zero_grad()
            run.driver.step()
        seen.append(run.driver.steps)
    assert seen == [0, 1, 1, 2, 3]


def test_a_loop_without_an_accelerator_counts_whatever_one_has_left() -> None:
    run = Run(SCHEDULES["probe"], "after", gradient_accumulation_steps=3)
    run.step(0)  # stopped amid a step
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    driver = ft.Driver(SCHEDULES["probe"], model, optimizer)
    for _ in range(4):
        model(torch.ones(6, 4)).sum().backward()
        optimizer.step()
        driver.step()
    assert driver.steps == 4


def test_nothing_frozen_moves_under_mixed_precision() -> None:
    run = Run(SCHEDULES["probe"], "after", mixed_precision="bf16")
    before = contents(run.net)
    with ft.guard(run.model):
        for number in range(2):
            run.step(number)
    assert {name[0] for name in moved(before, run.net)} == {"2"}


def test_bytes_that_are_elsewhere_are_refused(tmp_path: Path) -> None:
    model = net()
    cpu_offload(model)
    ft.freeze(model, "[:2]")
    model.train()(torch.ones(6, 4)).sum()
    with pytest.raises(UnsupportedError) as caught, ft.guard(model):
        pass
    assert str(caught.value) == (
        "guard(model) cannot read 8 of 14 frozen tensors:\n"
        "  0.0.weight is on the meta device, without data\n  0.0.bias is on the meta device, without data\n"
        "  0.1.weight is on the meta device, without data\n  0.1.bias is on the meta device, without data\n"
        "  1.0.weight is on the meta device, without data\n  ... and 3 more\n"
        'Give them data first: model.to_empty(device="cpu"); or end their offloading: '
        "accelerate.hooks.remove_hook_from_submodules(model)."
    )
    with pytest.raises(DeltaError, match="on the meta device, where they have no values"):
        ft.save_delta(tmp_path / "delta.safetensors", model)
    remove_hook_from_submodules(model)
    with ft.guard(model):
        model(torch.ones(6, 4)).sum()


def test_the_example() -> None:
    found = runpy.run_path(str(EXAMPLE))["main"]()
    assert found == {"steps": 10, "resumed bitwise": True}
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 60
