"""Frozen weights are cast once in a call under autocast, and nothing else is different."""

import copy
import gc
import pickle
import weakref
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import frostline.torch as ft
from frostline.torch._holding.patch import Patch
from frostline.torch._lean.casting import Casts, _outermost, attach
from only_torch.bits import bits, contents, gradients


class CountedCasts(TorchDispatchMode):
    """Counts casts of a model's matrices and kernels."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.addresses = {p.data_ptr() for p in model.parameters() if p.dim() > 1}
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._to_copy.default and args[0].data_ptr() in self.addresses
        return func(*args, **(kwargs or {}))


class Repeated(nn.Module):
    """`layer`, which is given, called `times` times behind a trainable layer."""

    def __init__(self, layer: nn.Module, times: int = 6, width: int = 8) -> None:
        super().__init__()
        self.stem, self.layer, self.times = nn.Linear(width, width), layer, times

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(self.times):
            x = self.again(x)
        return x

    def again(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(x))


class Unfolded(Repeated):
    """The same for layers over channels."""

    def __init__(self, layer: nn.Module, rank: int) -> None:
        super().__init__(layer)
        self.rank = rank

    def again(self, x: Tensor) -> Tensor:
        shape = (x.shape[0], 2, *(1,) * (self.rank - 1), x.shape[1] // 2)
        return torch.tanh(self.layer(x.view(shape))).reshape(x.shape)


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer = nn.Linear(8, 8), nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)[:, None]
        for _ in range(3):
            x = self.layer(x, x, x)[0]
        return x


class Functional(Repeated):
    """Uses the weight of its layer without calling it."""

    def again(self, x: Tensor) -> Tensor:
        weight, bias = self.layer.weight, self.layer.bias
        x = F.linear(x, weight, bias) + x @ weight + torch.mm(x, weight) + torch.addmm(bias, x, weight)
        return torch.tanh(x + x.matmul(weight) + weight.sum() + (weight * 2).to(x.dtype).sum())


def conv(rank: int, *, transposed: bool) -> nn.Module:
    name = f"ConvTranspose{rank}d" if transposed else f"Conv{rank}d"
    return getattr(nn, name)(2, 2, (1,) * (rank - 1) + (3,), padding=(0,) * (rank - 1) + (1,))


KINDS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: Repeated(nn.Linear(8, 8)),
    "without bias": lambda: Repeated(nn.Linear(8, 8, bias=False)),
    "attention": Attending,
    "functional": lambda: Functional(nn.Linear(8, 8)),
    **{f"conv{r}d": lambda r=r: Unfolded(conv(r, transposed=False), r) for r in (1, 2, 3)},
    **{f"conv_transpose{r}d": lambda r=r: Unfolded(conv(r, transposed=True), r) for r in (1, 2, 3)},
}


def step(model: nn.Module, x: Tensor, dtype: torch.dtype = torch.bfloat16) -> tuple:
    """Output and all gradients of a step, as bytes."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype):
        y = model(x)
    y.float().square().sum().backward()
    return bits(y), bits(x.grad), gradients(model)


def casts(model: nn.Module, x: Tensor, call: Callable[[nn.Module, Tensor], object] = step) -> int:
    with CountedCasts(model) as counted:
        call(model, x)
    return counted.count


