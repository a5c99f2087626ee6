"""Operations of kernels, as literals."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import frostline.torch as ft


class Attention(nn.Module):
    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value)


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.ones(2, 3, 4))

    def forward(self, right: Tensor) -> Tensor:
        return torch.baddbmm(torch.ones(5), self.left, right)


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return self.lstm(packed)[0].data


def flops(model: nn.Module, *example: Tensor) -> tuple[tuple[int, int, int], float]:
    found = ft.cost(model, *example)
    now = found.now
    return (now.forward_flops, now.input_gradient_flops, now.weight_gradient_flops), found.flop_percent


def wanted(*shape: int) -> Tensor:
    return torch.ones(*shape, requires_grad=True)


# A model, its example, and the operations of forward, input gradient and weight gradient.
KERNELS: dict[str, tuple[nn.Module, tuple[Tensor, ...], tuple[int, int, int]]] = {
    # 2 × 2 samples × 25 places × 8 × 9 weights
    "depthwise": (nn.Conv2d(8, 8, 3, padding=1, groups=8), (wanted(2, 8, 5, 5),), (7200, 7200, 7200)),
    "strided": (nn.Conv2d(4, 6, 3, stride=2), (wanted(1, 4, 7, 7),), (3888, 3888, 3888)),
    "dilated in one dimension": (nn.Conv1d(2, 3, 3, dilation=2), (torch.ones(1, 2, 10),), (216, 0, 216)),
    # 2 × 2 samples × 9 places of the input × 8 × 2 × 4 weights
    "transposed in groups": (nn.ConvTranspose2d(8, 4, 2, stride=2, groups=2), (wanted(2, 8, 3, 3),), (2304,) * 3),
    "linear over many dimensions": (nn.Linear(4, 5), (torch.ones(2, 3, 4),), (240, 0, 240)),
    "batched product": (Product(), (wanted(2, 4, 5),), (240, 240, 240)),
    # 5 steps × 2 samples, 4 gates of 16 from 8 and from 16
    "lstm": (nn.LSTM(8, 16), (wanted(5, 2, 8),), (30720, 30720, 30720)),
    # 3 gates; the state before the first step needs no gradient
    "gru": (nn.GRU(8, 16), (wanted(5, 2, 8),), (23040, 19968, 23040)),
    # 8 rows, of which 6 come after another one
    "packed lstm": (Packed(), (torch.ones(2, 5, 8), torch.tensor([5, 3])), (24576, 12288, 24576)),
}


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_needs_these_operations(name: str) -> None:
    model, example, expected = KERNELS[name]
    assert flops(model, *example)[0] == expected


def test_attention_on_a_processor_computes_its_scores_twice() -> None:
    """Two products forward, four backward and the scores again: 2 × 2 samples × 4 heads × 25 scores × 8 each."""
    query, key, value = (wanted(2, 4, 5, 8) for _ in range(3))
    assert flops(Attention(), query, key, value) == ((6400, 16000, 0), pytest.approx(100 * 6 / 7))
    assert flops(Attention(), query, key, torch.ones(2, 4, 5, 8))[0] == (6400, 16000, 0)


def test_a_frozen_lstm_computes_gradients_that_nobody_wants() -> None:
    lstm = nn.LSTM(8, 16)
    ft.freeze(lstm)
    assert flops(lstm, wanted(5, 2, 8)) == ((30720, 30720, 30720), pytest.approx(100 * 2 / 3))


def test_a_layer_that_runs_as_one_kernel_is_counted() -> None:
    """In a frozen prefix ``nn.TransformerEncoderLayer`` is one kernel for all of it."""
    layers = [nn.TransformerEncoderLayer(16, 4, 32, batch_first=True) for _ in range(2)]
    ft.freeze(layers[0])
    found = ft.cost(nn.Sequential(*layers), torch.ones(2, 5, 16))
    of_layer = 2 * 10 * (4 * 16 * 16 + 2 * 16 * 32) + 4 * 2 * 5 * 5 * 16
    assert sum(unit.now.forward_flops for unit in found.units if unit.path.startswith("0")) == of_layer
    assert found.now.forward_flops == 2 * of_layer


def test_what_is_computed_again_is_counted_again() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            below = self.first(x)
            return torch.utils.checkpoint.checkpoint(lambda x: self.second(x).relu(), below, use_reentrant=False)

    # Of each product 96; the second is done again, and its input gradient is needed.
    assert flops(Block(), torch.ones(3, 4)) == ((288, 96, 192), pytest.approx(100 * 5 / 6))


def test_a_gradient_that_only_a_hook_asks_for_is_not_in_the_limit() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    ft.freeze(model, "0", "1")
    # As libraries for adapters do, so that reentrant checkpoints see a gradient.
    model[0].register_forward_hook(lambda module, args, output: output.requires_grad_(True))
    found = ft.cost(model, torch.zeros(3, dtype=torch.long))
    assert (found.now.input_gradient_flops, found.limit.input_gradient_flops) == (192, 0)
    assert (found.now.weight_gradient_flops, found.limit.weight_gradient_flops) == (96, 96)


def test_experts_in_groups_cost_the_same_in_every_floating_type() -> None:
    class Experts(nn.Module):
        def __init__(self, dtype: torch.dtype) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 16, 8, dtype=dtype))

        def forward(self, rows: Tensor, ends: Tensor) -> Tensor:
            return torch._grouped_mm(rows, self.weight, offs=ends)

    ends = torch.tensor([2, 4], dtype=torch.int32)
    for dtype in (torch.float32, torch.bfloat16):
        rows = torch.ones(4, 16, dtype=dtype, requires_grad=True)
        found = ft.cost(Experts(dtype), rows, ends, loss=torch.square).now
        each = 2 * 4 * 16 * 8
        assert (found.forward_flops, found.input_gradient_flops, found.weight_gradient_flops) == (each, each, each)
        assert found.gradient_bytes == 2 * 16 * 8 * dtype.itemsize
