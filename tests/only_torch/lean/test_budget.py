"""What is saved for backward keeps to a budget, and gradients are bitwise the same."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from benchmarks.zoo import ZOO, resnet18, vit
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import frostline.torch as ft
from frostline import UnsupportedError
from frostline.errors import BudgetError, BudgetValueError
from frostline.torch._autograd.saved import saving
from frostline.torch._holding.patch import Patch
from frostline.torch._lean import slim as _slim
from frostline.torch._lean import slimming as _slimming
from frostline.torch._lean.blocks import BlockRecorder
from frostline.torch._lean.budget import attach, lean_run
from frostline.torch._lean.checkpointed import CheckpointedForward
from only_torch.bits import bits, contents, gradients

# model -> the part of what plain freezing saves that is asked for, and the blocks that are taken.
BUDGETS: dict[str, tuple[float, list[str]]] = {
    "vit": (0.15, ["norm", "blocks.0", "blocks.1", "blocks.2"]),
    "bert": (0.30, ["embeddings.norm", "layer.0", "layer.1", "layer.2"]),
    "llama": (0.30, ["norm", "layers.0", "layers.1", "layers.2"]),
    "resnet18": (0.60, []),
    "densenet": (0.60, []),
    "unet": (0.70, []),
    "lstm": (0.50, ["lstm"]),
}


def suffix(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A small model of the zoo of which the first parameter trains."""
    model, args = ZOO[name](small=True)
    ft.freeze(model)
    ft.thaw(model, next(iter(model.named_parameters()))[0])
    return model, args


def step(model: nn.Module, *args: Tensor) -> tuple:
    """Output and gradients, as bytes."""
    model.zero_grad()
    torch.manual_seed(1)
    y = model(*args)
    y.square().mean().backward()
    return bits(y), gradients(model)


def saved(model: nn.Module, *args: Tensor) -> int:
    with saving(model) as watched:
        _ = y = model(*args)
    assert y is not None
    return watched.nbytes


def checkpointed(model: nn.Module) -> list[str]:
    """The paths of the blocks that are computed again."""
    found = []
    for path, module in model.named_modules():
        forward = vars(module).get("forward")
        while forward is not None:
            found += [path] if isinstance(forward, CheckpointedForward) else []
            forward = getattr(forward, "earlier", None)
    return found


class Layer(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(nn.functional.gelu(self.inner(x)))


def tower(layers: int = 4, layer: Callable[[], nn.Module] = Layer) -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 8), *(layer() for _ in range(layers)))
    ft.freeze(model, "[1:]")
    return model


X = (16, 8)
NARROW, WIDE = 4 * 16 * 8, 4 * 16 * 32
"""The bytes of an input of a layer, and of what its GELU saves."""


@pytest.mark.parametrize("name", BUDGETS)
def test_the_budget_holds_and_gradients_are_bitwise_the_same(name: str) -> None:
    fraction, blocks = BUDGETS[name]
    model, args = suffix(name)
    expected, plain, before = step(model, *args), saved(model, *args), contents(model)
    detach = attach(model, fraction)
    assert [step(model, *args) for _ in range(2)] == [expected] * 2
    assert 0 < saved(model, *args) <= fraction * plain
    assert not blocks or sorted(checkpointed(model)) == sorted(blocks)
    assert contents(model) == before
    detach()
    assert checkpointed(model) == []
    assert (step(model, *args), saved(model, *args)) == (expected, plain)


def test_as_many_blocks_as_the_budget_asks_for() -> None:
    model, x = tower(), torch.randn(X)
    plain = saved(model, x)
    assert plain == NARROW + 4 * WIDE
    # A layer that is computed again keeps its input in place of what its GELU saves; the stem keeps its own.
    taken = {}
    for layers in range(5):
        budget = plain - layers * (WIDE - NARROW)
        detach = attach(model, budget)
        step(model, x)
        taken[layers] = len(checkpointed(model))
        assert saved(model, x) == budget
        detach()
    assert taken == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}


