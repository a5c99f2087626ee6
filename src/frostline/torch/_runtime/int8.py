"""Linear maps in eight bits: weights are rounded once, inputs in each call."""

from __future__ import annotations

import functools
import operator
from typing import Any, final

import torch
from torch import Tensor, fx, nn

from frostline.torch._runtime.weights import graphs_of, kind_of

_MOST = 127


def quantise(module: fx.GraphModule, memo: dict[Any, Any]) -> None:
    """Replaces each linear map of a module by one in eight bits, in place; the memo is given the modules."""
    for graph in graphs_of(module):
        for number, node in enumerate(list(graph.graph.nodes)):
            if kind_of(node) != "linear" or node.kwargs:
                continue
            x, *reads = node.args
            if not all(read is None or (isinstance(read, fx.Node) and read.op == "get_attr") for read in reads):
                continue
            weight, bias = (*(read and operator.attrgetter(read.target)(graph) for read in reads), None)[:2]
            key = id(weight), "int8"
            if key not in memo:
                memo[key] = Int8Linear(weight, bias)
            graph.add_submodule(f"int8_linear_{number}", memo[key])
            with graph.graph.inserting_before(node):
                node.replace_all_uses_with(graph.graph.call_module(f"int8_linear_{number}", (x,)))
            graph.graph.erase_node(node)
        graph.graph.eliminate_dead_code()
        graph.recompile()


@final
class Int8Linear(nn.Module):
    """A linear map whose weight has one scale for each output, and whose input has one for each row.

    Each row has its own scale, because the output of a sample must not depend on the other samples.

    Args:
        weight: outputs x inputs.
        bias: one number for each output, or None.

    Source: rounding to nearest with a scale for each row and each output, as in https://arxiv.org/abs/2208.07339
    without its outliers.
    """

    rounded: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        scale = weight.detach().float().abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / _MOST
        rounded = (weight.detach().float() / scale[:, None]).round().to(torch.int8)
        self.register_buffer("rounded", rounded.t().contiguous())
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Multiplies in eight bits and adds in 32."""
        rows = x.reshape(-1, x.shape[-1])
        scale = rows.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / _MOST
        product = torch._int_mm((rows / scale).round().to(torch.int8), self.rounded)
        y = product.to(x.dtype).mul_(scale).mul_(self.scale)
        y = y if self.bias is None else y.add_(self.bias)
        return y.reshape(*x.shape[:-1], -1)


@functools.cache
def is_exact(device: str) -> bool:
    """Whether matrices of eight bits are multiplied exactly on this kind of device.

    Without instructions that add products in 32 bits (VNNI), oneDNN adds pairs of them in 16 bits, and large ones
    overflow. PyTorch may lack the operator, too: its name is private.
    """
    try:
        most = torch.full((64, 64), _MOST, dtype=torch.int8, device=device)
        return bool((torch._int_mm(most, most) == 64 * _MOST**2).all())
    except (AttributeError, RuntimeError):
        return False
