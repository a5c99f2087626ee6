"""Counts by other means: what functions of PyTorch are called with, above autograd, on real tensors."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

import frostline.torch as ft
from frostline._core.reporting.bill import Bill
from frostline.torch._autograd.saved import saving

CONVOLUTIONS = {torch.conv1d, torch.conv2d, torch.conv3d}
PARTS = ("prefix", "middle", "suffix", "scattered")


def frozen_part(model: nn.Module, part: str) -> list[str]:
    """Four fifths of the parameters before the end, between the ends, after the beginning; or every other one."""
    names = [name for name, _ in model.named_parameters()]
    edge = len(names) // 5
    parts = {"prefix": slice(0, -edge), "middle": slice(edge, -edge), "suffix": slice(edge, None)}
    return names[parts.get(part, slice(None, None, 2))]


class Counter(TorchFunctionMode):
    """Operations, by looking at arguments: whether each needs a gradient says what backward will do."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = self.inputs = self.weights = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if function in CONVOLUTIONS:
            self.add(2 * made.numel() * math.prod(args[1].shape[1:]), args[0], args[1])
        elif function is torch.conv_transpose2d:
            self.add(2 * args[0].numel() * math.prod(args[1].shape[1:]), args[0], args[1])
        elif function is F.linear:
            self.add(2 * made.numel() * args[1].shape[1], args[0], args[1])
        elif function is torch.matmul:
            self.add(2 * made.numel() * args[0].shape[-1], args[0], args[1], is_weight=False)
        elif function is F.scaled_dot_product_attention:
            self.attend(*args, **(kwargs or {}))
        elif function is torch._VF.lstm:
            self.recur(args[0], args[2])
        return made

    def add(self, flops: int, left: torch.Tensor, right: torch.Tensor, *, is_weight: bool = True) -> None:
        self.forward += flops
        self.inputs += flops * left.requires_grad
        if is_weight:
            self.weights += flops * right.requires_grad
        else:
            self.inputs += flops * right.requires_grad

    def attend(self, query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, **_: Any) -> None:
        one = 2 * query.numel() * key.shape[-2]  # heads of one length
        self.forward += 2 * one
        # Without dropout the kernel for processors runs, which computes the scores anew.
        wanted = [each.requires_grad for each in (query, key, value)]
        if any(wanted):
            self.inputs += 5 * one if dropout_p == 0.0 else one * (1 + sum(wanted))

    def recur(self, data: torch.Tensor, weights: list[torch.Tensor]) -> None:
        for number in range(0, len(weights), 4):
            flops = 2 * math.prod(data.shape[:2]) * (weights[number].numel() + weights[number + 1].numel())
            self.forward += flops
            # The kernel computes all gradients or none; a layer above one that needs one does too.
            if data.requires_grad or any(weight.requires_grad for weight in weights[: number + 4]):
                self.inputs += flops
                self.weights += flops


def measured(model: nn.Module, example: tuple[torch.Tensor, ...]) -> Bill:
    """What a real step spends and keeps."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    with saving(model) as saved, Counter() as counter:
        output = model(*example)
    saved_bytes = saved.nbytes
    output.sum().backward()
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    optimizer.step()
    state = sum(t.nbytes for kept in optimizer.state.values() for t in kept.values() if t.dim())
    return Bill(counter.forward, counter.inputs, counter.weights, saved_bytes, gradients, state)


def predicted(model: nn.Module, example: tuple[torch.Tensor, ...]) -> Bill:
    """The bill of the same step without its peak."""
    now = ft.cost(model, *example, optimizer=torch.optim.AdamW).now
    return Bill.total([now])
