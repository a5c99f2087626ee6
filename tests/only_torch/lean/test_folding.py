"""Frozen batch norms are folded into the convolutions before them: where that is right, and nowhere else."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from benchmarks.zoo import densenet, mobilenet_v3, resnet18, resnet50, unet
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import frostline.torch as ft
from frostline.torch._autograd.saved import saving
from frostline.torch._holding.patch import Patch
from frostline.torch._lean.folding import attach, folded_weights
from only_torch.bits import bits, contents, gradients


def moved(model: nn.Module) -> nn.Module:
    """The model, with statistics and affine parameters that are not those of the beginning."""
    for norm in (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
        with torch.no_grad():
            for tensor, low, high in ((norm.weight, 0.5, 1.5), (norm.bias, -1, 1), (norm.running_var, 0.5, 2)):
                if tensor is not None:
                    tensor.uniform_(low, high)
            if norm.running_mean is not None:
                norm.running_mean.uniform_(-1, 1)
    return model


class Block(nn.Module):
    """``norm(conv(x))`` and more of it, as subclasses say."""

    def __init__(self, conv: nn.Module | None = None, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1) if conv is None else conv
        self.norm = nn.BatchNorm2d(4) if norm is None else norm

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))


def frozen(model: nn.Module) -> nn.Module:
    ft.freeze(moved(model))
    return model


def folds(model: nn.Module, x: Tensor) -> int:
    """How many pairs a call of the model folds."""
    attach(model)
    model(x)
    return len(list(folded_weights(model))) // 2


def error(tensor: Tensor, exact: Tensor) -> float:
    return ((tensor.double() - exact).norm() / exact.norm()).item()


PICTURE = (2, 4, 6, 6)


@pytest.mark.parametrize(
    ("made", "pairs"), [(resnet18, 20), (resnet50, 20), (mobilenet_v3, 19), (densenet, 5), (unet, 10)]
)
def test_as_close_to_the_truth_as_the_unfolded_model(made: Callable, pairs: int) -> None:
    model, (x,) = made(small=True)
    frozen(model)
    exact, x = copy.deepcopy(model).double(), x.requires_grad_()
    wide = x.detach().double().requires_grad_()
    truth = exact(wide)
    slope = torch.autograd.grad(truth.square().sum(), wide)[0]
    stock = model(x)
    stock_slope = torch.autograd.grad(stock.square().sum(), x)[0]
    attach(model)
    folded = model(x)
    folded_slope = torch.autograd.grad(folded.square().sum(), x)[0]
    assert len(list(folded_weights(model))) == 2 * pairs
    assert error(folded, truth) < max(4 * error(stock, truth), 1e-6)
    # A ReLU whose input is zero up to rounding may open or close; the stock model has the same.
    assert error(folded_slope, slope) < max(4 * error(stock_slope, slope), 1e-5)


CONVS = {
    **{f"{name}{r}d": (name, r, {}) for name in ("Conv", "ConvTranspose") for r in (1, 2, 3)},
    "grouped": ("Conv", 2, {"groups": 2}),
    "depthwise": ("Conv", 2, {"groups": 4}),
    "grouped transposed": ("ConvTranspose", 2, {"groups": 2}),
    "reflecting": ("Conv", 2, {"padding_mode": "reflect", "padding": 1}),
    "same": ("Conv", 2, {"padding": "same", "dilation": 2}),
    "without bias": ("Conv", 2, {"bias": False}),
    "strided transposed": ("ConvTranspose", 2, {"stride": 2, "output_padding": 1, "bias": False}),
}


@pytest.mark.parametrize("kind", CONVS)
@pytest.mark.parametrize("norm", [{}, {"affine": False}, {"momentum": None}, {"eps": 0.1}])
def test_convolutions_of_every_kind(kind: str, norm: dict) -> None:
    name, rank, options = CONVS[kind]
    conv = getattr(nn, f"{name}{rank}d")(4, 8, 3, **options)
    model = frozen(nn.Sequential(conv, getattr(nn, f"BatchNorm{rank}d")(8, **norm)))
    x = torch.randn(2, 4, *(6,) * rank)
    expected = copy.deepcopy(model).double()(x.double())
    assert folds(model, x) == 1
    assert error(model(x), expected) < 1e-6


def test_nothing_of_the_norm_is_saved() -> None:
    model, x = frozen(Block()), torch.randn(PICTURE, requires_grad=True)
    saved = {}
    for way in ("plain", "folded"):
        with saving(model, folded_weights) as watched:
            y = model(x)
        saved[way] = watched.nbytes
        del y
        attach(model)
        model(x)
    one = 4 * 2 * 4 * 6 * 6
    # The input, what the convolution returned, the result; then without the second; shadow weights are kept anyway.
    assert saved == {"plain": 3 * one, "folded": 2 * one}


class ReadTwice(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + y


class Returned(Block):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x)
        return self.norm(y), y


class CalledTwice(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.conv(x)))


class NormCalledTwice(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.norm(self.conv(x)))


class Between(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.relu(self.conv(x)))


class Branching(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) if x.sum() > 0 else y


class InTraining(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + y if self.training else self.norm(y)


class OwnForward(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class OwnNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


def with_itself(*blocks: nn.Module) -> nn.Module:
    return nn.Sequential(*blocks, *blocks)


def tied() -> nn.Module:
    first, second = Block(), Block()
    second.conv.weight = first.conv.weight
    return nn.Sequential(first, second)


def shared_norm() -> nn.Module:
    norm = nn.BatchNorm2d(4)
    return nn.Sequential(Block(norm=norm), Block(norm=norm))


def hooked(register: str, part: str) -> nn.Module:
    block = Block()
    getattr(getattr(block, part), register)(lambda *_: None)
    return block


def replaced(part: str) -> nn.Module:
    block = Block()
    module = getattr(block, part)
    module.forward = lambda x: type(module).forward(module, x) * 2
    return block


def swapped_caller() -> nn.Module:
    block = Block()
    block.forward = lambda x: block.conv(x)
    return block


NEVER: dict[str, Callable[[], nn.Module]] = {
    "read twice": ReadTwice,
    "returned": Returned,
    "convolution called twice": CalledTwice,
    "norm called twice": NormCalledTwice,
    "something between": Between,
    "a forward that cannot be traced": Branching,
    "read in training mode": InTraining,
    "convolution with its own forward": lambda: Block(OwnForward(4, 4, 3)),
    "norm with its own forward": lambda: Block(norm=OwnNorm(4)),
    "forward of the convolution replaced": lambda: replaced("conv"),
    "forward of the norm replaced": lambda: replaced("norm"),
    "forward of the caller replaced": swapped_caller,
    "parametrized": lambda: Block(nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3))),
    "spectral norm by a hook": lambda: Block(nn.utils.spectral_norm(nn.Conv2d(4, 4, 3))),
    "shared block": lambda: with_itself(Block()),
    "shared convolution": lambda: nn.Sequential(*(Block(conv) for conv in [nn.Conv2d(4, 4, 3)] * 2)),
    "shared norm": shared_norm,
    "tied weight": tied,
    "hook on the convolution": lambda: hooked("register_forward_hook", "conv"),
    "hook before the convolution": lambda: hooked("register_forward_pre_hook", "conv"),
    "hook on the norm": lambda: hooked("register_forward_hook", "norm"),
    "hook on the gradient of the norm": lambda: hooked("register_full_backward_hook", "norm"),
    "no running statistics": lambda: Block(norm=nn.BatchNorm2d(4, track_running_stats=False)),
    "instance norm": lambda: Block(norm=nn.InstanceNorm2d(4, affine=True)),
    "group norm": lambda: Block(norm=nn.GroupNorm(2, 4)),
    "norm first": lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)),
}


@pytest.mark.parametrize("case", NEVER)
def test_never_folded(case: str) -> None:
    model, x = frozen(NEVER[case]()), torch.randn(PICTURE)
    expected = model(x)
    assert folds(model, x) == 0
    assert list(map(bits, tree_leaves(model(x)))) == list(map(bits, tree_leaves(expected)))


def test_the_control_is_folded() -> None:
    x = torch.randn(PICTURE)
    assert folds(frozen(Block()), x) == 1
    assert folds(frozen(nn.Sequential(Block(), Block())), x) == 2
    assert folds(frozen(nn.ModuleDict({"conv": nn.Conv2d(4, 4, 3)})["conv"]), x) == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda block: ft.thaw(block, "conv"),
        lambda block: ft.thaw(block, "norm"),
        lambda block: block.norm.bias.requires_grad_(),
        lambda block: ft.thaw(block) and block.train(),
        lambda block: setattr(block.norm, "training", True),
        lambda block: block.double(),
        lambda block: block.bfloat16(),
        lambda block: block.conv.register_forward_hook(lambda *_: None),
        lambda block: nn.modules.module.register_module_forward_hook(lambda *_: None),
    ],
)
def test_ended_by(change: Callable[[nn.Module], object]) -> None:
    block = frozen(Block())
    other, x = copy.deepcopy(block), torch.randn(PICTURE)
    attach(block)
    assert bits(block(x)) != bits(other(x))
    handles = [change(block), change(other)]
    x = x.to(block.conv.weight.dtype)
    try:
        assert bits(block(x)) == bits(other(x))
    finally:
        for handle in handles:
            if isinstance(handle, torch.utils.hooks.RemovableHandle):
                handle.remove()


def test_under_autocast_and_in_transforms_it_is_left_alone() -> None:
    block = frozen(Block())
    other, x = copy.deepcopy(block), torch.randn(PICTURE)
    attach(block)
    assert bits(block(x)) != bits(other(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert bits(block(x)) == bits(other(x))
    assert bits(torch.func.vmap(block)(x[None])) == bits(torch.func.vmap(other)(x[None]))
    state = {name: tensor * 2 for name, tensor in contents_of(block).items()}
    assert bits(torch.func.functional_call(block, state, (x,))) == bits(torch.func.functional_call(other, state, (x,)))


def contents_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: t for name, t in model.state_dict().items() if t.is_floating_point()}


@pytest.mark.parametrize(
    "write",
    [
        lambda block: block.conv.weight.mul_(2),
        lambda block: block.conv.bias.add_(1),
        lambda block: block.norm.weight.mul_(2),
        lambda block: block.norm.bias.add_(1),
        lambda block: block.norm.running_mean.add_(1),
        lambda block: block.norm.running_var.mul_(2),
        lambda block: setattr(block.norm, "eps", 0.5),
        lambda block: setattr(block.conv.weight, "data", block.conv.weight.data * 2),
        lambda block: block.load_state_dict({n: t * 2 for n, t in block.state_dict().items()}),
        lambda block: block.load_state_dict({n: t * 2 for n, t in block.state_dict().items()}, assign=True),
        lambda block: block.half().float(),
        lambda block: block.to(memory_format=torch.channels_last),
        lambda block: setattr(block.conv, "stride", (2, 2)),
        lambda block: setattr(block.conv, "padding", (0, 0)),
        lambda block: ft.thaw(block) and block.train()(torch.randn(PICTURE)),  # moves statistics, counts no version
    ],
)
def test_a_write_folds_anew(write: Callable[[nn.Module], object]) -> None:
    block, x = frozen(Block()), torch.randn(PICTURE)
    attach(block)
    before = bits(block(x))
    torch.manual_seed(1)
    with torch.no_grad():
        write(block)
    ft.freeze(block)
    block.requires_grad_(False)
    expected = copy.deepcopy(block).double()
    y = block(x)
    assert error(y, expected(x.double())) < 1e-6
    assert bits(y) != before or block.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert len(list(folded_weights(block))) == 2


def test_state_parameters_thaw_and_undo_show_the_originals() -> None:
    model, (x,) = resnet18(small=True)
    moved(model)
    handle = ft.freeze(model)
    before, names, expected = contents(model), dict(model.named_modules()), bits(model(x))
    attributes = {name: set(vars(module)) for name, module in names.items()}
    detach = attach(model)
    assert bits(model(x)) != expected
    assert contents(model) == before
    assert dict(model.named_modules()) == names
    assert {name: bits(t) for name, t in model.state_dict().items()} == before
    detach()
    assert bits(model(x)) == expected
    assert {name: set(vars(module)) for name, module in names.items()} == attributes
    attach(model)
    handle.undo()
    plain = copy.deepcopy(model)
    attach(plain)
    for one in (model, plain):
        one(x).sum().backward()
    assert gradients(model) == gradients(plain)


def test_a_convolution_that_is_called_by_itself_is_itself() -> None:
    block, x = frozen(Block()), torch.randn(PICTURE)
    expected = bits(block.conv(x)), bits(block.norm(x))
    attach(block)
    block(x)
    assert (bits(block.conv(x)), bits(block.norm(x))) == expected


def test_a_forward_that_goes_another_way_later_is_right() -> None:
    class Keeping(Block):
        keep = False
        elsewhere: tuple = ()

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            if self.keep or self.elsewhere:
                return F.relu(y)
            return self.norm(y)

    block, x = frozen(Keeping()), torch.randn(PICTURE)
    attach(block)
    block(x)
    block.keep = True
    assert bits(block(x)) == bits(F.relu(block.conv(x)))
    block.keep, block.elsewhere = False, (1,)  # which no trait shows: the result that no norm has taken does
    assert bits(block(x)) == bits(F.relu(block.conv(x)))


def test_tracing_leaves_nothing_behind() -> None:
    class Counting(Block):
        def __init__(self) -> None:
            super().__init__()
            self.calls, self.seen = 0, []

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.seen.append(x)
            torch.rand(1)
            return super().forward(x)

    block = frozen(Counting())
    state = torch.get_rng_state()
    attach(block)
    assert (block.calls, block.seen) == (0, [])
    assert bits(torch.get_rng_state()) == bits(state)


def test_an_error_in_a_call_leaves_nothing_open() -> None:
    block, x = frozen(Block()), torch.randn(PICTURE)
    attach(block)
    with pytest.raises(RuntimeError):
        block(torch.randn(2, 5, 6, 6))
    assert bits(block.conv(x)) == bits(copy.deepcopy(block).conv(x))
    block(x)
    assert len(list(folded_weights(block))) == 2


def test_copies_and_pickles_fold_their_own() -> None:
    block, x = frozen(Block()), torch.randn(PICTURE)
    attach(block)
    expected = bits(block(x))
    for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert list(folded_weights(other)) == []
        assert bits(other(x)) == expected
        with torch.no_grad():
            other.conv.weight.zero_()
        assert bits(other(x)) != expected
        assert bits(block(x)) == expected


def test_folded_first_in_inference_mode_and_then_differentiated() -> None:
    block, x = frozen(Block()), torch.randn(PICTURE)
    attach(block)
    with torch.inference_mode():
        expected = bits(block(x))
    y = block(x.requires_grad_())
    y.sum().backward()
    assert bits(y) == expected


def test_frozen_uses_are_folded_and_live() -> None:
    layer = moved(Block()).eval()
    model, x = nn.Sequential(nn.Conv2d(4, 4, 1), ft.Frozen(layer)), torch.randn(PICTURE)
    attach(model)
    for _ in range(2):
        exact = copy.deepcopy(nn.Sequential(model[0], layer)).double()
        assert error(model(x), exact(x.double())) < 1e-6
        assert len(list(folded_weights(model))) == 2
        with torch.no_grad():
            layer.conv.weight.mul_(2)
    assert not isinstance(layer.conv.__dict__.get("forward"), Patch)


def test_the_input_gradient_flows_into_what_trains() -> None:
    model, x = nn.Sequential(nn.Conv2d(4, 4, 1), moved(Block())), torch.randn(PICTURE)
    ft.freeze(model, "[1]")
    exact = copy.deepcopy(model).double()
    attach(model)
    model(x).square().sum().backward()
    exact(x.double()).square().sum().backward()
    assert error(model[0].weight.grad, exact[0].weight.grad) < 1e-6
    assert model[1].conv.weight.grad is None


def test_through_lean_with_slimming_and_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frostline.torch._lean.slim.SMALL", 0)
    model, (x,) = resnet18(small=True)
    moved(model)
    ft.freeze(model, "**", "!conv1", "!bn1")
    exact, plain = copy.deepcopy(model).double(), copy.deepcopy(model)
    for one, batch in ((exact, x.double()), (plain, x)):
        one(batch).square().sum().backward()
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    handle = ft.lean(model, exact=False, memory_budget=0.5)
    for _ in range(2):
        model.zero_grad()
        model(x).square().sum().backward()
        stock, folded = (error(one.conv1.weight.grad, exact.conv1.weight.grad) for one in (plain, model))
        assert folded < max(4 * stock, 1e-5)
    assert len(list(folded_weights(model))) == 2 * 19
    handle.undo()
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    model.zero_grad()
    model(x).square().sum().backward()
    assert gradients(model) == gradients(plain)
