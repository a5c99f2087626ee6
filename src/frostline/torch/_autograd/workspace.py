"""The workspace that a kernel keeps for its backward, which tensors without data do not show."""

from __future__ import annotations

from typing import Any

import torch

_PAGE = 4096


def with_workspace(kernel: Any, args: tuple[Any, ...], made: Any) -> Any:
    """What a kernel made, with a workspace of the size that it would have.

    Args:
        kernel: an operator, as a dispatch mode sees it.
        args: its positional arguments.
        made: what it made, of tensors without data.
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
        width: of the hidden state.

    Source: oneDNN, ``src/cpu/rnn/rnn_utils.cpp``, whose parts each begin a page; held by a test against the kernel.
    """
    steps, samples, features = data.shape
    rows, states = steps * samples, 2 * (steps + 1) * samples
    widest, size = max(features, width), data.element_size()
    parts = (
        size * rows * _leading(4 * width, size),  # the four gates
        size * rows * _leading(width, size),
        size * states * _leading(widest, size),
        *[4 * states * _leading(widest, 4)] * 2,  # what is summed up is in single precision
        size * states * width,
        4 * states * width,
    )
    return sum(-(-part // _PAGE) * _PAGE for part in parts)


def _leading(length: int, size: int) -> int:
    """The numbers in a row: whole cache lines, and no multiple of 256, which would share cache sets."""
    line = 64 // size
    rounded = -(-length // line) * line
    return rounded + line if rounded % 256 == 0 else rounded
