"""The workspace that a kernel keeps for its backward pass, and that fake tensors do not have."""

from __future__ import annotations

from typing import Any

import torch

_PAGE = 4096


def with_workspace(kernel: Any, args: tuple[Any, ...], made: Any) -> Any:
    """Returns the result of a kernel with a workspace of its real size.

    Args:
        kernel: an operator, as a dispatch mode sees it.
        args: its positional arguments.
        made: its result, with fake tensors.
    """
    is_lstm = kernel.overloadpacket is getattr(torch.ops.aten, "mkldnn_rnn_layer", None)
    if (
        not is_lstm or not torch.is_grad_enabled() or args[0].dtype not in {torch.float32, torch.bfloat16}
    ):  # its mode does not matter
        return made
    return (*made[:3], made[3].new_empty(lstm_workspace(args[0], args[10])))


def lstm_workspace(data: torch.Tensor, width: int) -> int:
    """Bytes that one layer of an LSTM keeps on a processor, in one direction, in training.

    Args:
        data: steps × samples × features.
        width: the width of the hidden state.

    Source: oneDNN, ``src/cpu/rnn/rnn_utils.cpp``, where each part starts a page; a test compares it with the kernel.
    """
    steps, samples, features = data.shape
    rows, states = steps * samples, 2 * (steps + 1) * samples
    widest, size = max(features, width), data.element_size()
    parts = (
        size * rows * _leading(4 * width, size),  # the four gates
        size * rows * _leading(width, size),
        size * states * _leading(widest, size),
        *[4 * states * _leading(widest, 4)] * 2,  # sums have single precision
        size * states * width,
        4 * states * width,
    )
    return sum(-(-part // _PAGE) * _PAGE for part in parts)


def _leading(length: int, size: int) -> int:
    """The length of a row: whole cache lines, but not a multiple of 256, which would share cache sets."""
    line = 64 // size
    rounded = -(-length // line) * line
    return rounded + line if rounded % 256 == 0 else rounded
