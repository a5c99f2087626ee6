"""What a call holds, to the byte; when memory is given free; and where hooks are left."""

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from benchmarks.memory import allocations, peak_of
from benchmarks.zoo import bert, llama, lstm, mobilenet_v3
from benchmarks.zoo.residual import Bottleneck, ResNet
from torch import Tensor, nn
from torch.nn import functional as F

import frostline.torch as ft
from frostline.torch._lean import slim as _slim
from frostline.torch._lean.slimming import Site, Slimming, attach
from only_torch.lean.slimmed import Through, slimming

X = torch.zeros(2, 4, 8, 8)
SIZE = 2 * 4 * 8 * 8 * 4


def held(model: nn.Module, x: Tensor) -> int:
    """The bytes that a call holds for backward, its result left out."""
    gc.disable()  # what is collected meanwhile would count
    with allocations() as ledger:
        y = model(x)
    gc.enable()
    return ledger.held - y.nbytes


def conv() -> nn.Module:
    return nn.Conv2d(4, 4, 3, padding=1).requires_grad_(False)


def norm() -> nn.Module:
    return nn.BatchNorm2d(4).requires_grad_(False).eval()


NETS: list[tuple[str, Callable[[], nn.Module], int, int]] = [
    ("conv, conv", lambda: nn.Sequential(conv(), conv()), SIZE, 0),
    ("conv, norm, conv", lambda: nn.Sequential(conv(), norm(), conv()), 2 * SIZE, 0),
    ("conv, relu, conv", lambda: nn.Sequential(conv(), nn.ReLU(), conv()), SIZE, SIZE // 4),
    ("the same in place", lambda: nn.Sequential(conv(), nn.ReLU(inplace=True), conv()), SIZE, SIZE // 4),
    ("conv, relu6, conv", lambda: nn.Sequential(conv(), nn.ReLU6(), conv()), 2 * SIZE, SIZE // 4),
    (
        "conv, norm, leaky relu, conv",
        lambda: nn.Sequential(conv(), norm(), nn.LeakyReLU(inplace=True), conv()),
        2 * SIZE,
        SIZE // 4,
    ),
    # Indices of eight bytes become those of two.
    ("conv, max pool", lambda: nn.Sequential(conv(), nn.MaxPool2d(2)), SIZE + SIZE // 2, SIZE // 8),
    ("conv, average pool", lambda: nn.Sequential(conv(), nn.AvgPool2d(2)), SIZE, 0),
    ("conv, relu, linear", lambda: nn.Sequential(conv(), nn.ReLU(), nn.Linear(8, 1)).requires_grad_(False), SIZE, 512),
    ("conv, relu, trainable conv", lambda: nn.Sequential(conv(), nn.ReLU(), nn.Conv2d(4, 4, 3)), SIZE, SIZE),
    ("conv, gelu, conv", lambda: nn.Sequential(conv(), nn.GELU(), conv()), 2 * SIZE, SIZE),
    ("functional", lambda: Through(lambda x: F.relu(F.avg_pool2d(x.neg(), 2)).neg()), SIZE + SIZE // 4, SIZE // 16),
]


@pytest.mark.parametrize(("build", "plain", "slim"), [row[1:] for row in NETS], ids=[row[0] for row in NETS])
def test_the_bytes_that_a_call_holds(build: Callable[[], nn.Module], plain: int, slim: int) -> None:
    model, x = build(), X.clone().requires_grad_()
    model(x)
    assert held(model, x) == plain
    with slimming(model):
        assert [held(model, x) for _ in range(3)] == [slim] * 3
    assert held(model, x) == plain


def test_a_factor_of_five_on_a_resnet() -> None:
    model, x = ResNet(Bottleneck, (3, 4, 6, 3), 4, 10), torch.randn(2, 3, 32, 32)
    ft.freeze(model, "**", "!conv1", "!bn1")
    plain, peak = held(model, x), peak_of(lambda: model(x).sum().backward())
    with slimming(model):
        assert held(model, x) < 0.2 * plain
        assert peak_of(lambda: model(x).sum().backward()) < 0.45 * peak


def test_an_input_is_given_free_as_soon_as_a_layer_has_used_it() -> None:
    results, living = list[weakref.ref[object]](), list[int]()

    def look(module: nn.Module, args: object, y: Tensor) -> None:
        results.append(weakref.ref(y))
        living.append(sum(reference() is not None for reference in results))

    model, x = nn.Sequential(*(conv() if index % 2 else norm() for index in range(6))), X.clone().requires_grad_()
    for module in model:
        module.register_forward_hook(look)
    model(x)
    assert living == [1, 2, 3, 4, 5, 6]
    with slimming(model):
        results.clear()
        living.clear()
        model(x)
    assert living == [1, 2, 2, 2, 2, 2]


def sites(model: nn.Module) -> set[str]:
    """The paths of the modules that are looked at after each call."""
    return {
        path
        for path, module in model.named_modules()
        if any(isinstance(hook, Site) for hook in module._forward_hooks.values())
    }


def test_hooks_stay_where_a_rule_applied() -> None:
    model, x = nn.Sequential(nn.Conv2d(4, 4, 1), nn.GELU(), conv(), nn.ReLU(), conv(), nn.Linear(8, 2)), X
    model[5].requires_grad_(False)
    with slimming(model):
        assert len(sites(model)) == 7
        model(x)
        model(x)
        assert sites(model) == {"2", "4"}
        model[2].requires_grad_(True)
        model(x)
        assert len(sites(model)) == 7
        model(x)
        assert sites(model) == {"4"}
        model[2].requires_grad_(False)
        model(x)
        model(x)
        assert sites(model) == {"2", "4"}
    assert sites(model) == set()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("build", [bert, llama, lstm])
def test_no_hook_stays_where_there_is_nothing_to_gain(build: Callable[..., tuple[nn.Module, tuple[Tensor]]]) -> None:
    model, (x,) = build(small=True)
    ft.freeze(model.eval(), "**", "!**.*embed*", "!*embed*")
    with slimming(model):
        for _ in range(2):
            model(x)
        assert sites(model) == set()
        assert len(model._forward_pre_hooks) == 1


def test_a_call_without_a_graph_decides_nothing() -> None:
    model, x = nn.Sequential(conv(), nn.ReLU(), conv()), X.clone().requires_grad_()
    with slimming(model):
        for _ in range(3):
            with torch.no_grad():
                model(x)
            model(X)
        assert held(model, x) == SIZE // 4
        for _ in range(3):
            model(X)
        assert held(model, x) == SIZE // 4


def test_a_switch_of_mode_is_seen() -> None:
    model, x = nn.Sequential(nn.BatchNorm2d(4).requires_grad_(False), nn.GELU()), X.clone().requires_grad_()
    with slimming(model):
        for _ in range(3):
            model.train()(x)
        assert sites(model) == set()
        assert held(model.eval(), x) == SIZE


def test_a_part_that_is_called_by_itself_is_slim() -> None:
    model, x = nn.Sequential(conv(), nn.Sequential(conv(), conv())), X.clone().requires_grad_()
    with slimming(model):
        assert [held(model[1], x) for _ in range(3)] == [0] * 3


def test_two_slimmings_undo_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_slim, "SMALL", 0)
    model, x = nn.Sequential(conv(), nn.Sequential(conv(), conv())), X.clone().requires_grad_()
    outer, inner = attach(model), attach(model[1])
    assert held(model, x) == 0
    outer()
    assert (held(model, x), held(model[1], x)) == (0, 0)  # x itself is not counted
    inner()
    inner()
    outer()
    assert (held(model, x), held(model[1], x)) == (2 * SIZE, SIZE)


def test_a_forward_that_fails_leaves_the_next_one_slim() -> None:
    model, x = nn.Sequential(conv(), conv()), X.clone().requires_grad_()
    with slimming(model):
        with pytest.raises(RuntimeError):
            model(X[:, :3].clone().requires_grad_())
        assert [held(model, x) for _ in range(3)] == [0] * 3


def test_mobilenet() -> None:
    model, (x,) = mobilenet_v3(small=True)
    ft.freeze(model, "**", "!features.0")
    plain = held(model, x)
    with slimming(model):
        assert held(model, x) < 0.35 * plain


def test_the_state_of_a_slimming_holds_no_tensor() -> None:
    model = nn.Sequential(conv(), conv())
    take_back = attach(model)
    model(X.clone().requires_grad_())
    slim = take_back.__self__  # type: ignore[attr-defined]
    assert isinstance(slim, Slimming)
    assert not any(isinstance(value, Tensor) for value in vars(slim).values())
    take_back()


def test_what_is_small_is_left_alone() -> None:
    model = nn.Sequential(conv(), conv())
    small, large = torch.zeros(1, 4, 32, 63, requires_grad=True), torch.zeros(1, 4, 32, 64, requires_grad=True)
    take_back = attach(model)
    assert (small.nbytes, held(model, small)) == (2**15 - 512, 2**15 - 512)
    assert (large.nbytes, held(model, large)) == (2**15, 0)
    take_back()
