"""The part below the line in another runtime: within the bound, of the same types, and never stale."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._inductor.config
from benchmarks.zoo import ZOO
from torch import Tensor, nn

import frostline.torch as ft
from frostline.errors import RuntimeChoiceError
from frostline.torch import frostline
from frostline.torch._runtime import candidates, int8
from frostline.torch._runtime.benchmark import off
from frostline.torch._runtime.record import RuntimeRecord, Trial
from only_torch.bits import bits, contents


def mlp() -> tuple[nn.Module, Tensor]:
    """Returns a perceptron of which all but the last layer is frozen, and its example."""
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
    ft.freeze(model, "[:3]")
    return model, torch.randn(6, 16)


def convolutions() -> tuple[nn.Module, Tensor]:
    """Returns convolutions with norms between them, frozen but for the head, and their example."""
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU())
    model = nn.Sequential(body, nn.Flatten(), nn.Linear(72, 2))
    ft.freeze(model, "[0]")
    return model, torch.randn(2, 3, 9, 9)


def transformer() -> tuple[nn.Module, Tensor]:
    model, (tokens,) = ZOO["bert"](small=True)
    ft.freeze(model, "embeddings", "layer[:2]")
    return model, tokens


def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(candidates.shutil, "which", lambda name: None)


INEXACT = "matrices of eight bits are not multiplied exactly here"


def refused_here(runtime: str | None, model: nn.Module, x: Tensor) -> bool:
    """Whether this processor has no exact product of eight bits for a runtime; then the runtime must be refused."""
    if runtime is None or "int8" not in runtime or int8.is_exact("cpu"):
        return False
    with pytest.raises(RuntimeChoiceError, match=f"cannot run the part below the line: {INEXACT}"):
        frostline(model, x, runtime=runtime)
    return True


CASES: list[tuple[str, Callable[[], tuple[nn.Module, Tensor]]]] = [
    ("bfloat16", convolutions),
    ("channels_last", convolutions),
    ("channels_last+bfloat16", convolutions),
    ("bfloat16", transformer),
    ("int8", transformer),
]


@pytest.mark.parametrize(("runtime", "make"), CASES, ids=[f"{name}, {make.__name__}" for name, make in CASES])
def test_a_runtime_gives_the_boundary_within_the_bound_and_touches_nothing(runtime: str, make: Any) -> None:
    model, x = make()
    if refused_here(runtime, model, x):
        return
    before = contents(model)
    (want,) = frostline(model, x).below(x)
    line = frostline(model, x, runtime=runtime)
    (got,) = line.below(x)
    assert (got.dtype, got.shape, got.stride()) == (want.dtype, want.shape, want.stride())
    assert not got.requires_grad
    assert off(got, want) <= 0.03
    assert runtime == "channels_last" or bits(got) != bits(want)
    assert line.runtime.picked == runtime
    # Another number of samples has a graph of its own, over the same weights.
    (alone,) = line.below(x[:1])
    assert off(alone, want[:1]) <= 0.03
    assert contents(model) == before


def test_a_part_without_weights_to_cast() -> None:
    model = nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 2))
    ft.freeze(model, "[0]")
    with pytest.raises(RuntimeChoiceError, match="no convolution and no linear map is below the line"):
        frostline(model, torch.zeros(2, 3, dtype=torch.long), runtime="bfloat16")


def test_bfloat16_is_bitwise_autocast() -> None:
    model, tokens = transformer()
    line = frostline(model, tokens, runtime="bfloat16")
    module = line._sides.module([tokens])
    assert module is not None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (want,) = module(tokens)
    assert bits(line.below(tokens)[0]) == bits(want.float())


def test_int8_computes_a_sample_by_itself() -> None:
    layer, x = int8.Int8Linear(torch.randn(8, 16), torch.randn(8)), torch.randn(4, 16)
    alone = layer(x[:1])
    x[1:] *= 1000
    assert bits(layer(x)[:1]) == bits(alone)


def test_int8_rounds_as_it_says() -> None:
    layer = int8.Int8Linear(torch.tensor([[127.0, -64.0], [0.0, 0.0]]), torch.tensor([0.5, 0.25]))
    assert layer.rounded.tolist() == [[127, 0], [-64, 0]]
    assert layer(torch.tensor([[1.0, 1.0], [0.0, 0.0]])).tolist() == [[63.5, 0.25], [0.5, 0.25]]


def saturating(left: Tensor, right: Tensor) -> Tensor:
    """Multiplies as oneDNN without VNNI: inputs made unsigned by adding 128, pairs of products added in 16 bits."""
    products = (left.int() + 128)[:, :, None] * right.int()
    pairs = products.unflatten(1, (-1, 2)).sum(2).clamp(-(2**15), 2**15 - 1)
    return pairs.sum(1) - 128 * right.int().sum(0)


def missing(left: Tensor, right: Tensor) -> Tensor:
    raise RuntimeError("not implemented")


@pytest.mark.parametrize("product", [saturating, missing])
def test_int8_needs_an_exact_product(product: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch, "_int_mm", product)
        int8.is_exact.cache_clear()
        assert not int8.is_exact("cpu")
        model, x = mlp()
        assert refused_here("int8", model, x)
        patched.setattr(torch, "_int_mm", lambda left, right: left.int() @ right.int())
        int8.is_exact.cache_clear()
        assert int8.is_exact("cpu")
    int8.is_exact.cache_clear()


def test_a_weight_that_an_embedding_reads_too_is_left_alone() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out, self.head = nn.Embedding(8, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 2)
            self.out.weight = self.embed.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(torch.relu(self.out(self.embed(tokens))))

    model = Tied()
    ft.freeze(model, "embed")
    with pytest.raises(RuntimeChoiceError, match="no convolution and no linear map is below the line"):
        frostline(model, torch.zeros(2, 3, dtype=torch.long), runtime="bfloat16")


@pytest.mark.parametrize("runtime", ["bfloat16", "int8", "auto"])
@pytest.mark.parametrize("how", ["in place", "load_state_dict", "assign", "data"])
def test_weights_that_change_are_cast_again(runtime: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiler(monkeypatch)
    model, x = mlp()
    if refused_here(runtime, model, x):
        return
    line = frostline(model, x, runtime=runtime)
    before, fingerprint = line.below(x)[0], line.fingerprint()
    twice = {name: 2 * tensor for name, tensor in model.state_dict().items()}
    if how == "in place":
        with torch.no_grad():
            model[0].weight.mul_(2)
    elif how == "data":
        model[0].weight.data = 2 * model[0].weight.data
    else:
        model.load_state_dict(twice, assign=how == "assign")
        ft.freeze(model, "[:3]")
    after = line.below(x)[0]
    assert off(after, frostline(model, x).below(x)[0]) <= 0.03
    assert off(after, before) > 0.1
    assert line.fingerprint() != fingerprint


def test_the_runtime_is_part_of_the_fingerprint() -> None:
    model, x = mlp()
    runtimes = [each for each in (None, "bfloat16", "int8") if not refused_here(each, model, x)]
    prints = [frostline(model, x, runtime=runtime).fingerprint() for runtime in runtimes]
    assert len(set(prints)) == len(runtimes) >= 2
    assert frostline(model, x, runtime=runtimes[-1]).fingerprint() == prints[-1]


def test_auto_says_what_it_picked(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    without_compiler(monkeypatch)
    model, x = mlp()
    line = frostline(model, x, runtime="auto")
    with caplog.at_level(logging.INFO, "frostline"):
        line.below(x)
    record = line.runtime
    assert said(caplog) == [str(record)]
    names = ["plain", "channels_last", "bfloat16", "channels_last+bfloat16", "int8", "compiled"]
    assert [trial.name for trial in record.trials][:6] == names
    reasons = {trial.name: trial.reason for trial in record.trials}
    assert reasons["channels_last"] == "no convolution of 2 or 3 dimensions is below the line"
    assert reasons["compiled"] == "no C++ compiler was found"
    timed = {trial.name: trial.ratio for trial in record.trials if trial.ratio is not None}
    assert reasons["int8"] == ("" if int8.is_exact("cpu") else INEXACT)
    assert set(timed) == {"plain", "bfloat16", *(["int8"] if int8.is_exact("cpu") else [])}
    assert timed[record.picked] <= 1.03 * min(timed.values())
    line.below(x)
    assert said(caplog) == [str(record)]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "frostline"]


def test_auto_leaves_out_runtimes_that_fail_or_are_too_far_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(run: Any) -> Any:
        raise RuntimeError("no such instruction\nand more")

    monkeypatch.setattr(candidates, "_compiled", broken)
    monkeypatch.setattr(int8, "is_exact", lambda device: True)
    model, x = mlp()
    line = frostline(model, x, runtime="auto", bound=1e-6)
    want = frostline(model, x).below(x)[0]
    assert bits(line.below(x)[0]) == bits(want)
    record = line.runtime
    assert record.picked == "plain"
    assert {trial.name: trial.reason for trial in record.trials} == {
        "plain": "",
        "channels_last": "no convolution of 2 or 3 dimensions is below the line",
        "bfloat16": "beyond the bound",
        "channels_last+bfloat16": "no convolution of 2 or 3 dimensions is below the line",
        "int8": "beyond the bound",
        "compiled": "it fails: RuntimeError: no such instruction",
    }


# Without asking the compiler about each kind of vectors, and without its own copy of PyTorch's headers.
@torch._inductor.config.patch({"cpp.vec_isa_ok": False, "cpp_cache_precompile_headers": False})
@pytest.mark.slow
def test_compiled_weights_are_compiled_again_when_they_change() -> None:
    model, x = mlp()
    line = frostline(model, x, runtime="compiled")
    assert off(line.below(x)[0], frostline(model, x).below(x)[0]) < 1e-5
    with torch.no_grad():
        model[0].weight.mul_(2)
    assert off(line.below(x)[0], frostline(model, x).below(x)[0]) < 1e-5


def test_the_record_prints_as_a_table() -> None:
    trials = (
        Trial("plain", 1.0, 0.0),
        Trial("bfloat16", 0.5, 0.004),
        Trial("int8", None, 0.05, "beyond the bound"),
        Trial("compiled", reason="no C++ compiler was found"),
    )
    assert str(RuntimeRecord("auto", "bfloat16", 0.03, trials)).splitlines() == [
        "runtime='auto' runs below the line as bfloat16; errors up to 0.03 are allowed.",
        "  name      time  error",
        "  plain     1.00  0.0e+00",
        "  bfloat16  0.50  4.0e-03  picked",
        "  int8      -     5.0e-02  left out: beyond the bound",
        "  compiled  -     -        left out: no C++ compiler was found",
    ]


def test_off_is_the_largest_difference_over_the_largest_value() -> None:
    want = torch.tensor([1.0, -4.0, float("inf")])
    assert off(torch.tensor([1.0, -3.0, float("inf")]), want) == 0.25
    assert off(torch.tensor([1.0, -4.0, 5.0]), want) == float("inf")
    assert off(torch.tensor([float("nan"), -4.0, float("inf")]), want) == float("inf")
    assert off(torch.tensor([1, 2]), torch.tensor([1, 2])) == 0
    assert off(torch.tensor([1, 2]), torch.tensor([1, 3])) == float("inf")
    assert off(torch.zeros(2), torch.zeros(2)) == 0
    assert off(torch.ones(2), torch.zeros(2)) == float("inf")
    assert off(torch.zeros(0), torch.zeros(0)) == 0


INSTEAD = 'Pass runtime="auto", which takes the fastest of those that run here, or leave it out.'
REFUSED: list[tuple[str, dict[str, Any], list[str]]] = [
    (
        "no such runtime",
        {"runtime": "fp8"},
        [
            "runtime='fp8' is not one of the 5 runtimes.",
            '  runtime="auto"',
            '  runtime="channels_last"',
            '  runtime="bfloat16"',
            '  runtime="int8"',
            '  runtime="compiled"',
            'Pass runtime="auto", or leave it out; join all but "auto": runtime="channels_last+bfloat16".',
        ],
    ),
    (
        "channels last without a convolution",
        {"runtime": "channels_last"},
        [
            'runtime="channels_last" cannot run the part below the line: '
            "no convolution of 2 or 3 dimensions is below the line.",
            "  2 of 4 can: bfloat16, int8",
            INSTEAD,
        ],
    ),
    (
        "no compiler",
        {"runtime": "compiled"},
        [
            'runtime="compiled" cannot run the part below the line: no C++ compiler was found.',
            "  2 of 4 can: bfloat16, int8",
            INSTEAD,
        ],
    ),
    (
        "int8 that is compiled",
        {"runtime": "compiled+int8"},
        [
            'runtime="int8+compiled" cannot run the part below the line: '
            "compiled programs multiply matrices of eight bits in a slow way.",
            "  2 of 4 can: bfloat16, int8",
            INSTEAD,
        ],
    ),
    (
        "a line cut by hand",
        {"runtime": "int8", "at": "2"},
        [
            'runtime="int8" cannot run the part below the line: the line was cut by hand, so its parts are not known.',
            "  0 of 4 can: none",
            INSTEAD,
        ],
    ),
    (
        "too far off",
        {"runtime": "bfloat16", "bound": 0.0001},
        [
            'runtime="bfloat16" is off by 1.9e-03 of the largest value at the boundary; bound=0.0001 allows less.',
            "  3: 1.9e-03",
            'Pass bound=0.002 if that is near enough, or runtime="auto".',
        ],
    ),
    (
        "a bound of zero",
        {"runtime": "int8", "bound": 0},
        [
            "bound=0 must be a positive number: the largest error, as a part of the largest value.",
            "Pass bound=0.03, or leave it out.",
        ],
    ),
]


@pytest.mark.parametrize(("arguments", "text"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refusals(arguments: dict[str, Any], text: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiler(monkeypatch)
    monkeypatch.setattr(int8, "is_exact", lambda device: True)
    model, x = mlp()
    with torch.no_grad():
        for linear in model[0], model[2]:
            nn.init.eye_(linear.weight)
            linear.bias.zero_()
    # A power of two is exact in bfloat16; this one has a bit more than fits.
    x = torch.full_like(x, 1 + 2**-9)
    before = contents(model)
    with pytest.raises(RuntimeChoiceError) as caught:
        frostline(model, x, **arguments)
    assert str(caught.value).splitlines() == text
    assert contents(model) == before
