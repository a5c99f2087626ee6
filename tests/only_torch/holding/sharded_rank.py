"""One rank that shards a model with a frozen part, before or after the freezing; run by `test_sharded.py`."""

from __future__ import annotations

import sys
import tempfile

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule, fully_shard

import frostline.torch as ft

X = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.0, 4.0, -1.5, 1.0]])


class Counting(nn.Module):
    """Writes a buffer in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.norm(self.linear(x))


def run(*, is_frozen_first: bool) -> dict[str, bool]:
    model = nn.Sequential(nn.Linear(4, 4), Counting(), nn.Linear(4, 2))
    handle = ft.freeze(model, "[1]") if is_frozen_first else None
    fully_shard(model[1])
    fully_shard(model)
    handle = handle or ft.freeze(model, "[1]")
    model.train()
    for _ in range(2):
        model(X).sum().backward()
    found = {
        "still": model[1].count.item() == 0 and model[1].norm.num_batches_tracked.item() == 0,
        "held": not model[1].norm.training,
        "sharded": isinstance(model[1], FSDPModule),
        "trains": model[0].weight.grad is not None and model[1].linear.weight.grad is None,
    }
    handle.undo()
    model.train()
    model(X).sum().backward()
    found["undone"] = model[1].count.item() == 1 and model[1].linear.weight.grad is not None
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=0, world_size=1)
        sys.stdout.write(f"{run(is_frozen_first=sys.argv[1] == 'frozen-first')}\n")
        distributed.destroy_process_group()
