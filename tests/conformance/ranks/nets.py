"""The model of these checks, its two wrappers, its training, and what the ranks have of it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import frostline.torch as ft
from frostline.torch._tensors import whole

HEAD = {"head.weight", "head.bias"}
TRUNK = {"trunk.0.weight", "trunk.0.bias", "trunk.1.weight", "trunk.1.bias"}
EMBED = {"embed.weight", "embed.bias"}
STATISTICS = {"trunk.1.running_mean", "trunk.1.running_var", "trunk.1.num_batches_tracked"}


class Net(nn.Module):
    """A body with statistics and dropout between two layers."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Linear(4, 6)
        self.trunk = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(self.embed(x).tanh()))


def averaging(model: nn.Module) -> nn.Module:
    """The model in a data-parallel wrapper that follows."""
    return ft.rewrap(DistributedDataParallel(model))


def sharding(model: nn.Module) -> nn.Module:
    """The model in shards, a unit for each child, and the rest."""
    for child in model.children():
        fully_shard(child)
    return fully_shard(model)


def batch(number: int, rank: int | None = None) -> Tensor:
    """Other numbers for each rank."""
    rank = distributed.get_rank() if rank is None else rank
    return torch.randn(4, 4, generator=torch.Generator().manual_seed(100 * number + rank))


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)


def train(wrapped: nn.Module, optimizer: torch.optim.Optimizer, numbers: Iterable[int]) -> None:
    """An unmodified loop."""
    wrapped.train()
    for number in numbers:
        optimizer.zero_grad()
        wrapped(batch(number)).square().sum().backward()
        optimizer.step()


def values(model: nn.Module) -> dict[str, bytes]:
    """The bytes of each whole tensor by name; every rank must call it."""
    found = {name.removeprefix("module."): tensor for name, tensor in model.state_dict().items()}
    return {name: bytes_in(whole(tensor)) for name, tensor in found.items()}


def bytes_in(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def moved(model: nn.Module, before: dict[str, bytes]) -> set[str]:
    after = values(model)
    assert after.keys() == before.keys()
    return {name for name in before if before[name] != after[name]}


def assert_ranks_agree(model: nn.Module, *, but: Iterable[str] = ()) -> None:
    """Every rank has the same bytes; statistics that a rank measured since the last broadcast are its own."""
    mine = {name: data for name, data in values(model).items() if name not in set(but)}
    said: list[dict[str, bytes]] = [{}] * distributed.get_world_size()
    distributed.all_gather_object(said, mine)
    assert [{name for name in mine if each[name] != mine[name]} for each in said] == [set()] * len(said)


def refusal(kind: type[BaseException], call: object) -> str:
    """The whole text of an error that a call raises."""
    try:
        call()  # type: ignore[operator]
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")
