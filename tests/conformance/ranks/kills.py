"""A rank that is killed in the middle of a save leaves the checkpoint that was there before."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import distributed

import frostline.torch as ft
from conformance.ranks.files import learned, made_run
from conformance.ranks.nets import HEAD, Net, sharding, train, values
from conformance.ranks.processes import PASSED


def _die_at_the_next_sync(check: str) -> None:
    """From now on this process is killed when it has written a file and is about to sync it."""

    def killed(*_: Any) -> NoReturn:
        place = Path(f"kills-{distributed.get_world_size()}-{distributed.get_rank()}.json")
        place.write_text(json.dumps({check: PASSED}))
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    os.fsync = killed


def a_rank_is_killed_while_it_writes_a_run() -> None:
    model, driver = made_run(sharding)
    ft.save_run("killed-run", model=model, driver=driver, epoch=1)
    expected = values(model)
    if distributed.get_rank() == 0:
        torch.save(expected, "killed-run.expected")
    train(model, driver.bindings[0].optimizer, range(2))
    driver.step()
    if distributed.get_rank() == 1:
        _die_at_the_next_sync("a_rank_is_killed_while_it_writes_a_run")
    try:
        ft.save_run("killed-run", model=model, driver=driver, epoch=2)
    except Exception:  # noqa: BLE001 - whatever PyTorch says of a process that is gone
        return
    raise AssertionError("it went on without the other rank")


def the_rank_that_writes_a_delta_is_killed() -> None:
    model = sharding(Net())
    ft.freeze(model, "trunk", "embed")
    ft.save_delta("killed.safetensors", model, schedule=1)
    learned(model)
    if distributed.get_rank() == 0:
        _die_at_the_next_sync("the_rank_that_writes_a_delta_is_killed")
    try:
        ft.save_delta("killed.safetensors", model, schedule=2)
    except Exception:  # noqa: BLE001 - whatever PyTorch says of a process that is gone
        return
    raise AssertionError("it went on without the other rank")


def the_run_from_before_is_there() -> None:
    model, driver = made_run(lambda model: model, seed=7)
    assert ft.load_run("killed-run", model=model, driver=driver) == {"epoch": 1}
    assert values(model) == torch.load("killed-run.expected")
    assert driver.steps == 0
    # What the crash has left goes with the next save.
    ft.save_run("killed-run", model=model, driver=driver, epoch=3)
    assert len(list(Path("killed-run").glob("data-*"))) == 1


def the_delta_from_before_is_there() -> None:
    model, new = Net(seed=1), values(Net(seed=1))
    delta = ft.load_delta("killed.safetensors", model)
    assert (delta.schedule, set(delta.names)) == (1, HEAD)
    assert values(model) == new
    ft.save_delta("killed.safetensors", model)
    assert [path.name for path in Path().glob(".killed*")] == []


CHECKS = {
    2: [a_rank_is_killed_while_it_writes_a_run],
    3: [the_rank_that_writes_a_delta_is_killed],
    1: [the_run_from_before_is_there, the_delta_from_before_is_there],
}