def last_casts(model: nn.Module, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """What a call of the model has cast."""
    made: list[Casts] = []
    handle = model.layer.register_forward_hook(lambda *_: made.append(_outermost.casts))
    step(model, x)
    handle.remove()
    return list(made[-1]._casts.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_outputs_and_gradients_are_bitwise_the_same(kind: str, dtype: torch.dtype) -> None:
    model, x = KINDS[kind](), torch.randn(4, 8)
    ft.freeze(model, "layer")
    expected = step(model, x, dtype)
    attach(model)
    assert [step(model, x, dtype) for _ in range(3)] == [expected] * 3


@pytest.mark.parametrize(
    ("kind", "plain", "once"),
    [("linear", 6, 1), ("attention", 6, 2), ("functional", 30, 1), ("conv2d", 6, 1), ("conv_transpose3d", 6, 1)],
)
def test_a_frozen_weight_is_cast_once(kind: str, plain: int, once: int) -> None:
    model, x = KINDS[kind](), torch.randn(4, 8)
    ft.freeze(model, "layer")
    assert casts(model, x) == plain + 1  # and the trainable stem's
    detach = attach(model)
    assert [casts(model, x) for _ in range(3)] == [once + 1] * 3
    detach()
    assert casts(model, x) == plain + 1


def test_what_autocast_does_not_cast_keeps_its_weight() -> None:
    model, x = Repeated(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.PReLU(8))), torch.randn(4, 8)
    ft.freeze(model, "layer")
    expected = step(model, x)
    attach(model)
    assert step(model, x) == expected
    seen = {id(weight) for weight, _ in last_casts(model, x)}
    assert len(seen) == 2  # the weight and the bias of the linear layer


def test_nothing_outside_autocast_or_without_its_cache() -> None:
    model, x = Repeated(nn.Linear(8, 8)), torch.randn(4, 8)
    ft.freeze(model, "layer")
    attach(model)
    assert casts(model, x, nn.Module.__call__) == 0
    assert bits(model(x)) == bits(copy.deepcopy(model)(x))
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        assert casts(model, x, nn.Module.__call__) == 7
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        assert casts(model, x, nn.Module.__call__) == 0


def test_nothing_is_looked_at_where_no_weight_is_used_twice() -> None:
    model, x = Repeated(nn.Linear(8, 8), times=1), torch.randn(4, 8)
    ft.freeze(model, "layer")
    attach(model)
    for _ in range(5):
        step(model, x)
    assert (model.forward.calls, model.forward.repeats) == (5, False)
    model.times = 6
    assert [casts(model, x) for _ in range(4)] == [7, 7, 2, 2]  # calls 6, 7, 8 and 9: 8 is looked at


@pytest.mark.parametrize(
    "write",
    [
        lambda layer: layer.weight.mul_(2),
        lambda layer: layer.weight.data.mul_(2),  # counts no version
        lambda layer: setattr(layer.weight, "data", layer.weight.data * 2),
        lambda layer: layer.load_state_dict({"weight": layer.weight * 2, "bias": layer.bias}),
        lambda layer: layer.load_state_dict({"weight": layer.weight * 2, "bias": layer.bias}, assign=True),
        lambda layer: layer.to(torch.float64).to(torch.float32),
    ],
)
def test_a_new_value_is_seen(write: Callable[[nn.Module], object]) -> None:
    model, x = Repeated(nn.Linear(8, 8)), torch.randn(4, 8)
    ft.freeze(model, "layer")
    other = copy.deepcopy(model)
    attach(model)
    for one in (model, other):
        step(one, x)
        with torch.no_grad():
            write(one.layer)
        ft.freeze(one, "layer")
    assert step(model, x) == step(other, x)
    assert contents(model) == contents(other)


def test_a_write_inside_a_call_is_seen() -> None:
    class Writing(Repeated):
        def again(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.layer.weight.mul_(0.5)
            return super().again(x)

    model, x = Writing(nn.Linear(8, 8)), torch.randn(4, 8)
    ft.freeze(model, "layer")
    other = copy.deepcopy(model)
    attach(model)
    for _ in range(2):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert bits(model(x)) == bits(other(x))


def test_thawing_ends_it_and_freezing_brings_it_back() -> None:
    model, x = Repeated(nn.Linear(8, 8)), torch.randn(4, 8)
    handle = ft.freeze(model, "layer")
    other = copy.deepcopy(model)
    attach(model)
    step(model, x)
    handle.undo()
    ft.thaw(other, "layer")
    assert step(model, x) == step(other, x)
    assert model.layer.weight.grad is not None
    ft.freeze(model, "layer")
    assert casts(model, x) == 2


def test_state_and_parameters_are_the_originals_during_a_call() -> None:
    model, x = Repeated(nn.Linear(8, 8)), torch.randn(4, 8)
    ft.freeze(model, "layer")
    before = contents(model)
    attach(model)
    seen = []
    model.layer.register_forward_hook(
        lambda layer, args, y: seen.append((layer.weight.dtype, contents(model) == before))
    )
    step(model, x)
    assert seen == [(torch.float32, True)] * 6


def test_no_cast_outlives_the_call() -> None:
    model, x = Repeated(nn.Linear(8, 8)), torch.randn(4, 8)
    ft.freeze(model, "layer")
    attach(model)
    seen, before = [], halves()
    model.layer.forward = lambda x: F.linear(x, *(seen.append(weakref.ref(w)) or w for w in model.layer.parameters()))
    step(model, x)
    alive = [tensor for tensor in halves() if all(tensor is not other for other in before)]
    assert (len(seen), alive) == (12, [])


def halves() -> list[Tensor]:
    return [t for t in gc.get_objects() if type(t) is Tensor and t.dtype is torch.bfloat16 and t.shape == (8, 8)]


def test_copies_and_pickles_compute_the_same() -> None:
    model, x = Repeated(nn.Linear(8, 8)), torch.randn(4, 8)
    ft.freeze(model, "layer")
    attach(model)
    expected = step(model, x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert step(other, x) == expected
        assert casts(other, x) == 2
        with torch.no_grad():
            other.layer.weight.zero_()
        assert step(other, x) != expected
    assert step(model, x) == expected


def test_tied_weights_and_frozen_uses_are_cast_once() -> None:
    layer = nn.Linear(8, 8)
    twin = nn.Linear(8, 8)
    twin.weight = layer.weight
    model = Repeated(nn.Sequential(ft.Frozen(layer), ft.Frozen(layer), ft.Frozen(twin)))
    expected, x = copy.deepcopy(model), torch.randn(4, 8)
    attach(model)
    assert step(model, x) == step(expected, x)
    assert casts(model, x) == 2


def test_a_subclass_with_its_own_forward_is_respected() -> None:
    class Scaled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight * 1.001, self.bias)

    model, x = Repeated(Scaled(8, 8)), torch.randn(4, 8)
    ft.freeze(model, "layer")
    expected = step(model, x)
    attach(model)
    assert step(model, x) == expected


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_inside_a_checkpoint(use_reentrant: bool) -> None:
    class Checkpointed(Repeated):
        def again(self, x: Tensor) -> Tensor:
            return checkpoint(super().again, x, use_reentrant=use_reentrant)

    model, x = Checkpointed(nn.Linear(8, 8)), torch.randn(4, 8)
    ft.freeze(model, "layer")
    expected = step(model, x)
    attach(model)
    assert step(model, x) == expected


def test_in_function_transforms_and_inference_mode() -> None:
    model, x = Repeated(nn.Linear(8, 8)), torch.randn(3, 4, 8)
    ft.freeze(model, "layer")
    other = copy.deepcopy(model)
    attach(model)
    with torch.autocast("cpu", torch.bfloat16):
        assert bits(torch.func.vmap(model)(x)) == bits(torch.func.vmap(other)(x))
        jacobians = [torch.func.grad(lambda x, m=m: m(x).float().sum())(x[0]) for m in (model, other)]
        assert bits(jacobians[0]) == bits(jacobians[1])
        with torch.inference_mode():
            assert bits(model(x)) == bits(other(x))
    assert step(model, x[0]) == step(other, x[0])


def test_an_error_in_a_call_leaves_nothing_open() -> None:
    model = Repeated(nn.Linear(8, 8))
    ft.freeze(model, "layer")
    attach(model)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError):
        model(torch.randn(4, 9))
    assert casts(model, torch.randn(4, 8)) == 2


def test_undone_in_any_order_with_freezing_nothing_is_left() -> None:
    model = Repeated(nn.BatchNorm1d(8))
    handle = ft.freeze(model, mode="follow")  # a forward of its own lies on the norm
    before = {path: set(vars(module)) for path, module in model.named_modules()}
    plain = copy.deepcopy(Repeated(nn.BatchNorm1d(8)))
    detach = attach(model.layer)
    handle.undo()
    detach()
    assert {path: set(vars(m)) for path, m in model.named_modules()} == {
        p: set(vars(m)) for p, m in plain.named_modules()
    }
    handle, detach = ft.freeze(model, mode="follow"), attach(model.layer)
    detach()
    assert {path: set(vars(module)) for path, module in model.named_modules()} == before
    assert not isinstance(model.layer.forward, Patch)


def test_through_lean() -> None:
    model, x = Repeated(nn.Linear(8, 8)), torch.randn(4, 8)
    ft.freeze(model, "layer")
    expected = step(model, x)
    handle = ft.lean(model)
    assert step(model, x) == expected
    assert casts(model, x) == 2
    handle.undo()
    assert casts(model, x) == 7
