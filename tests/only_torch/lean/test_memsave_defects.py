"""Where replacing layers by memory-saving twins goes wrong, and looking at the graph does not.

Each of these fails with memsave_torch (https://github.com/plutonium-239/memsave_torch, as of August 2024) on PyTorch
2.13: wrong numbers, a crash, or a model that is no longer the one it was.
"""

import copy

import pytest
import torch
from torch import Tensor, nn

import frostline.torch as ft
from only_torch.bits import bits, contents
from only_torch.lean.slimmed import derivatives, slimmed

PICTURE = torch.randn(2, 3, 128, 128)
CONV = {"ConvolutionBackward0.input": 1}


def frozen(*layers: nn.Module) -> nn.Sequential:
    model = nn.Sequential(*layers)
    ft.freeze(model)
    return model


def lean_is_the_same(model: nn.Module, x: Tensor) -> dict[str, int]:
    """Asserts it for a lean copy; returns what is smaller in the graph."""
    expected = [derivatives(copy.deepcopy(model), x) for _ in range(2)]
    handle = ft.lean(model)
    found = [derivatives(model, x) for _ in range(2)]
    names = slimmed(model(x.clone().requires_grad_()))
    handle.undo()
    assert found == expected
    return names


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_01_padding_with_something_other_than_zeros(mode: str) -> None:
    model = frozen(nn.Conv2d(3, 4, 3, padding=1, padding_mode=mode))
    assert CONV.items() <= lean_is_the_same(model, PICTURE).items()


def test_02_a_subclass_with_a_forward_of_its_own() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.weight.std() + 1

    assert lean_is_the_same(frozen(Standardised(3, 4, 3)), PICTURE) == CONV


def test_03_relu_of_minus_infinity() -> None:
    x = PICTURE.clone()
    x[0, 0, 0, 0] = -torch.inf
    model = nn.Sequential(nn.ReLU(), frozen(nn.Conv2d(3, 4, 3)))
    assert not model(x).isnan().any()
    assert lean_is_the_same(model, x) == CONV | {"ReluBackward0.result": 1}


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_04_the_rate_of_a_dropout(p: float) -> None:
    model = nn.Sequential(nn.Dropout(p), frozen(nn.Conv2d(3, 4, 3)))
    assert lean_is_the_same(model, PICTURE) == CONV | {"MulBackward0.other": 1}


def test_05_a_convolution_in_double_precision() -> None:
    assert lean_is_the_same(frozen(nn.Conv2d(3, 4, 3)).double(), PICTURE.double()) == CONV


def test_06_max_pooling_in_bfloat16() -> None:
    model = nn.Sequential(nn.MaxPool2d(2), frozen(nn.Conv2d(3, 4, 3))).bfloat16()
    assert lean_is_the_same(model, PICTURE.bfloat16()) == CONV | {
        "MaxPool2DWithIndicesBackward0.self": 1,
        "MaxPool2DWithIndicesBackward0.result1": 1,
    }


def test_07_padding_that_is_a_word() -> None:
    assert lean_is_the_same(frozen(nn.Conv2d(3, 4, 3, padding="same")), PICTURE) == CONV


def test_08_a_picture_without_a_batch() -> None:
    assert lean_is_the_same(frozen(nn.Conv2d(3, 4, 3)), PICTURE[0]) == CONV


def test_09_a_norm_without_weights() -> None:
    model = frozen(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False))
    assert lean_is_the_same(model, PICTURE) == CONV | {"NativeBatchNormBackward0.input": 1}


def test_10_a_norm_without_momentum() -> None:
    model = frozen(nn.BatchNorm2d(3, momentum=None))
    assert lean_is_the_same(model, PICTURE) == {"NativeBatchNormBackward0.input": 1}
    model = nn.Sequential(nn.BatchNorm2d(3, momentum=None), frozen(nn.Conv2d(3, 4, 3)))
    assert lean_is_the_same(model, PICTURE) == CONV