def test_the_cheapest_for_each_byte_come_first() -> None:
    class Cheap(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(8))

        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(torch.sin(torch.sin(torch.sin(x)))) * self.scale

    model, x = nn.Sequential(nn.Linear(8, 8), Layer(), Cheap(), Layer()), torch.randn(X)
    ft.freeze(model, "[1:]")
    attach(model, saved(model, x) - 1)
    step(model, x)
    assert checkpointed(model) == ["2"]


def test_slimming_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_slim, "SMALL", 0)
    model, args = resnet18(small=True)
    ft.freeze(model, "**", "!conv1")
    plain = saved(model, *args)
    _slimming.attach(model)
    attach(model, 0.4)
    model(*args)
    assert checkpointed(model) == []  # without slimming there is no way: see the next
    with BlockRecorder() as recorder:
        y = model(*args)
    assert recorder.nbytes - y.nbytes <= 0.4 * plain
    other, _ = resnet18(small=True)
    ft.freeze(other, "**", "!conv1")
    attach(other, 0.4)
    with pytest.raises(BudgetError):
        other(*args)


def test_a_budget_that_cannot_be_met() -> None:
    model, x = tower(), torch.randn(X)
    expected, before = step(model, x), {path: set(vars(module)) for path, module in model.named_modules()}
    seen: list[int] = []
    handle = model[0].register_forward_hook(lambda module, args, y: seen.append(type(y) is Tensor))
    detach = attach(model, 600)
    for _ in range(2):
        with pytest.raises(BudgetError) as caught:
            model(x)
        assert str(caught.value).splitlines() == [
            "memory_budget=600 cannot be met: 2560 bytes is the least that can be reached.",
            "Without a budget 8704 bytes are saved for backward; with every frozen block checkpointed,",
            "2560 are left, which trainable parts and the inputs of the blocks need.",
            "Pass memory_budget=2560, freeze more, or make the batch smaller.",
        ]
        assert checkpointed(model) == []
    assert True not in seen  # nothing was computed: fake tensors went through
    handle.remove()
    with torch.no_grad():
        model(x)  # builds no graph, and needs no budget
    detach()
    assert {path: set(vars(module)) for path, module in model.named_modules()} == before
    assert step(model, x) == expected
    attach(model, 2560)
    assert step(model, x) == expected
    assert saved(model, x) == 2560


@pytest.mark.parametrize("budget", [0, -1, 0.0, -0.5, 1.5, float("nan"), float("inf"), True, "half", None])
def test_what_is_no_budget(budget: object) -> None:
    model = tower()
    before = set(vars(model))
    with pytest.raises(BudgetValueError) as caught:
        attach(model, budget)
    assert str(caught.value).splitlines() == [
        f"memory_budget={budget!r} is neither of the 2 kinds of budget.",
        "There are:",
        "  memory_budget=200_000_000  bytes saved for backward, an int of at least 1",
        "  memory_budget=0.5          a part of what plain freezing saves, a float above 0.0 and up to 1.0",
        "Pass memory_budget=0.5, or leave it out.",
    ]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert set(vars(model)) == before


def test_chosen_anew_when_it_would_no_longer_hold() -> None:
    model, x = tower(), torch.randn(X)
    attach(model, NARROW + 4 * WIDE)
    model(x)
    assert checkpointed(model) == []
    model(torch.randn(8, 8))
    assert model.forward.nbytes == NARROW  # smaller arguments need no new choice
    model(torch.randn(20, 8))
    assert len(checkpointed(model)) == 2
    model(x)
    assert len(checkpointed(model)) == 2


