"""The floating-point operations of a kernel: products of matrices, convolutions, attention and recurrence.

A multiplication and an addition are two operations. Element-wise work does not count, and neither do values that a
kernel skips: the padding of a convolution, the scores behind a causal mask. ``torch.utils.flop_counter`` is not used,
because it counts the weight gradient of a grouped convolution as if there were no groups, and lacks the recurrent
kernels and the attention of a processor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import torch

Args = tuple[Any, ...]
_aten = torch.ops.aten


@final
@dataclass(frozen=True, slots=True)
class Share:
    """The operations of a backward kernel for the gradient of one argument of its forward kernel.

    Attributes:
        edge: the position of the argument among the tensors of the forward kernel; None if any gradient needs it.
        flops: the operations of the kernel.
        least: the operations that the gradient needs.
    """

    edge: int | None
    flops: int
    least: int


def forward_flops(kernel: Any, args: Args, made: Any) -> int:
    """The operations of a kernel whose cost follows from its arguments; 0 if it is not counted.

    Args:
        kernel: an operator, as a dispatch mode gets it.
        args: its positional arguments.
        made: its result.

    Example:
        >>> from frostline.torch._autograd.flops import forward_flops
        >>> forward_flops(torch.ops.aten.mm.default, (torch.ones(2, 3), torch.ones(3, 5)), torch.ones(2, 5))
        60
    """
    packet = kernel.overloadpacket
    if packet in _CONVOLUTIONS:
        return _convolution(args, made)
    formula = _FORWARD.get(packet)
    return 0 if formula is None else formula(args)


def backward_shares(kernel: Any, args: Args) -> tuple[Share, ...]:
    """The operations of a backward kernel for each gradient; none if it is another kernel, or is counted as forward.

    Args:
        kernel: an operator, as a dispatch mode sees it.
        args: its positional arguments.
    """
    formula = _BACKWARD.get(kernel.overloadpacket)
    return () if formula is None else tuple(formula(args))


def _product(left: int, right: int) -> Callable[[Args], int]:
    """Returns the formula for a product of the arguments at two positions, batched or not."""

    def formula(args: Args) -> int:
        columns = args[right].shape[-1] if args[right].dim() > 1 else 1
        return 2 * args[left].numel() * columns

    return formula


def _grouped_product(args: Args) -> int:
    left, right = args[:2]
    # Each row or column is multiplied only by the matrix of its own group.
    return 2 * right.numel() * left.shape[-2] if (left.dim(), right.dim()) == (3, 2) else _product(0, 1)(args)


def _linear(args: Args) -> int:
    return 2 * args[0].numel() * math.prod(args[1].shape[:-1])


def _convolution(args: Args, made: torch.Tensor) -> int:
    data, weight, transposed = args[0], args[1], args[6]
    # Each position of the smaller image is multiplied by the whole kernel, for any stride and number of groups.
    return 2 * data.shape[0] * math.prod((data if transposed else made).shape[2:]) * weight.numel()


def _convolution_backward(args: Args) -> Iterator[Share]:
    each = _convolution((*args[1:4], None, None, None, args[7]), args[0])
    yield from (Share(edge, each, each) for edge in (0, 1) if args[10][edge])


def _scores(query: torch.Tensor, key: torch.Tensor) -> int:
    """The operations for one of the products of an attention, divided by the length of a head."""
    return 2 * math.prod(query.shape[:-1]) * key.shape[-2]


def _attention(args: Args) -> int:
    query, key, value = args[:3]
    return _scores(query, key) * (query.shape[-1] + value.shape[-1])


def _attention_backward(args: Args) -> Iterator[Share]:
    _, query, key, value = args[:4]
    scores = _scores(query, key)
    keys, values = scores * query.shape[-1], scores * value.shape[-1]
    # The kernel recomputes the scores once for all three gradients.
    yield Share(None, keys, 0)
    yield Share(None, values, values)
    yield from (Share(0, keys, keys), Share(1, keys, keys), Share(2, values, values))


def _recurrence(args: Args) -> int:
    data, into, again = args[:3]
    return 2 * math.prod(data.shape[:-1]) * (into.numel() + again.numel())


def _recurrence_backward(args: Args) -> Iterator[Share]:
    data, into, again = args[:3]
    steps = 2 * math.prod(data.shape[:-1])
    # Every gradient needs the backward pass through time.
    yield Share(None, steps * again.numel(), steps * again.numel())
    yield Share(0, steps * into.numel(), steps * into.numel())
    yield Share(1, steps * into.numel(), steps * into.numel())
    yield Share(2, steps * again.numel(), steps * again.numel())


def _cudnn_recurrence(args: Args) -> int:
    data, weights = args[0], args[1]
    return 2 * math.prod(data.shape[:-1]) * sum(weight.numel() for weight in weights if weight.dim() == 2)


def _cudnn_recurrence_backward(args: Args) -> Iterator[Share]:
    data, weights, wanted = args[0], args[1], args[-2]
    steps = 2 * math.prod(data.shape[:-1])
    matrices = {edge: steps * weight.numel() for edge, weight in enumerate(weights, 1) if weight.dim() == 2}
    yield Share(None, sum(matrices.values()), sum(matrices.values()))
    if wanted[3]:
        yield from (Share(edge, flops, flops) for edge, flops in matrices.items())


def _encoder_layer(args: Args) -> int:
    data, width, _, into, _, out, *_ = args
    matrices = [into, out, *(each for each in args[14:20] if isinstance(each, torch.Tensor) and each.dim() == 2)]
    length = data.shape[-2]
    return 2 * math.prod(data.shape[:-1]) * (sum(matrix.numel() for matrix in matrices) + 2 * length * width)


def _known(names: dict[str, Any]) -> dict[Any, Any]:
    """Returns the formulas by operator, without the names that this release of PyTorch lacks."""
    return {getattr(_aten, name): formula for name, formula in names.items() if hasattr(_aten, name)}


_FORWARD: dict[Any, Callable[[Args], int]] = _known(
    {
        "mm": _product(0, 1),
        "bmm": _product(0, 1),
        "mv": _product(0, 1),
        "dot": _product(0, 1),
        "vdot": _product(0, 1),
        "_int_mm": _product(0, 1),
        "_scaled_mm": _product(0, 1),
        "addmm": _product(1, 2),
        "_addmm_activation": _product(1, 2),
        "baddbmm": _product(1, 2),
        "addbmm": _product(1, 2),
        "addmv": _product(1, 2),
        "addmm_": _product(1, 2),
        "baddbmm_": _product(1, 2),
        "_grouped_mm": _grouped_product,
        "linear": _linear,
        "_scaled_dot_product_flash_attention_for_cpu": _attention,
        "_scaled_dot_product_flash_attention": _attention,
        "_scaled_dot_product_efficient_attention": _attention,
        "_scaled_dot_product_cudnn_attention": _attention,
        "_scaled_dot_product_fused_attention_overrideable": _attention,
        "mkldnn_rnn_layer": _recurrence,
        "_cudnn_rnn": _cudnn_recurrence,
        "miopen_rnn": _cudnn_recurrence,
        "_transformer_encoder_layer_fwd": _encoder_layer,
    }
)

_CONVOLUTIONS = _known(dict.fromkeys(("convolution", "_convolution", "convolution_overrideable")))

_BACKWARD: dict[Any, Callable[[Args], Iterator[Share]]] = _known(
    {
        "convolution_backward": _convolution_backward,
        "convolution_backward_overrideable": _convolution_backward,
        "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
        "_scaled_dot_product_flash_attention_backward": _attention_backward,
        "_scaled_dot_product_efficient_attention_backward": _attention_backward,
        "_scaled_dot_product_cudnn_attention_backward": _attention_backward,
        "_scaled_dot_product_fused_attention_overrideable_backward": _attention_backward,
        "mkldnn_rnn_layer_backward": _recurrence_backward,
        "_cudnn_rnn_backward": _cudnn_recurrence_backward,
        "miopen_rnn_backward": _cudnn_recurrence_backward,
    }
)
