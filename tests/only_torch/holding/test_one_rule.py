"""The outermost held call owns all that lies below its module: nothing in it moves, however it is written (L7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

import frostline.torch as ft
from only_torch.bits import bits, contents, moved
from only_torch.foreign_layers import WRITERS, Quantised

X = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.0, 4.0, -1.5, 1.0], [2.0, 2.5, -3.0, 0.5]])

each_writer = pytest.mark.parametrize("build", WRITERS.values(), ids=WRITERS)
each_mode = pytest.mark.parametrize("mode", ["eval", "follow"])


def built(build: Callable[[], nn.Module]) -> nn.Module:
    torch.default_generator.manual_seed(3)
    return build()


def held(layer: nn.Module, mode: str) -> nn.Module:
    model = nn.Sequential(layer, nn.Identity())
    ft.freeze(model, "[0]", mode=mode)
    return model.train()


@each_writer
def test_by_hand_they_move(build: Callable[[], nn.Module]) -> None:
    layer = built(build).requires_grad_(False).eval()
    before = contents(layer)
    layer(X)
    assert moved(before, layer) != set()


@each_mode
@each_writer
def test_frozen_in_place_they_stand_still(build: Callable[[], nn.Module], mode: str) -> None:
    layer = built(build)
    before, objects = contents(layer), [id(t) for t in (*layer.parameters(), *layer.buffers())]
    model = held(layer, mode)
    for _ in range(3):
        model(X)
    assert moved(before, layer) == set()
    assert [id(t) for t in (*layer.parameters(), *layer.buffers())] == objects


@each_mode
@each_writer
def test_a_frozen_use_leaves_them_still(build: Callable[[], nn.Module], mode: str) -> None:
    layer = built(build).train()
    before, objects = contents(layer), [id(t) for t in (*layer.parameters(), *layer.buffers())]
    use = ft.Frozen(layer, mode=mode).train()
    for _ in range(3):
        use(X)
    assert moved(before, layer) == set()
    assert [id(t) for t in (*layer.parameters(), *layer.buffers())] == objects


@each_writer
def test_each_call_computes_what_a_first_call_computes(build: Callable[[], nn.Module]) -> None:
    expected = bits(built(build).requires_grad_(False).eval()(X))
    model = held(built(build), "eval")
    assert [bits(model(X)) for _ in range(3)] == [expected] * 3


@each_writer
def test_undone_they_move_again(build: Callable[[], nn.Module]) -> None:
    layer, plain = built(build), built(build)
    with ft.freeze(layer):
        layer(X)
    before = contents(layer)
    layer(X)
    plain.eval().train()(X)
    assert moved(before, layer) != set()
    assert contents(layer) == contents(plain)


@each_writer
def test_an_exception_in_the_call_leaves_nothing_behind(build: Callable[[], nn.Module]) -> None:
    layer = built(build)
    before = contents(layer)
    model = held(layer, "follow")
    with pytest.raises((RuntimeError, IndexError)):
        model(torch.ones(3, 5))
    model(X)
    assert moved(before, layer) == set()


def test_the_gradient_reads_what_the_call_has_written() -> None:
    """A graph that has saved a codebook keeps the one that its call has computed with."""
    plain, layer = built(Quantised), built(Quantised)
    ft.freeze(layer)
    plain.requires_grad_(False)
    expected, found = X.clone().requires_grad_(), X.clone().requires_grad_()
    plain.eval()(expected).square().sum().backward()
    for _ in range(2):
        found.grad = None
        layer(found).square().sum().backward()
        assert bits(found.grad) == bits(expected.grad)


def test_a_failing_copy_ends_nothing() -> None:
    """Out of memory while the backup is made: the next call is held as before."""

    class Failing(torch.Tensor):
        fails = True

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if cls.fails and func is torch.Tensor.clone:
                raise MemoryError
            return super().__torch_function__(func, types, args, kwargs or {})

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.register_buffer("count", torch.zeros(1).as_subclass(Failing))
            self.register_buffer("other", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.other += 1
            return self.linear(x)

    layer, other = Counting(), Recounted()
    ft.freeze(layer)
    ft.freeze(other)
    with pytest.raises(MemoryError):
        layer(X)
    other(X)
    Failing.fails = False
    layer(X)
    assert (other.count.item(), layer.other.item()) == (0.0, 0.0)


class Recounted(nn.Module):
    """Counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.linear(x)


class Yielding(Recounted):
    """Returns a generator, which runs when the call has ended."""

    def forward(self, x: Tensor) -> Iterator[Tensor]:
        for _ in range(3):
            self.count += 1
            yield self.linear(x)
            self.count += 1


class Awaiting(Recounted):
    """Returns a coroutine."""

    async def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        await asyncio.sleep(0)
        self.count += 1
        return self.linear(x)


class YieldingLater(Recounted):
    """Returns an asynchronous generator."""

    async def forward(self, x: Tensor) -> AsyncIterator[Tensor]:
        for _ in range(3):
            self.count += 1
            await asyncio.sleep(0)
            yield self.linear(x)


def run(layer: nn.Module, module: nn.Module) -> list[Tensor]:
    """Calls a module of one of the three kinds, and returns what it gives."""

    async def collected() -> list[Tensor]:
        return [item async for item in module(X)]

    if isinstance(layer, Awaiting):
        return [asyncio.run(module(X))]
    return asyncio.run(collected()) if isinstance(layer, YieldingLater) else list(module(X))


@pytest.mark.parametrize("kind", [Yielding, Awaiting, YieldingLater])
def test_what_runs_after_the_call_is_held_too(kind: type[nn.Module]) -> None:
    layer, plain = built(kind), built(kind)
    expected = [bits(item) for item in run(plain, plain.requires_grad_(False).eval())]
    assert plain.count.item() > 0
    assert [bits(item) for item in run(layer, ft.Frozen(layer))] == expected
    ft.freeze(layer)
    assert [bits(item) for item in run(layer, layer)] == expected
    assert layer.count.item() == 0


def test_a_generator_gets_what_is_sent_and_thrown() -> None:
    class Echo(Recounted):
        def forward(self, x: float) -> Iterator[float]:
            self.count += 1
            try:
                while True:
                    x = yield x + self.count.item()
            except KeyError:
                yield -1.0

    layer = Echo()
    ft.freeze(layer)
    steps = layer(1.0)
    assert (next(steps), steps.send(5.0), steps.throw(KeyError())) == (2.0, 5.0, -1.0)
    steps.close()
    assert layer.count.item() == 0


def test_a_hook_that_is_added_later_is_held() -> None:
    layer = nn.Linear(4, 4)
    layer.register_buffer("seen", torch.zeros(4))
    ft.freeze(layer)
    layer.register_forward_hook(lambda module, args, out: module.seen.add_(1))
    layer(X)
    assert layer.seen.tolist() == [0.0, 0.0, 0.0, 0.0]


def test_a_direct_call_of_forward_is_held() -> None:
    layer = Recounted()
    ft.freeze(layer)
    layer.forward(X)
    layer.forward = layer.forward
    layer.forward(X)
    layer(X)
    assert layer.count.item() == 0


def test_a_new_head_below_a_frozen_model_moves() -> None:
    """What trains below a held module is not held with it."""
    model = nn.Sequential(Recounted(), nn.Identity())
    parent = Around(model)
    ft.freeze(parent)
    parent.model[1] = nn.BatchNorm1d(4)
    parent(X)
    assert parent.model[1].num_batches_tracked.item() == 1
    assert parent.model[0].count.item() == 0


class Around(nn.Module):
    """Calls a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)
