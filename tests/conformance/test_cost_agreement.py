"""The cost of a step agrees in PyTorch and in JAX; every number was computed by hand."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import optax
import pytest
import torch
from torch import nn

import frostline.jax as fj
import frostline.torch as ft
from conformance.twins import Twins
from frostline._core.reporting.bill import Bill, Culprit
from frostline._core.reporting.cost import Cost

SETS = {
    "mlp": {
        "nothing": (),
        "prefix": ("first", "second"),
        "middle": ("second", "third"),
        "suffix": ("third", "last"),
        "scattered": ("first", "third.weight", "last.bias"),
        "alternating": ("first", "third"),
    },
    "attention": {
        "nothing": (),
        "prefix": ("one",),
        "middle": ("one.o", "two.{q,k,v}"),
        "suffix": ("two",),
        "scattered": ("one.{q,k}", "two.v", "two.o.weight"),
    },
}
SETS["conv"] = SETS["mlp"]

# Operations forward, for input gradients and for weight gradients; bytes of gradients.
#
# mlp: 16 samples, 4 -> 8 -> 8 -> 8 -> 2. A layer has 2 · 16 · in · out operations: 1024, 2048, 2048, 512; and
# (in + 1) · out numbers: 40, 72, 72, 18. The first layer never has an input gradient.
#
# conv: 2 pictures of 8 x 8, 3 -> 4 channels; pooled to 4 x 4, 4 -> 8; 8 -> 8 with a stride of 2; 8 -> 2. A kernel has
# 2 · 2 · places · out · in · 9 operations: 2·2·64·4·27 = 27648, 2·2·16·8·36 = 18432, 2·2·4·8·72 = 9216; the last layer
# 2·2·8·2 = 64. Numbers: 112, 296, 584, 18.
#
# attention: 2 · 4 rows of 8, 2 heads of 4, two blocks. A projection has 2 · 8 · 8 · 8 = 1024 operations and 72 numbers;
# the scores 2 · (2 · 2 · 4 · 4) · 4 = 512 and the mixing 512. A block: 4 · 1024 + 2 · 512 = 5120. Its products of
# activations have two input gradients each: 2048. q, k, v of the first block get none for the input.
WORK = {
    ("mlp", "nothing"): ((5632, 2048 + 2048 + 512, 5632), 4 * 202),
    ("mlp", "prefix"): ((5632, 512, 2048 + 512), 4 * (72 + 18)),
    ("mlp", "middle"): ((5632, 2048 + 2048 + 512, 1024 + 512), 4 * (40 + 18)),
    ("mlp", "suffix"): ((5632, 2048 + 2048 + 512, 1024 + 2048), 4 * (40 + 72)),
    ("mlp", "scattered"): ((5632, 2048 + 512, 2048 + 512), 4 * (72 + 8 + 16)),
    ("mlp", "alternating"): ((5632, 2048 + 512, 2048 + 512), 4 * (72 + 18)),
    ("conv", "nothing"): ((55360, 18432 + 9216 + 64, 55360), 4 * 1010),
    ("conv", "prefix"): ((55360, 64, 9216 + 64), 4 * (584 + 18)),
    ("conv", "middle"): ((55360, 18432 + 9216 + 64, 27648 + 64), 4 * (112 + 18)),
    ("conv", "suffix"): ((55360, 18432 + 9216 + 64, 27648 + 18432), 4 * (112 + 296)),
    ("conv", "scattered"): ((55360, 9216 + 64, 18432 + 64), 4 * (296 + 8 + 16)),
    ("attention", "nothing"): ((10240, 2048 + 1024 + 3072 + 2048 + 1024, 8192), 4 * 8 * 72),
    ("attention", "prefix"): ((10240, 2048 + 1024, 4096), 4 * 4 * 72),
    ("attention", "middle"): ((10240, 9216, 3072 + 1024), 4 * 4 * 72),
    ("attention", "suffix"): ((10240, 9216, 4096), 4 * 4 * 72),
    # One, in which q and k are still: mixing for v alone, and o.
    ("attention", "scattered"): ((10240, 512 + 1024 + 3072 + 2048 + 1024, 4096), 4 * (4 * 72 + 8)),
}

# Bytes kept for backward, and the least of them, in PyTorch and in JAX. They differ by design.
#
# PyTorch keeps the input of the model (256 bytes in mlp, 1536 in conv, 256 in attention), what ReLU returns and the
# next layer reads is one tensor, and a frozen layer's ReLU keeps it as a whole. At the limit a mask is one bit a
# number, a position in a pooling window two. JAX keeps arguments where they are and counts them not; it keeps a mask
# of bytes beside what ReLU returns, what a pooling reads, and transposed copies of the weights that pass a gradient on.
#
# mlp: x 256, relu 512 (a mask of 64 numbers in bits: 16, in bytes: 128), transposed weights 256, 256, 64.
# conv: x 1536, relu 2048, 1024, 256 (in bits 64, 32, 8; in bytes 512, 256, 64), pooled 512, positions 1024 (in bits
# 32), mean 64, transposed weight 64.
# attention, a block: x, q, k, v, probabilities and mixed 256 each; in JAX also the exponentials, their sums and the
# inverse of those 256 + 64 + 64 (the last two are made again at the limit), and transposed weights 256 each.
SAVED = {
    ("mlp", "nothing"): ((256 + 3 * 512, 1792), (3 * (512 + 128) + 576, 3 * (512 + 16) + 576)),
    ("mlp", "prefix"): ((2 * 512, 2 * 512), (2 * 512 + 128 + 64, 2 * 512 + 16 + 64)),
    ("mlp", "middle"): ((256 + 3 * 512, 256 + 512 + 2 * 16), (512 + 3 * 128 + 576, 512 + 3 * 16 + 576)),
    ("mlp", "suffix"): ((256 + 3 * 512, 256 + 512 + 2 * 16), (512 + 3 * 128 + 576, 512 + 3 * 16 + 576)),
    ("mlp", "scattered"): ((3 * 512, 2 * 512 + 16), (2 * (512 + 128) + 320, 2 * (512 + 16) + 320)),
    ("mlp", "alternating"): ((3 * 512, 2 * 512 + 16), (2 * (512 + 128) + 320, 2 * (512 + 16) + 320)),
    ("conv", "nothing"): ((6464, 1536 + 512 + 1024 + 64 + 64 + 8 + 32), (3648 + 832 + 64, 3648 + 104 + 64)),
    ("conv", "prefix"): ((1024 + 256 + 64, 1024 + 8 + 64), (1024 + 64 + 64 + 64, 1024 + 8 + 64 + 64)),
    ("conv", "middle"): ((6464, 1536 + 64 + 104 + 32), (2048 + 832 + 64 + 64, 2048 + 104 + 64 + 64)),
    ("conv", "suffix"): ((6464 - 64, 1536 + 512 + 104 + 32), (2048 + 512 + 832 + 64, 2048 + 512 + 104 + 64)),
    ("conv", "scattered"): ((512 + 1024 + 256 + 64, 512 + 32 + 8 + 64), (512 + 320 + 64 + 64, 512 + 40 + 64 + 64)),
    ("attention", "nothing"): ((12 * 256, 12 * 256), (18 * 256 + 256, 18 * 256)),
    ("attention", "prefix"): ((6 * 256, 6 * 256), (8 * 256 + 128, 8 * 256)),
    ("attention", "middle"): ((10 * 256, 10 * 256), (16 * 256 + 256, 16 * 256)),
    ("attention", "suffix"): ((10 * 256, 10 * 256), (16 * 256 + 256, 16 * 256)),
    ("attention", "scattered"): ((8 * 256, 8 * 256), (13 * 256 + 128, 13 * 256)),
}

# What forces a gradient through frozen units: the paths, the operations of the chain, and of a step without them.
CULPRITS = {
    # second and third pass it on, 2048 each; 11776 in all, less the chain, the last one's 512 and the first one's 1024.
    ("mlp", "middle"): (("first.weight", "first.bias"), 2 * 2048, 11776 - 4096 - 512 - 1024),
    # 10752 in all, less the chain, the last one's 512 and the second one's 2048.
    ("mlp", "alternating"): (("second.weight", "second.bias"), 2048, 10752 - 2048 - 512 - 2048),
    # third's bias trains, and needs the last one's 512 anyway: 10752 less the chain and the second one's 2048.
    ("mlp", "scattered"): (("second.weight", "second.bias"), 2048, 10752 - 2048 - 2048),
    # The same: 83136 less the chain and the second one's 18432.
    ("conv", "scattered"): (("second.weight", "second.bias"), 9216, 83136 - 9216 - 18432),
    # 110784 in all, less the chain, the last one's 64 and the first one's 27648.
    ("conv", "middle"): (("first.weight", "first.bias"), 18432 + 9216, 110784 - 27648 - 64 - 27648),
    # In the first block 2048 and o's 1024, in the second 3072 and 2048; 23552 in all, less the chain, the second o's
    # 1024 and the weights' 3072.
    ("attention", "middle"): (
        tuple(f"one.{name}.{part}" for name in "qkv" for part in ("weight", "bias")),
        2048 + 1024 + 3072 + 2048,
        23552 - 8192 - 1024 - 3072,
    ),
}
FIXES = {
    ("mlp", "middle"): "first",
    ("mlp", "alternating"): "second",
    ("mlp", "scattered"): "second",
    ("conv", "scattered"): "second",
    ("conv", "middle"): "first",
    ("attention", "middle"): "one",
}

each = pytest.mark.parametrize(("net", "frozen"), WORK, ids=["-".join(key) for key in WORK])
accused = pytest.mark.parametrize(("net", "frozen"), CULPRITS, ids=["-".join(key) for key in CULPRITS])


@cache
def costs(net: str, frozen: str) -> tuple[Cost, Cost]:
    twins = Twins.of(net, *SETS[net][frozen])
    ours = ft.cost(twins.model, twins.tensor, optimizer=torch.optim.AdamW)
    return ours, fj.cost(twins.fn, twins.tree, twins.array, tx=optax.adamw(1e-3))


def shared(bill: Bill) -> tuple[tuple[int, int, int], int, int]:
    flops = bill.forward_flops, bill.input_gradient_flops, bill.weight_gradient_flops
    return flops, bill.gradient_bytes, bill.optimizer_bytes


@each
def test_work_gradients_and_optimizer(net: str, frozen: str) -> None:
    flops, gradients = WORK[net, frozen]
    of_all, all_gradients = WORK[net, "nothing"]
    for found in costs(net, frozen):
        # AdamW keeps two numbers for one of the model.
        assert shared(found.now) == (flops, gradients, 2 * gradients)
        assert shared(found.limit) == shared(found.now)
        assert shared(found.all_trained) == (of_all, all_gradients, 2 * all_gradients)
        assert found.flop_percent == 100


@each
def test_kept_bytes_are_those_of_each_framework(net: str, frozen: str) -> None:
    bytes_of = [(found.now.saved_bytes, found.limit.saved_bytes) for found in costs(net, frozen)]
    assert tuple(bytes_of) == SAVED[net, frozen]


@accused
def test_the_culprit_is_the_same(net: str, frozen: str) -> None:
    paths, chain, without = CULPRITS[net, frozen]
    for found, fix in zip(costs(net, frozen), ("ft.freeze(model, {})", "tree = fj.freeze(tree, {})"), strict=True):
        named = fix.format(f'"{FIXES[net, frozen]}"')
        assert found.culprit == Culprit(paths, chain, sum(WORK[net, frozen][0]), without, named)


@pytest.mark.parametrize("frozen", ["nothing", "prefix", "suffix"])
@pytest.mark.parametrize("net", SETS)
def test_neither_has_a_culprit(net: str, frozen: str) -> None:
    assert [found.culprit for found in costs(net, frozen)] == [None, None]


@accused
def test_the_predicted_cost_without_the_culprit_is_right(net: str, frozen: str) -> None:
    """With the culprit frozen the cost is as predicted, and there is no other culprit."""
    _, _, without = CULPRITS[net, frozen]
    twins = Twins.of(net, *SETS[net][frozen], FIXES[net, frozen])
    found = ft.cost(twins.model, twins.tensor), fj.cost(twins.fn, twins.tree, twins.array)
    assert [(each.now.flops, each.culprit) for each in found] == [(without, None)] * 2


def test_neither_counts_step_counters() -> None:
    """A state has a step counter: in PyTorch 4 bytes for each parameter, in Optax 4 bytes in all."""
    twins = Twins.of("mlp", "first", "second")
    optimizer = torch.optim.AdamW(ft.trainable(twins.model).values())
    twins.model(twins.tensor).sum().backward()
    optimizer.step()
    kept = [tensor.nbytes for state in optimizer.state.values() for tensor in state.values()]
    held = [leaf.nbytes for leaf in jax.tree.leaves(optax.adamw(1e-3).init(fj.split(twins.tree)[0]))]
    # The third layer has 72 numbers, the last one 18; four parameters.
    assert (sum(kept), sum(held)) == (2 * 4 * 90 + 4 * 4, 2 * 4 * 90 + 4)
    assert [found.now.optimizer_bytes for found in costs("mlp", "prefix")] == [2 * 4 * 90] * 2


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


def test_a_parameter_with_one_element_is_not_taken_for_a_counter() -> None:
    """AdamW also keeps two numbers for a scale without dimensions."""
    ours = ft.cost(Scale(), torch.ones(3), optimizer=torch.optim.AdamW)
    theirs = fj.cost(lambda tree, x: x * tree["scale"], {"scale": jnp.array(2.0)}, jnp.ones(3), tx=optax.adamw(1e-3))
    assert (shared(ours.now), shared(theirs.now)) == (((0, 0, 0), 4, 8),) * 2
