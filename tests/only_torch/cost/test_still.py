"""Asking for a cost moves nothing, whatever the model does while it runs."""

import copy
from dataclasses import replace

import pytest
import torch
from benchmarks.zoo import ZOO
from torch import Tensor, nn

import frostline.torch as ft
from frostline._core.reporting.bill import Bill
from frostline.errors import CostError
from only_torch.bits import contents, training


class Restless(nn.Module):
    """Has all that moves while it runs: statistics, coins, a counter, a cache, a hook, a method made in __init__."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.power = nn.utils.spectral_norm(nn.Linear(4, 4))
        self.dropout = nn.Dropout(0.5)
        self.calls, self.cache, self.biases = 0, [], torch.ones(4) * torch.ones(4, requires_grad=True)
        self.apply_norm = lambda x: self.norm(x)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.dropout(self.power(self.apply_norm(x))) + self.biases + torch.rand(4)
        self.cache.append(x)
        return x


def test_nothing_in_the_model_or_beside_it_moves() -> None:
    model = nn.Sequential(Restless(), nn.Linear(4, 2))
    ft.freeze(model, "1.bias")
    model(torch.ones(3, 4)).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    versions = {name: t._version for name, t in model.state_dict(keep_vars=True).items()}
    before, modes, state = contents(model), training(model), torch.get_rng_state()
    hooks = len(torch.nn.modules.module._global_forward_hooks)
    x = torch.ones(3, 4)
    ft.cost(model, x, optimizer=torch.optim.AdamW)
    assert contents(model) == before
    assert training(model) == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is gradients[name] for name, p in model.named_parameters())
    assert {name: t._version for name, t in model.state_dict(keep_vars=True).items()} == versions
    assert (model[0].calls, len(model[0].cache)) == (1, 1)
    assert len(torch.nn.modules.module._global_forward_hooks) == hooks
    assert torch.equal(x, torch.ones(3, 4))


def test_integers_of_the_example_are_not_written_to() -> None:
    class Masking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(5, 4)

        def forward(self, tokens: Tensor) -> Tensor:
            tokens[tokens == 3] = 0
            return self.embed(tokens)

    tokens = torch.tensor([1, 3, 2])
    ft.cost(Masking(), tokens)
    assert tokens.tolist() == [1, 3, 2]


def test_a_model_takes_the_way_that_the_example_says() -> None:
    """As a language model that skips its mask if nothing is hidden."""

    class Choosing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.short, self.long = nn.Linear(4, 4), nn.Linear(4, 400)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return (self.short if mask.all() else self.long)(x[mask])

    model, x = Choosing(), torch.ones(3, 4)
    assert ft.cost(model, x, torch.tensor([True, True, True])).now.forward_flops == 2 * 3 * 4 * 4
    assert ft.cost(model, x, torch.tensor([True, False, True])).now.forward_flops == 2 * 2 * 4 * 400


def test_a_failed_question_leaves_nothing_behind() -> None:
    model, example = ZOO["resnet18"](small=True)
    before = contents(model)
    hooks = len(torch.nn.modules.module._global_forward_pre_hooks)
    with pytest.raises(CostError):
        ft.cost(model, torch.ones(2, 5))
    assert contents(model) == before
    assert len(torch.nn.modules.module._global_forward_pre_hooks) == hooks
    assert ft.cost(model, *example).now.flops > 0


def test_a_copy_of_a_model_in_use_costs_the_same() -> None:
    model = nn.Sequential(nn.Linear(4, 4), ft.Frozen(nn.BatchNorm1d(4)), nn.Linear(4, 2))
    ft.freeze(model, "0")
    assert ft.cost(copy.deepcopy(model), torch.ones(3, 4)) == ft.cost(model, torch.ones(3, 4))


def test_wrappers_are_seen_through() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    expected = ft.cost(model, torch.ones(3, 4))
    assert ft.cost(torch.compile(model, backend="eager"), torch.ones(3, 4)) == expected
    inside = nn.Sequential(torch.compile(model, backend="eager"))
    found = ft.cost(inside, torch.ones(3, 4), optimizer=torch.optim.AdamW)
    assert Bill.total(unit.now for unit in found.units) == replace(found.now, peak_bytes=0)
    assert found.now.flops == expected.now.flops
    assert found.now.optimizer_bytes == 2 * expected.now.gradient_bytes


def test_outputs_of_every_kind_are_differentiated() -> None:
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 2), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> object:
            return {"a": (self.a(x), [None, 3, x > 0]), "b": torch.return_types.max((self.b(x), x.long()))}

    found = ft.cost(Many(), torch.ones(3, 4))
    assert found.now.weight_gradient_flops == 2 * 3 * 4 * (2 + 3)


@pytest.mark.parametrize("ambient", [torch.no_grad, torch.inference_mode])
def test_the_mode_of_the_caller_does_not_matter(ambient: type) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with ambient():
        found = ft.cost(model, torch.ones(3, 4))
    assert found == ft.cost(model, torch.ones(3, 4))


def test_what_is_beside_the_model_is_left_alone() -> None:
    """As the critic of a generator, which its loss asks."""
    critic = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    critic(torch.ones(3, 2)).sum().backward()
    before, gradients = contents(critic), [p.grad for p in critic.parameters()]
    values = [gradient.clone() for gradient in gradients if gradient is not None]
    ft.cost(nn.Linear(4, 2), torch.ones(3, 4), loss=lambda made: critic(made).mean())
    assert contents(critic) == before
    assert all(p.grad is gradient for p, gradient in zip(critic.parameters(), gradients, strict=True))
    assert all(torch.equal(p.grad, value) for p, value in zip(critic.parameters(), values, strict=True))


def test_a_critic_without_gradients_still_has_none() -> None:
    critic = nn.Linear(2, 1)
    ft.cost(nn.Linear(4, 2), torch.ones(3, 4), loss=lambda made: critic(made).mean())
    assert [p.grad for p in critic.parameters()] == [None, None]


def test_a_counter_counts_once() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
            self.first, self.later = nn.Linear(4, 4), nn.Linear(4, 400)

        def forward(self, x: Tensor) -> Tensor:
            self.calls.add_(1)
            return (self.first if self.calls == 1 else self.later)(x)

    model = Counting()
    assert ft.cost(model, torch.ones(3, 4)).now.forward_flops == 2 * 3 * 4 * 4
    assert model.calls == 0
