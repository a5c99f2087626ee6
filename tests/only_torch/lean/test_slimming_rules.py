"""Each rule: gradients, once and twice over, are bitwise those of a plain call; and the rule is seen at work."""

import dataclasses
import re
from collections.abc import Callable
from math import isfinite
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frostline.torch._autograd import codecs as _codecs
from frostline.torch._autograd import reads as _reads
from frostline.torch._autograd.reads import LEAN_RULES, RULES, rules_by_kind
from frostline.torch._lean import slim as _slim
from frostline.torch._lean import slimming as _slimming
from only_torch.lean.slimmed import Through, agree


@pytest.fixture(autouse=True)
def _garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was dropped is not a number; memory that nobody has written to may by chance hold what was dropped."""
    unpack = _codecs.ShapeOnly.unpack
    monkeypatch.setattr(_codecs.ShapeOnly, "unpack", lambda self, kept: unpack(self, kept).fill_(float("nan")))


SPECIAL = (float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-45, -1e-45, 6.0, -1.0, 1.0, 3.0, -3.0, 0.5, -0.5)


def picture(*shape: int) -> Tensor:
    return torch.randn(shape)


def frozen(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(False)


def norm(kind: type[nn.Module], **options: bool) -> nn.Module:
    module = kind(3, **options)
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return module


CONVS = [
    (nn.Conv1d(3, 4, 3, padding="same"), picture(2, 3, 9)),
    (nn.Conv2d(3, 4, 3, stride=2, padding=1), picture(2, 3, 9, 9)),
    (nn.Conv2d(3, 4, 3, padding=2, padding_mode="circular"), picture(2, 3, 9, 9)),
    (nn.Conv2d(3, 3, 3, groups=3), picture(2, 3, 9, 9)),
    (nn.Conv2d(3, 4, 1, bias=False), picture(2, 3, 9, 9)),
    (nn.Conv2d(3, 4, 3, dilation=2), picture(3, 9, 9)),
    (nn.Conv3d(3, 4, 3), picture(2, 3, 5, 5, 5)),
    (nn.ConvTranspose1d(3, 4, 3), picture(2, 3, 9)),
    (nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=1), picture(2, 3, 9, 9)),
    (nn.ConvTranspose3d(3, 4, 3), picture(2, 3, 5, 5, 5)),
]

NORMS = [
    (norm(nn.BatchNorm1d), picture(4, 3, 9)),
    (norm(nn.BatchNorm2d), picture(4, 3, 9, 9)),
    (norm(nn.BatchNorm2d, affine=False), picture(4, 3, 9, 9)),
    (norm(nn.BatchNorm3d), picture(2, 3, 4, 4, 4)),
    (norm(nn.InstanceNorm2d, affine=True, track_running_stats=True), picture(4, 3, 9, 9)),
]

FUNCTIONS: list[tuple[str, Callable[..., Tensor]]] = [
    ("ReluBackward0.result", F.relu),
    ("ReluBackward0.result", lambda x: F.relu(x * 1, inplace=True)),
    ("LeakyReluBackward0.self", lambda x: F.leaky_relu(x, 0.2)),
    ("LeakyReluBackward0.self", lambda x: F.rrelu(F.leaky_relu(x, 0.2), training=False)),
    ("LeakyReluBackward1.result", lambda x: F.leaky_relu(x * 1, 0.2, inplace=True)),
    ("PreluKernelBackward0.self", lambda x: F.prelu(x, torch.tensor([0.25], dtype=x.dtype))),
    ("HardtanhBackward0.self", F.relu6),
    ("HardtanhBackward0.self", lambda x: F.relu6(x * 1, inplace=True)),
    ("HardtanhBackward0.self", lambda x: F.hardtanh(x, -0.5, 1.0)),
    ("HardtanhBackward0.self", lambda x: F.hardtanh(x, -3.0, -1.0)),
    ("HardsigmoidBackward0.self", F.hardsigmoid),
    ("ThresholdBackward0.self", lambda x: F.threshold(x, 0.5, 7.0)),
    ("ThresholdBackward1.self", lambda x: F.threshold(x * 1, -1.0, 7.0, inplace=True)),
    ("ClampBackward1.self", lambda x: x.clamp(-0.5, 1.0)),
    ("ClampBackward1.self", lambda x: x.clamp(0, 6)),
    ("ClampBackward1.self", lambda x: x.clamp(min=1.0)),
    ("ClampBackward1.self", lambda x: x.clamp(max=-1.0)),
    ("ClampMinBackward0.self", lambda x: x.clamp_min(0)),
    ("ClampMaxBackward0.self", lambda x: x.clamp_max(0.5)),
]

SHAPED: list[tuple[str, Callable[..., Tensor], Tensor]] = [
    ("MaxPool2DWithIndicesBackward0.self", lambda x: F.max_pool1d(x, 2), picture(2, 3, 8)),
    ("MaxPool2DWithIndicesBackward0.self", lambda x: F.max_pool2d(x, 3, 2, 1), picture(2, 3, 9, 9)),
    ("MaxPool2DWithIndicesBackward0.result1", lambda x: F.max_pool2d(x, 3, 2, 1), picture(2, 3, 9, 9)),
    ("MaxPool2DWithIndicesBackward0.result1", lambda x: F.max_pool2d(x, 9, 9), picture(1, 1, 200, 200)),
    ("MaxPool3DWithIndicesBackward0.self", lambda x: F.max_pool3d(x, 2), picture(2, 3, 4, 4, 4)),
    ("MaxPool3DWithIndicesBackward0.result1", lambda x: F.max_pool3d(x, 2), picture(2, 3, 4, 4, 4)),
    ("AdaptiveMaxPool2DBackward0.self", lambda x: F.adaptive_max_pool2d(x, 3), picture(2, 3, 9, 9)),
    ("AdaptiveMaxPool2DBackward0.result1", lambda x: F.adaptive_max_pool1d(x, 3), picture(2, 3, 9)),
    ("AdaptiveMaxPool3DBackward0.self", lambda x: F.adaptive_max_pool3d(x, 2), picture(2, 3, 4, 4, 4)),
    ("AdaptiveMaxPool3DBackward0.result1", lambda x: F.adaptive_max_pool3d(x, 2), picture(2, 3, 4, 4, 4)),
    ("FractionalMaxPool2DBackward0.self", lambda x: F.fractional_max_pool2d(x, 2, 4), picture(2, 3, 9, 9)),
    ("FractionalMaxPool2DBackward0.result1", lambda x: F.fractional_max_pool2d(x, 2, 4), picture(2, 3, 9, 9)),
    ("FractionalMaxPool3DBackward0.self", lambda x: F.fractional_max_pool3d(x, 2, 2), picture(2, 3, 4, 4, 4)),
    ("FractionalMaxPool3DBackward0.result1", lambda x: F.fractional_max_pool3d(x, 2, 2), picture(2, 3, 4, 4, 4)),
    ("AvgPool2DBackward0.self", lambda x: F.avg_pool1d(x, 2), picture(2, 3, 8)),
    ("AvgPool2DBackward0.self", lambda x: F.avg_pool2d(x, 3, 2, 1), picture(2, 3, 9, 9)),
    ("AvgPool3DBackward0.self", lambda x: F.avg_pool3d(x, 2), picture(2, 3, 4, 4, 4)),
    ("AdaptiveAvgPool2DBackward0.self", lambda x: F.adaptive_avg_pool2d(x, 3), picture(2, 3, 9, 9)),
    ("AdaptiveAvgPool3DBackward0.self", lambda x: F.adaptive_avg_pool3d(x, 2), picture(2, 3, 4, 4, 4)),
    *[
        (f"{kind}Pad{rank}DBackward0.self", lambda x, m=m: F.pad(x, (1, 2) * (x.dim() - 2), m), picture(2, 3, *size))
        for kind, m in (("Reflection", "reflect"), ("Replication", "replicate"))
        for rank, size in ((1, (5,)), (2, (5, 5)), (3, (5, 5, 5)))
    ],
]

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("layer", "x"), CONVS, ids=[str(row[0]) for row in CONVS])
def test_a_frozen_convolution_forgets_its_input(layer: nn.Module, x: Tensor, dtype: torch.dtype) -> None:
    assert agree(frozen(layer).to(dtype), x.to(dtype)) == {"ConvolutionBackward0.input": 1}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("layer", "x"), NORMS, ids=[str(row[0]) for row in NORMS])
def test_a_frozen_norm_forgets_its_input(layer: nn.Module, x: Tensor, dtype: torch.dtype) -> None:
    assert agree(frozen(layer).to(dtype), x.to(dtype)) == {"NativeBatchNormBackward0.input": 1}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "function"), FUNCTIONS, ids=[f"{i} {row[0]}" for i, row in enumerate(FUNCTIONS)])
def test_an_activation_keeps_a_byte_an_element(name: str, function: Callable[..., Tensor], dtype: torch.dtype) -> None:
    x = torch.cat([torch.randn(100), torch.tensor([v for v in SPECIAL if isfinite(v)])]).to(dtype)
    assert agree(Through(lambda x: function(x) * 2), x, second=not name.startswith("Hardsigmoid")).get(name) == 1


@pytest.mark.parametrize(("name", "function"), FUNCTIONS, ids=[f"{i} {row[0]}" for i, row in enumerate(FUNCTIONS)])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_an_activation_that_is_not_a_number_has_the_same_gradient(
    name: str, function: Callable[..., Tensor], size: int
) -> None:
    x = torch.tensor(SPECIAL * size)[: size * 9]
    agree(Through(lambda x: function(x) * 2), x, second=not name.startswith("Hardsigmoid"))


@pytest.mark.parametrize(("name", "function", "x"), SHAPED, ids=[f"{i} {row[0]}" for i, row in enumerate(SHAPED)])
def test_a_pool_or_padding_keeps_no_values(name: str, function: Callable[..., Tensor], x: Tensor) -> None:
    assert agree(Through(function), x).get(name) == 1


def test_channels_last_stays_channels_last() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 1))
    model = frozen(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = agree(model, picture(2, 3, 9, 9).to(memory_format=torch.channels_last))
    assert sum(found.values()) == 6


def test_the_noise_of_a_dropout_is_kept_as_bytes() -> None:
    model = nn.Sequential(nn.Dropout(0.3), nn.Conv2d(3, 3, 1).requires_grad_(False))
    assert agree(model, picture(2, 3, 5, 5)) == {"MulBackward0.other": 1, "ConvolutionBackward0.input": 1}


def test_a_factor_that_a_hook_brings_is_no_noise() -> None:
    model = nn.Sequential(nn.Dropout(0.3), nn.Conv2d(3, 3, 1).requires_grad_(False))
    model[0].register_forward_hook(lambda module, args, y: y * torch.linspace(1, 2, 5))
    assert agree(model, picture(2, 3, 5, 5)) == {"ConvolutionBackward0.input": 1}


def test_a_factor_before_a_dropout_is_no_noise() -> None:
    layers = nn.Dropout(0.3), nn.Conv2d(3, 3, 1).requires_grad_(False)
    found = agree(Through(lambda x: x * torch.linspace(1, 2, 5), *layers), picture(2, 3, 5, 5))
    assert found == {"MulBackward0.other": 1, "ConvolutionBackward0.input": 1}


TRAINABLE = [
    (nn.Conv2d(3, 4, 3), picture(2, 3, 9, 9)),
    (nn.ConvTranspose2d(3, 4, 3), picture(2, 3, 9, 9)),
    (nn.BatchNorm2d(3).eval(), picture(2, 3, 9, 9)),
    (nn.BatchNorm2d(3).requires_grad_(False), picture(2, 3, 9, 9)),
    (nn.BatchNorm2d(3, track_running_stats=False).requires_grad_(False).eval(), picture(2, 3, 9, 9)),
    (nn.PReLU(), picture(2, 3, 9, 9)),
    (nn.GroupNorm(1, 3).requires_grad_(False), picture(2, 3, 9, 9)),
    (nn.GELU(), picture(2, 3, 9, 9)),
]


@pytest.mark.parametrize(("layer", "x"), TRAINABLE, ids=[str(row[0]) for row in TRAINABLE])
def test_what_a_gradient_reads_is_kept(layer: nn.Module, x: Tensor) -> None:
    assert agree(Through(lambda x: x * 1, layer), x) == {}


def test_a_frozen_weight_under_a_trainable_bias_is_enough() -> None:
    layer = nn.Conv2d(3, 4, 3)
    layer.weight.requires_grad_(False)
    assert agree(layer, picture(2, 3, 9, 9)) == {"ConvolutionBackward0.input": 1}


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.7), (-0.3, 0.9)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_bound_that_a_small_type_would_round_is_left_alone(low: float, high: float, dtype: torch.dtype) -> None:
    x = torch.cat([torch.linspace(-1, 1, 999), torch.tensor([low, high])]).to(dtype)
    assert agree(Through(lambda x: F.hardtanh(x, low, high) * 2), x) == {}
    assert agree(Through(lambda x: F.hardtanh(x, 0.125, 0.75) * 2), x) == {"HardtanhBackward0.self": 1}


def test_bounds_with_nothing_between_them_are_left_alone() -> None:
    assert agree(Through(lambda x: x.clamp(1.0, 1.0) * 2), picture(9)) == {}
    assert agree(Through(lambda x: x.clamp(2.0, 1.0) * 2), picture(9)) == {}
    assert agree(Through(lambda x: F.threshold(x, float("inf"), 0.0) * 2), picture(9)) == {}


# Wrong on purpose: each is seen by the comparison that the tests above rely on.
MUTANTS = [
    ("a mask of NaN", "NonZeroMask", lambda self, x: (x > 0, x.dtype), F.relu, torch.tensor([float("nan"), 1.0, -1.0])),
    ("a mask with zero", "NonZeroMask", lambda self, x: (x >= 0, x.dtype), F.relu, torch.tensor([0.0, 1.0, -1.0])),
    (
        "a slope at zero",
        "PositiveMask",
        lambda self, x: (x >= 0, x.dtype),
        F.leaky_relu,
        torch.tensor([0.0, 1.0, -1.0]),
    ),
    (
        "a clip at its bound",
        "ClippedMask",
        lambda self, x: (x <= self.high, x.dtype),
        F.relu6,
        torch.tensor([6.0, 1.0]),
    ),
    ("an index", "SmallIndex", lambda self, x: x * 0, lambda x: F.max_pool1d(x, 2), torch.arange(8.0).reshape(1, 1, 8)),
]


@pytest.mark.parametrize(("codec", "pack", "function", "x"), [m[1:] for m in MUTANTS], ids=[m[0] for m in MUTANTS])
def test_a_wrong_codec_is_seen(
    codec: str, pack: Any, function: Callable[..., Tensor], x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    agree(Through(lambda x: function(x) * 2), x)
    monkeypatch.setattr(getattr(_codecs, codec), "pack", pack)
    with pytest.raises(AssertionError):
        agree(Through(lambda x: function(x) * 2), x)


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(3).requires_grad_(False)], ids=str)
def test_a_rule_that_holds_too_often_is_seen(layer: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    always = {"input": lambda node, wants, call: _reads.SHAPE}
    careless = {kind: dataclasses.replace(rule, tensors=always) for kind, rule in _slim.LEAN_KNOWN.items()}
    monkeypatch.setattr(_slim, "LEAN_KNOWN", careless)
    with pytest.raises(AssertionError):
        agree(layer, picture(2, 3, 9, 9))


def test_every_rule_is_tested_here() -> None:
    tested = {name.split(".")[0] for name, *_ in (*FUNCTIONS, *SHAPED)}
    elsewhere = {"ConvolutionBackward0", "NativeBatchNormBackward0", "MulBackward0"}
    on_a_gpu = {"CudnnBatchNormBackward0", "MiopenBatchNormBackward0"}  # their gradient calls the one that is tested
    assert {name for rule in LEAN_RULES for name in rule.nodes} == tested | elsewhere | on_a_gpu


def test_this_release_lacks_no_name() -> None:
    assert _reads.MISSING == []
    known, missing = rules_by_kind(RULES, torch._C._functions, torch._C._autograd.SavedTensor)
    assert (known, missing) == (_reads.KNOWN, [])


def test_a_rule_that_goes_by_a_missing_name_is_left_out() -> None:
    class Renamed:
        _raw_saved_outcome = _saved_outcome = None

    class Nodes:
        ReluBackward0 = Renamed
        ConvolutionBackward0 = torch._C._functions.ConvolutionBackward0

    known, missing = rules_by_kind([RULES[0], RULES[2], RULES[3]], Nodes, torch._C._autograd.SavedTensor)
    assert known == {Nodes.ConvolutionBackward0: RULES[0]}
    assert missing == ["ReluBackward0._raw_saved_result", "ReluBackward0._saved_result", "LeakyReluBackward0"]


def test_without_a_way_to_see_a_hook_nothing_is_done() -> None:
    class SavedTensor:
        register_hooks = None

    assert rules_by_kind(RULES, torch._C._functions, SavedTensor) == (
        {},
        ["SavedTensor.data", "SavedTensor.unpack_hook"],
    )


def test_missing_names_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_slimming, "MISSING", ["ReluBackward9"])
    monkeypatch.setattr(torch, "__version__", "9.0")
    text = "PyTorch 9.0 has no ReluBackward9. Tensors with these names are saved as before."
    with pytest.warns(UserWarning, match=f"^{re.escape(text)}$"):
        _slimming.attach(nn.ReLU())
    _slimming.attach(nn.ReLU())  # a warning is an error here