def test_thawing_and_freezing() -> None:
    model, x = tower(), torch.randn(X)
    other = copy.deepcopy(model)
    attach(model, 0.8)
    assert step(model, x) == step(other, x)
    assert len(checkpointed(model)) == 2
    handles = [ft.thaw(one, "[1:3]") for one in (model, other)]
    for one in (model, other):
        one.zero_grad()
    assert step(model, x) == step(other, x)
    assert checkpointed(model) == ["3", "4"]
    assert model[1].inner.weight.grad is not None
    for handle in handles:
        handle.undo()
    assert step(model, x) == step(other, x)
    assert len(checkpointed(model)) == 2


def test_a_block_thawed_between_forward_and_backward() -> None:
    model, x = tower(), torch.randn(X)
    expected = step(model, x)
    attach(model, 0.5)
    y = model(x)
    ft.thaw(model)
    model.zero_grad()
    y.square().mean().backward()
    assert bits(model[0].weight.grad) == expected[1]["0.weight"]
    assert all(p.grad is None for p in model[1:].parameters())


def test_random_numbers_are_drawn_again() -> None:
    class Dropping(Layer):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(super().forward(x), 0.5)

    model, x = tower(layer=Dropping), torch.randn(X)
    expected = step(model, x)
    attach(model, 0.6)
    assert step(model, x) == expected
    assert {patch.is_random for patch in model.forward.checkpointed} == {True}
    still = tower()
    attach(still, 0.6)
    step(still, x)
    assert {patch.is_random for patch in still.forward.checkpointed} == {False}


def test_dropout_that_follows_the_mode() -> None:
    model = nn.Sequential(nn.Linear(8, 8), *(nn.Sequential(Layer(), nn.Dropout(0.5)) for _ in range(4)))
    ft.freeze(model, "[1:]", mode="follow")
    model.eval()
    x, other = torch.randn(X), copy.deepcopy(model)
    attach(model, 0.5)
    for mode in (False, True):
        assert step(model.train(mode), x) == step(other.train(mode), x)


class Overwriting(Layer):
    def forward(self, x: Tensor) -> Tensor:
        y = self.outer(nn.functional.gelu(self.inner(x)))
        return x.add_(y)


def test_a_block_that_writes_to_its_input_is_not_taken() -> None:
    model, x = tower(layer=Overwriting), torch.randn(X)
    expected = step(model, x)
    attach(model, 0.9)
    with pytest.raises(BudgetError):
        model(x)
    mixed = nn.Sequential(nn.Linear(8, 8), Layer(), Layer(), Overwriting(), Layer())
    ft.freeze(mixed, "[1:]")
    expected = step(mixed, x)
    attach(mixed, 0.6)
    assert step(mixed, x) == expected
    assert "3" not in checkpointed(mixed)
    assert "2" in checkpointed(mixed)


def test_an_input_that_is_overwritten_later_is_an_error_and_no_wrong_gradient() -> None:
    class Listed(Layer):
        def forward(self, values: list[Tensor]) -> list[Tensor]:
            return [Layer.forward(self, x) for x in values]

    class Listing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.layer = nn.Linear(8, 8), Listed()

        def forward(self, x: Tensor) -> Tensor:
            self.kept = self.stem(x)
            return self.layer([self.kept])[0]

    for model, text in (
        (
            Listing(),
            "An input of Listed, of shape (16, 8), which a memory budget keeps for backward, has been modified ",
        ),
        (tower(2), "one of the variables needed for gradient computation has been modified "),  # by autograd itself
    ):
        ft.freeze(model, "layer" if isinstance(model, Listing) else "[1:]")
        if not isinstance(model, Listing):
            model[0].register_forward_hook(lambda stem, args, y, model=model: setattr(model, "kept", y))
        attach(model, 0.7)
        y = model(torch.randn(X))
        assert checkpointed(model) != []
        with torch.no_grad():
            model.kept.zero_()
        with pytest.raises(RuntimeError) as caught:
            y.sum().backward()
        assert str(caught.value).startswith(f"{text}by an inplace operation: ")


