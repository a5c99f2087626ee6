"""Linear maps in eight bits: weights rounded once, inputs as they come."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, fx, nn

from frostline.torch._runtime.weights import kind_of

_MOST = 127


def quantise(module: nn.Module, memo: dict[Any, Any]) -> None:
    """Puts eight bits in the place of each linear map of a module, in place, whether it is a module or in a graph.

    Args:
        module: a copy.
        memo: gets what is made of the weights, or has it.
    """
    for inner in list(module.modules()):
        if isinstance(inner, fx.GraphModule):
            _in_graph(inner, memo)
        for name, child in list(inner.named_children()):
            if type(child) is nn.Linear:
                setattr(inner, name, _made(child.weight, child.bias, memo))


def _made(weight: Tensor, bias: Tensor | None, memo: dict[Any, Any]) -> Int8Linear:
    key = id(weight), "int8"
    if key not in memo:
        memo[key] = Int8Linear(weight, bias)
    return memo[key]


@final
class Int8Linear(nn.Module):
    """A linear map whose weight has one scale for each output, and whose input has one for each row.

    A scale for each row and not for the batch: what is computed of a sample must not depend on the other samples.

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
        """Multiplies in eight bits, adds up in 32."""
        rows = x.reshape(-1, x.shape[-1])
        scale = rows.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / _MOST
        product = torch._int_mm((rows / scale).round().to(torch.int8), self.rounded)
        y = product.to(x.dtype).mul_(scale).mul_(self.scale)
        y = y if self.bias is None else y.add_(self.bias)
        return y.reshape(*x.shape[:-1], -1)


def _in_graph(module: fx.GraphModule, memo: dict[Any, Any]) -> None:
    nodes = [node for node in module.graph.nodes if kind_of(node) == "linear" and _reads_tensors(node)]
    for number, node in enumerate(nodes):
        x, weight, bias = (*node.args, None)[:3]
        name = f"int8_linear_{number}"
        module.add_submodule(name, _made(_held(module, weight), _held(module, bias), memo))
        with module.graph.inserting_before(node):
            node.replace_all_uses_with(module.graph.call_module(name, (x,)))
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.recompile()


def _reads_tensors(node: fx.Node) -> bool:
    return not node.kwargs and all(
        isinstance(x, fx.Node) and x.op == "get_attr" for x in node.args[1:] if x is not None
    )


def _held(module: nn.Module, node: Any) -> Any:
    if node is None:
        return None
    path, _, name = node.target.rpartition(".")
    return getattr(module.get_submodule(path), name)


def is_there() -> bool:
    """Whether this PyTorch multiplies matrices of eight bits: the name is private, so it is tried."""
    try:
        ones = torch.ones(1, 1, dtype=torch.int8)
        return torch._int_mm(ones, ones).item() == 1
    except (AttributeError, RuntimeError):
        return False
