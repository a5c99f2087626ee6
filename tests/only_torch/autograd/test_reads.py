"""The table of reads: under every rule, dtype and memory format, the limit is never above the bytes that are kept."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frostline.torch._autograd import codecs as _codecs
from frostline.torch._autograd import reads as _reads
from frostline.torch._autograd.reads import LEAN_RULES, Form, ModuleCall, SavedTensorRule
from frostline.torch._autograd.saved import saving
from frostline.torch._cost import limit as _limit
from frostline.torch._cost.limit import graph, least_saved
from frostline.torch._lean import slim as _slim
from only_torch.bits import bits

# A CPU has no kernel for these; they claim nothing there.
NO_KERNEL = {("AvgPool3DBackward0", torch.bfloat16), ("AvgPool3DBackward0", torch.float16)}
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def picture(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


IMAGE, VOLUME, ROW = (2, 4, 8, 8), (2, 4, 6, 6, 6), (2, 4, 9)
STATISTICS = picture(4).abs() + 0.5, picture(4).abs() + 0.5

# Node, the call that makes it, and the shapes of its arguments, each of which may want a gradient.
CASES: dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = {
    "ConvolutionBackward0": (lambda x, w, b: F.conv2d(x, w, b), (IMAGE, (3, 4, 3, 3), (3,))),
    "NativeBatchNormBackward0": (
        lambda x, w, b: F.batch_norm(x, *(s.to(x.dtype) for s in STATISTICS), w, b),
        (IMAGE, (4,), (4,)),
    ),
    "ReluBackward0": (F.relu, (IMAGE,)),
    "LeakyReluBackward0": (lambda x: F.leaky_relu(x, 0.2), (IMAGE,)),
    "LeakyReluBackward1": (lambda x: F.leaky_relu(x * 1, 0.2, inplace=True), (IMAGE,)),
    "PreluKernelBackward0": (lambda x, w: F.prelu(x, w), (IMAGE, (4,))),
    "HardtanhBackward0": (F.relu6, (IMAGE,)),
    "HardsigmoidBackward0": (F.hardsigmoid, (IMAGE,)),
    "ThresholdBackward0": (lambda x: F.threshold(x, 0.5, 7.0), (IMAGE,)),
    "ThresholdBackward1": (lambda x: F.threshold(x * 1, 0.5, 7.0, inplace=True), (IMAGE,)),
    "ClampBackward1": (lambda x: x.clamp(-0.5, 1.0), (IMAGE,)),
    "ClampMinBackward0": (lambda x: x.clamp_min(0), (IMAGE,)),
    "ClampMaxBackward0": (lambda x: x.clamp_max(0.5), (IMAGE,)),
    "MaxPool2DWithIndicesBackward0": (lambda x: F.max_pool2d(x, 3, 2, 1), (IMAGE,)),
    "MaxPool3DWithIndicesBackward0": (lambda x: F.max_pool3d(x, 2), (VOLUME,)),
    "AdaptiveMaxPool2DBackward0": (lambda x: F.adaptive_max_pool2d(x, 3), (IMAGE,)),
    "AdaptiveMaxPool3DBackward0": (lambda x: F.adaptive_max_pool3d(x, 2), (VOLUME,)),
    "FractionalMaxPool2DBackward0": (
        lambda x: F.fractional_max_pool2d(x, 2, 4, _random_samples=torch.full((2, 4, 2), 0.5, dtype=x.dtype)),
        (IMAGE,),
    ),
    "FractionalMaxPool3DBackward0": (
        lambda x: F.fractional_max_pool3d(x, 2, 3, _random_samples=torch.full((2, 4, 3), 0.5, dtype=x.dtype)),
        (VOLUME,),
    ),
    "AvgPool2DBackward0": (lambda x: F.avg_pool2d(x, 3, 2, 1), (IMAGE,)),
    "AvgPool3DBackward0": (lambda x: F.avg_pool3d(x, 2), (VOLUME,)),
    "AdaptiveAvgPool2DBackward0": (lambda x: F.adaptive_avg_pool2d(x, 3), (IMAGE,)),
    "AdaptiveAvgPool3DBackward0": (lambda x: F.adaptive_avg_pool3d(x, 2), (VOLUME,)),
    **{
        f"{kind}Pad{rank}DBackward0": (lambda x, m=mode: F.pad(x, (1, 2) * (x.dim() - 2), m), (shape,))
        for kind, mode in (("Reflection", "reflect"), ("Replication", "replicate"))
        for rank, shape in ((1, ROW), (2, IMAGE), (3, VOLUME))
    },
}
# cuDNN and MIOpen have their own batch norm; the noise of a dropout is known by its module alone.
ELSEWHERE = {"CudnnBatchNormBackward0", "MiopenBatchNormBackward0", "MulBackward0"}


def transposed(x: Tensor) -> Tensor:
    return x.transpose(-1, -2).contiguous().transpose(-1, -2) if x.dim() > 1 else x


def last(x: Tensor) -> Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.contiguous(memory_format=formats[x.dim()]) if x.dim() in formats else x


def expanded(x: Tensor) -> Tensor:
    return x[:1].expand(x.shape)


FORMATS = {"contiguous": lambda x: x, "transposed": transposed, "channels last": last, "expanded": expanded}


@pytest.fixture(autouse=True)
def _no_tensor_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_slim, "SMALL", 0)
    unpack = _codecs.ShapeOnly.unpack
    # Fresh memory may by chance hold the numbers that were dropped.
    monkeypatch.setattr(_codecs.ShapeOnly, "unpack", lambda self, kept: unpack(self, kept).fill_(float("nan")))


def measured(
    name: str, inputs: list[Tensor], wanted: tuple[int, ...], *, lean: bool
) -> tuple[int, int, list[Any], set]:
    """The bytes that are kept, the limit, the gradients, and the kinds of nodes."""
    for place, tensor in enumerate(inputs):
        tensor.requires_grad_(place in wanted)
    with saving(nn.Module()) as saved:
        made = CASES[name][0](*inputs)
        total = (made * 2).sum()
    if lean:
        results = frozenset(map(_slim.storage_of, [total]))
        _slim.slim(ModuleCall(nn.Module(), frozenset([total.grad_fn]), frozenset(), results))
    nodes = graph(total, {id(inputs[place]): place for place in wanted})
    least = sum(least_saved(nodes, saved.held, frozenset()).values())
    kinds = {type(node.function).__name__ for node in nodes.values()}
    kept = saved.nbytes
    return kept, least, [bits(g) for g in torch.autograd.grad(total, [inputs[place] for place in wanted])], kinds


def subsets(count: int) -> list[tuple[int, ...]]:
    return [some for size in range(1, count + 1) for some in combinations(range(count), size)]


def check(name: str, dtype: torch.dtype, how: str) -> list[tuple[int, int, int]]:
    """Returns limit, lean and plain for each set of wanted gradients; their order and equal gradients are asserted."""
    found = []
    for wanted in subsets(len(CASES[name][1])):
        inputs = [FORMATS[how](picture(*shape).to(dtype)).detach() for shape in CASES[name][1]]
        plain, least, gradients, kinds = measured(name, inputs, wanted, lean=False)
        assert name in kinds
        lean, least_lean, same, _ = measured(name, inputs, wanted, lean=True)
        assert max(least, least_lean) <= lean <= plain, (wanted, least, least_lean, lean, plain)
        assert same == gradients
        found.append((least, lean, plain))
    return found


@pytest.mark.parametrize("how", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_limit_is_at_most_what_lean_keeps_and_that_at_most_what_autograd_keeps(
    name: str, dtype: torch.dtype, how: str
) -> None:
    if (name, dtype) in NO_KERNEL:
        with pytest.raises(NotImplementedError, match="not implemented for"):
            check(name, dtype, how)
    else:
        check(name, dtype, how)


def test_every_rule_of_lean_has_a_case() -> None:
    assert {name for rule in LEAN_RULES for name in rule.nodes} - ELSEWHERE == set(CASES)


def test_lean_keeps_less_under_each_rule() -> None:
    kept = {name: check(name, torch.float32, "contiguous") for name in CASES}
    assert [name for name, found in kept.items() if all(lean == plain for _, lean, plain in found)] == []


@pytest.mark.parametrize("name", ["ReluBackward0", "ReflectionPad2DBackward0", "ConvolutionBackward0"])
def test_a_form_that_is_too_large_or_too_small_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a limit that forgets the rule, and a rule that drops what backward reads."""
    kind = getattr(torch._C._functions, name)
    rule = _reads.KNOWN[kind]
    monkeypatch.setattr(_limit, "KNOWN", {each: r for each, r in _reads.KNOWN.items() if each is not kind})
    with pytest.raises(AssertionError):
        check(name, torch.float32, "contiguous")
    monkeypatch.undo()
    if name == "ReflectionPad2DBackward0":
        return  # backward reads nothing of it
    careless = SavedTensorRule(rule.nodes, dict.fromkeys(rule.tensors, lambda *_: Form(0, _reads.SHAPE.choose)))
    monkeypatch.setattr(_slim, "SMALL", 0)
    monkeypatch.setattr(_slim, "LEAN_KNOWN", {**_reads.LEAN_KNOWN, kind: careless})
    unpack = _codecs.ShapeOnly.unpack
    monkeypatch.setattr(_codecs.ShapeOnly, "unpack", lambda self, kept: unpack(self, kept).fill_(float("nan")))
    with pytest.raises(AssertionError):
        check(name, torch.float32, "contiguous")