def test_hooks_run_once_and_what_has_hooks_inside_is_not_taken() -> None:
    model, x = tower(), torch.randn(X)
    calls: list[str] = []
    model[1].register_forward_hook(lambda *_: calls.append("on"))
    model[2].inner.register_forward_hook(lambda *_: calls.append("inside"))
    attach(model, 0.5)
    model(x)
    assert checkpointed(model) == ["1", "3", "4"]
    calls.clear()
    step(model, x)
    assert calls == ["on", "inside"]


def test_nested_choices_are_not_computed_twice() -> None:
    class Counted(Layer):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Counted.calls += 1
            return super().forward(x)

    inner = [nn.Sequential(Counted(), nn.Sequential(Counted(), Counted())) for _ in range(3)]
    model, x = nn.Sequential(nn.Linear(8, 8), *inner), torch.randn(X)
    ft.freeze(model, "[1:]")
    attach(model, 0.3)
    model(x)
    paths = checkpointed(model)
    assert not any(one != other and other.startswith(f"{one}.") for one in paths for other in paths)
    Counted.calls = 0
    step(model, x)
    assert 9 < Counted.calls <= 18


def test_shared_blocks_and_structured_arguments() -> None:
    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.layer = nn.Linear(8, 8), Layer()
            self.layer.forward = self.structured

        def structured(self, values: dict[str, Tensor], *, scale: float) -> dict[str, Tensor]:
            return {name: scale * Layer.forward(self.layer, x) for name, x in values.items()}

        def forward(self, x: Tensor) -> Tensor:
            values = {"a": self.stem(x), "b": 2 * self.stem(x)}
            for _ in range(3):
                values = self.layer(values, scale=0.5)
            return values["a"] + values["b"]

    model, x = Pairs(), torch.randn(X)
    ft.freeze(model, "layer")
    expected, plain = step(model, x), saved(model, x)
    attach(model, 0.6)
    assert step(model, x) == expected
    assert checkpointed(model) == ["layer"]
    assert saved(model, x) <= 0.6 * plain


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types(dtype: torch.dtype) -> None:
    model, x = tower().to(dtype), torch.randn(X, dtype=dtype)
    expected = step(model, x)
    attach(model, 0.5)
    assert step(model, x) == expected
    assert checkpointed(model) != []


def test_under_autocast() -> None:
    model, x = tower(), torch.randn(X)
    other = copy.deepcopy(model)
    attach(model, 0.7)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            results = [one(x) for one in (model, other)]
        for one, y in zip((model, other), results, strict=True):
            one.zero_grad()
            y.float().sum().backward()
        assert gradients(model) == gradients(other)
    assert checkpointed(model) != []


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_inside_a_checkpoint_of_another(use_reentrant: bool) -> None:
    model, x = tower(), torch.randn(X, requires_grad=True)
    expected = step(model, x)
    attach(model, 0.5)
    model.zero_grad()
    y = checkpoint(model, x, use_reentrant=use_reentrant)
    y.square().mean().backward()
    assert (bits(y), gradients(model)) == expected


def test_second_derivatives_retained_graphs_and_transforms() -> None:
    model, x = tower(), torch.randn(X, requires_grad=True)
    other = copy.deepcopy(model)
    attach(model, 0.5)

    def twice(one: nn.Module) -> Tensor:
        (slope,) = torch.autograd.grad(one(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), x)[0]

    assert bits(twice(model)) == bits(twice(other))
    assert checkpointed(model) != []
    y = model(x).sum()
    first = torch.autograd.grad(y, x, retain_graph=True)[0]
    assert bits(torch.autograd.grad(y, x)[0]) == bits(first)
    assert bits(torch.func.vmap(model)(x[None])) == bits(torch.func.vmap(other)(x[None]))
    slopes = [torch.func.grad(lambda x, m=m: m(x).sum())(x.detach()) for m in (model, other)]
    assert bits(slopes[0]) == bits(slopes[1])


