"""Deltas and runs of models in shards: saved by some ranks, loaded by others, and the same files in all cases.

The stages share a folder: what two ranks have saved, four ranks load, and then one process alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

import frostline.torch as ft
from conformance.ranks import tensor_parallel
from conformance.ranks.nets import (
    EMBED,
    HEAD,
    STATISTICS,
    Net,
    adamw,
    assert_ranks_agree,
    averaging,
    moved,
    refusal,
    sharding,
    train,
    values,
)
from frostline.errors import DeltaError, FileFormatError, RankError
from frostline.schedules import LISA
from frostline.torch._tensors import whole
from frostline.torch._training.together import in_shards

BLOCKS = ["embed", "trunk", "head"]


def learned(model: nn.Module) -> nn.Module:
    """The same values in any number of processes, and other ones than those of a new model."""
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            if parameter.requires_grad:
                count = torch.arange(parameter.numel(), dtype=torch.float32)
                parameter.copy_(in_shards((count + number).sin().reshape(parameter.shape), parameter))
    return model


def with_moments(model: nn.Module) -> ft.Binding:
    optimizer = adamw(model)
    binding = ft.bind(optimizer, model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            optimizer.state[parameter] = {
                "step": torch.tensor(3.0),
                "exp_avg": torch.full_like(parameter, 0.5, requires_grad=False),
                "exp_avg_sq": torch.full_like(parameter, 0.25, requires_grad=False),
            }
    return binding


def _written(name: str) -> bytes:
    distributed.barrier()
    return Path(name).read_bytes()


def a_delta_is_the_file_that_one_process_writes() -> None:
    world = distributed.get_world_size()
    model = Net()
    ft.freeze(model, "trunk")
    ft.save_delta(f"alone-{distributed.get_rank()}.safetensors", learned(model), optimizer=with_moments(model))
    model = sharding(Net())
    ft.freeze(model, "trunk")
    ft.save_delta(f"shards-{world}.safetensors", learned(model), optimizer=with_moments(model))
    assert _written(f"shards-{world}.safetensors") == _written("alone-0.safetensors")


def a_delta_loads_in_any_number_of_processes() -> None:
    want = Net()
    ft.freeze(want, "trunk")
    learned(want)
    for name in ("shards-2.safetensors", "alone-0.safetensors"):
        for wrap in (sharding, lambda model: model):
            model = wrap(Net())
            binding = ft.bind(adamw(model), model)
            delta = ft.load_delta(name, model, optimizer=binding)
            assert set(delta.names) == HEAD | EMBED
            assert values(model) == values(want)
            assert set(ft.trainable(model)) == HEAD | EMBED
            for parameter in ft.trainable(model).values():
                state = binding.optimizer.state[parameter]
                assert state["exp_avg"].shape == parameter.shape
                assert type(state["exp_avg"]) is type(parameter.data)
                assert torch.equal(whole(state["exp_avg_sq"]), torch.full(parameter.shape, 0.25))
            train(model, binding.optimizer, [0])


def another_base_is_refused_on_every_rank() -> None:
    model = sharding(Net())
    with torch.no_grad():
        model.trunk[0].weight.add_(1)
    before = values(model)
    text = refusal(DeltaError, lambda: ft.load_delta("shards-2.safetensors", model))
    assert text.split("\n") == [
        "load_delta('shards-2.safetensors', model) holds a delta that was made on another base: 1 of 7 frozen tensors "
        "differ, 0 are unknown, 0 are missing.",
        "  differs: trunk.0.weight",
        "Load first the weights that it was trained on, or leave the base as it is: "
        "load_delta(file, model, any_base=True).",
    ]
    assert moved(model, before) == set()


def what_fails_on_one_rank_fails_on_all() -> None:
    rank, world = distributed.get_rank(), distributed.get_world_size()
    model = sharding(Net())
    ft.freeze(model, "trunk")
    file = "absent/a.safetensors"
    call: Callable[[], Any] = lambda: ft.save_delta(file, model)  # noqa: E731 - it is called below
    if rank == 0:
        assert refusal(DeltaError, call).startswith("save_delta('absent/a.safetensors', model) cannot write the file")
    else:
        assert refusal(RankError, call).split("\n") == [
            f"save_delta('absent/a.safetensors', model) was given up on this rank, {rank}, because it failed on 1 of "
            f"{world} ranks:",
            "  rank 0: DeltaError: save_delta('absent/a.safetensors', model) cannot write the file: no such file or "
            "directory.",
            "Mend what failed there, and call it again on each rank.",
        ]
    before = values(model)
    name = "shards-2.safetensors" if rank == 0 else "not-there.safetensors"
    refusal(RankError if rank == 0 else FileFormatError, lambda: ft.load_delta(name, model))
    assert moved(model, before) == set()


def ranks_that_write_one_file_do_not_collide() -> None:
    """A data-parallel model is whole on each rank, and each may save it."""
    model = Net()
    ft.freeze(model, "trunk")
    wrapped = averaging(model)
    for _ in range(20):
        ft.save_delta("together.safetensors", wrapped)
    distributed.barrier()
    assert sorted(path.name for path in Path().glob(".together*")) == []
    assert set(ft.load_delta("together.safetensors", Net()).names) == HEAD | EMBED


def tensor_parallel_layers() -> None:
    world = distributed.get_world_size()
    model = tensor_parallel.parallel(tensor_parallel.Block())
    ft.freeze(model, "up")
    ft.save_delta(f"parallel-{world}.safetensors", learned(model))
    alone = tensor_parallel.Block()
    ft.freeze(alone, "up")
    ft.save_delta(f"parallel-alone-{distributed.get_rank()}.safetensors", learned(alone))
    assert _written(f"parallel-{world}.safetensors") == _written("parallel-alone-0.safetensors")
    other = tensor_parallel.parallel(tensor_parallel.Block())
    ft.load_delta("parallel-2.safetensors", other)
    assert values(other) == values(alone)


def made_run(wrap: Callable[[nn.Module], nn.Module], seed: int = 1) -> tuple[nn.Module, ft.Driver]:
    model = wrap(Net(seed))
    return model, ft.Driver(LISA(BLOCKS, sampled=1, period=2, seed=5), model, adamw(model))


def a_run_is_saved() -> None:
    model, driver = made_run(sharding)
    for number in range(5):
        train(model, driver.bindings[0].optimizer, [number])
        driver.step()
    for statistic in STATISTICS:  # those of a rank are its own
        buffer = model.get_buffer(statistic)
        distributed.broadcast(buffer, 0)
    ft.save_run("run", model=model, driver=driver, epoch=4)
    found = values(model)
    if distributed.get_rank() == 0:
        torch.save((found, sorted(ft.trainable(model)), _moments(driver)), "run.expected")
    else:
        _moments(driver)


def _moments(driver: ft.Driver) -> dict[str, dict[str, torch.Tensor]]:
    state = driver.bindings[0].state_dict()["state"]
    return {name: {key: whole(value).clone() for key, value in each.items()} for name, each in state.items()}


def a_run_goes_on_with_any_number_of_ranks() -> None:
    distributed.barrier()
    found, trainable, moments = torch.load("run.expected")
    for wrap in (sharding, averaging if distributed.get_world_size() > 1 else lambda model: model):
        model, driver = made_run(wrap, seed=9)
        assert ft.load_run("run", model=model, driver=driver) == {"epoch": 4}
        assert values(model) == found
        assert sorted(ft.trainable(model)) == trainable
        assert driver.steps == 5
        mine = _moments(driver)
        assert mine.keys() == moments.keys()
        for name, each in moments.items():
            assert all(torch.equal(mine[name][key], value) for key, value in each.items())
        train(model, driver.bindings[0].optimizer, [7])
        assert_ranks_agree(model, but=STATISTICS)


LOADING = [a_delta_loads_in_any_number_of_processes, another_base_is_refused_on_every_rank]
SAVING = [
    a_delta_is_the_file_that_one_process_writes,
    *LOADING,
    what_fails_on_one_rank_fails_on_all,
    ranks_that_write_one_file_do_not_collide,
    tensor_parallel_layers,
]
CHECKS = {
    2: [*SAVING, a_run_is_saved, a_run_goes_on_with_any_number_of_ranks],
    4: [*SAVING, a_run_goes_on_with_any_number_of_ranks],
    1: [*LOADING, a_run_goes_on_with_any_number_of_ranks],
}