def test_11_a_dropout_at_all() -> None:
    model = frozen(nn.Dropout(), nn.Conv2d(3, 4, 3))
    assert lean_is_the_same(model, PICTURE) == CONV
    assert lean_is_the_same(model.eval(), PICTURE) == CONV


def test_12_vmap() -> None:
    model = frozen(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))

    def loss(x: Tensor) -> Tensor:
        return model(x).square().sum()

    expected = torch.vmap(torch.func.grad(loss))(PICTURE)
    with ft.lean(model):
        assert bits(torch.vmap(torch.func.grad(loss))(PICTURE)) == bits(expected)


def test_13_the_mode_of_every_layer() -> None:
    model = nn.Sequential(frozen(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Conv2d(4, 4, 3).eval(), nn.ReLU())
    before = [module.training for module in model.modules()]
    with ft.lean(model):
        assert [module.training for module in model.modules()] == before
        model.eval()
        assert not any(module.training for module in model.modules())


def test_14_shared_layers_and_tied_weights() -> None:
    one, two = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
    two.weight = one.weight
    model = frozen(one, nn.ReLU(), one, two)
    with ft.lean(model):
        assert model[0] is model[2] is one
        assert model[3].weight is one.weight
    assert lean_is_the_same(model, PICTURE) == {"ConvolutionBackward0.input": 3, "ReluBackward0.result": 1}


def test_15_an_optimizer_from_before() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), frozen(nn.Conv2d(4, 4, 3)), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(ft.trainable(model).values(), lr=0.1)
    own, before = [*model.parameters()], contents(model)
    ft.lean(model)
    model(PICTURE[..., :8, :8]).sum().backward()
    optimizer.step()
    assert all(one is other for one, other in zip(own, model.parameters(), strict=True))
    after = contents(model)
    assert {name for name in after if after[name] != before[name]} == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_16_forward_hooks() -> None:
    model, seen = frozen(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)), list[str]()
    for name, module in model.named_children():
        module.register_forward_hook(lambda module, args, y, name=name: seen.append(name))
        module.register_full_backward_hook(lambda module, before, after, name=name: seen.append(name))
    with ft.lean(model):
        model(PICTURE.clone().requires_grad_()).sum().backward()
    model(PICTURE)
    assert seen == ["0", "1", "2", "2", "1", "0", "0", "1", "2"]


def test_17_how_many_batches_a_norm_has_seen() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), frozen(nn.Conv2d(3, 4, 3)))
    with ft.lean(model):
        for _ in range(3):
            model(PICTURE)
    assert model[0].num_batches_tracked.item() == 3


def test_18_autocast() -> None:
    model, x = frozen(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)), PICTURE.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        expected = bits(torch.autograd.grad(model(x).sum(), x)[0])
        with ft.lean(model):
            y = model(x)
        assert y.dtype == torch.bfloat16
    assert slimmed(y) == {"ConvolutionBackward0.input": 2, "ReluBackward0.result": 1}
    assert bits(torch.autograd.grad(y.sum(), x)[0]) == expected


def test_19_a_pool_that_returns_its_indices() -> None:
    class Unpooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            y, indices = self.pool(self.conv(x))
            assert indices.dtype == torch.int64
            return self.unpool(y, indices)

    model = Unpooled()
    ft.freeze(model)
    found = lean_is_the_same(model, PICTURE)
    assert found == CONV | {"MaxPool2DWithIndicesBackward0.self": 1}


def test_the_comparison_sees_the_last_bit() -> None:
    model = frozen(nn.Conv2d(3, 4, 3))
    before = derivatives(model, PICTURE)
    assert derivatives(copy.deepcopy(model), PICTURE) == before
    model[0].register_forward_hook(lambda module, args, y: torch.nextafter(y, torch.tensor(torch.inf)))
    assert derivatives(model, PICTURE) != before