def test_copies_and_pickles() -> None:
    model, args = vit(small=True)
    ft.freeze(model, "blocks")
    attach(model, 0.5)
    expected = step(model, *args)
    paths = checkpointed(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert step(other, *args) == expected
        assert checkpointed(other) == paths != []


def test_frozen_uses() -> None:
    layers = [Layer() for _ in range(4)]
    model, x = nn.Sequential(nn.Linear(8, 8), *map(ft.Frozen, layers)), torch.randn(X)
    expected = step(model, x)
    attach(model, 0.5)
    assert step(model, x) == expected
    assert len(checkpointed(model)) == 3
    assert not any(isinstance(vars(layer).get("forward"), Patch) for layer in layers)


def test_a_fake_run_leaves_nothing_behind() -> None:
    class Caching(Layer):
        cached = None

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("moving", torch.zeros(8))
            self.seen: list[Tensor] = []
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            if self.cached is None:
                self.cached = torch.ones(8)
            self.calls += 1
            self.seen.append(x)
            self.moving.add_(x.detach().mean(0))
            return super().forward(x) * self.cached + torch.rand(1)

    model, x = nn.Sequential(nn.Linear(8, 8), Caching()), torch.randn(X)
    ft.freeze(model, "[1].inner")
    before, state = contents(model), bits(torch.get_rng_state())
    recorder = lean_run(model, (x,), {}, list(model.modules()))
    assert recorder.nbytes > 0
    assert (contents(model), bits(torch.get_rng_state())) == (before, state)
    assert (model[1].cached, model[1].seen, model[1].calls) == (None, [], 0)
    assert model[1]._forward_hooks == model[1]._forward_pre_hooks == {}


@pytest.mark.parametrize("name", sorted(ZOO.keys() - {"resnet50", "mobilenet_v3"}))
def test_a_fake_run_counts_what_is_saved(name: str) -> None:
    model, args = suffix(name)
    assert lean_run(model, args, {}).nbytes == saved(model, *args)


def test_a_model_that_asks_for_values_cannot_run_without_data() -> None:
    class Asking(Layer):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() > 0 else super().forward(-x)

    model, x = tower(layer=Asking), torch.randn(X)
    expected = step(model, x)
    detach = attach(model, 0.5)
    with pytest.raises(UnsupportedError) as caught:
        model(x)
    assert str(caught.value).splitlines() == [
        "lean(model, memory_budget=...) cannot run Sequential without data, because it reads the values of a tensor: "
        "aten._local_scalar_dense.default.",
        "Leave memory_budget out, and checkpoint blocks by hand: checkpoint(block, x, use_reentrant=False).",
    ]
    assert checkpointed(model) == []
    detach()
    assert step(model, x) == expected


def test_a_block_with_two_places_is_not_computed_three_times() -> None:
    class Inner(Layer):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Inner.calls += 1
            return super().forward(x)

    inner, x = Inner(), torch.randn(X)
    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.GELU(), inner, nn.GELU(), nn.GELU(), nn.GELU()), inner)
    ft.freeze(model, "[1:]")
    expected = step(model, x)
    attach(model, 0.7)
    assert step(model, x) == expected
    assert checkpointed(model) != []
    Inner.calls = 0
    step(model, x)
    assert Inner.calls <= 4


def test_attention_without_dropout_is_not_random() -> None:
    model, args = vit(small=True)
    ft.freeze(model, "blocks")
    attach(model, 0.5)
    model(*args)
    assert {patch.is_random for patch in model.forward.checkpointed} == {False}


def test_through_lean() -> None:
    model, args = suffix("vit")
    expected, plain = step(model, *args), saved(model, *args)
    before = {path: set(vars(module)) for path, module in model.named_modules()}
    handle = ft.lean(model, memory_budget=0.15)
    assert step(model, *args) == expected
    assert saved(model, *args) <= 0.15 * plain
    handle.undo()
    assert {path: set(vars(module)) for path, module in model.named_modules()} == before
    with pytest.raises(BudgetValueError):
        ft.lean(model, memory_budget=0)
    assert {path: set(vars(module)) for path, module in model.named_modules()} == before
