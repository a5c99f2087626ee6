"""F15 to F20: gradients that should come through, and do not."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import CheckpointError, checkpoint

import frostline.torch as ft
from only_torch.bits import bits, gradients


def _input() -> torch.Tensor:
    return torch.randn(3, 4, requires_grad=True)


def test_f15_the_gradient_reaches_the_input_and_all_that_is_upstream() -> None:
    """pytorch#83492: no_grad around the frozen layer kills the gradient of everything before it."""
    upstream, layer, x = nn.Linear(4, 4), nn.Linear(4, 4), _input()
    with torch.no_grad():
        dead = layer(upstream(x))
    assert not dead.requires_grad
    assert not layer(upstream(x)).detach().requires_grad

    layer(upstream(x)).sum().backward()
    expected = bits(upstream.weight.grad), bits(x.grad)
    upstream.weight.grad = x.grad = layer.weight.grad = None
    ft.Frozen(layer)(upstream(x)).sum().backward()
    assert (bits(upstream.weight.grad), bits(x.grad)) == expected
    assert layer.weight.grad is None


def test_f15_siamese_net_with_one_constant_branch() -> None:
    """pytorch#2655: out2 = net.detach()(in2), with the gradient wanted for both inputs."""
    net, one, two = nn.Linear(4, 4), _input(), _input()
    net(one).square().sum().backward()
    expected = bits(net.weight.grad)
    net.weight.grad = net.bias.grad = None
    (net(one).square().sum() + ft.frozen_call(net, two).square().sum()).backward()
    assert bits(net.weight.grad) == expected
    assert two.grad.count_nonzero() == 12


def test_f15_a_layer_trained_in_phase_one_and_constant_in_phase_three() -> None:
    """pytorch#51215: requires_grad=False kills phase one, no_grad kills phase two."""
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    ft.frozen_call(first, second(first(_input()).detach())).sum().backward()
    assert gradients(first) == {"weight": None, "bias": None}
    assert second.weight.grad.count_nonzero() == 16
    first(_input()).sum().backward()
    assert first.weight.grad.count_nonzero() == 16


def _embedded() -> tuple[nn.Module, torch.Tensor]:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 2))
    return model, torch.tensor([0, 3, 4])


def _checkpointed(model: nn.Module, words: torch.Tensor, *, reentrant: bool) -> torch.Tensor:
    embed, block, head = model
    return head(checkpoint(block, embed(words), use_reentrant=reentrant)).sum()


def test_f16_a_frozen_embedding_before_a_checkpoint() -> None:
    """transformers#21381: after frozen layers, a reentrant checkpoint has no input with a gradient."""
    model, words = _embedded()
    ft.freeze(model, "[0]")
    with pytest.warns(UserWarning, match="None of the inputs have requires_grad=True"):
        _checkpointed(model, words, reentrant=True).backward()
    assert gradients(model[1]) == {"0.weight": None, "0.bias": None}

    model.zero_grad()
    model[2](model[1](model[0](words))).sum().backward()
    expected = gradients(model)
    model.zero_grad()
    _checkpointed(model, words, reentrant=False).backward()
    assert gradients(model) == expected
    assert model[1][0].weight.grad.count_nonzero() == 16


@pytest.mark.parametrize("frozen", ["in place", "per use"])
def test_f17_an_adapter_inside_checkpointed_frozen_blocks_gets_a_gradient(frozen: str) -> None:
    """Megatron-Bridge PR#5586: a finite loss, and an adapter whose gradient norm is exactly 0.0."""
    model, words = _embedded()
    if frozen == "in place":
        ft.freeze(model)
        model[1].append(nn.Linear(4, 4))
    else:
        model = nn.Sequential(ft.Frozen(model[0]), ft.Frozen(model[1]), ft.Frozen(model[2]))
        model[1] = nn.Sequential(model[1], nn.Linear(4, 4))
    adapter = model[1][-1]
    _checkpointed(model, words, reentrant=False).backward()
    assert adapter.weight.grad.count_nonzero() == 16
    assert {name for name, gradient in gradients(model).items() if gradient is not None} == {
        f"1.{len(model[1]) - 1}.weight",
        f"1.{len(model[1]) - 1}.bias",
    }


def _toggled(layer: nn.Module, x: torch.Tensor, *, reentrant: bool) -> torch.Tensor:
    layer.requires_grad_(False)
    out = checkpoint(layer, x, use_reentrant=reentrant)
    layer.requires_grad_(True)
    return out.sum()


def test_f18_toggling_the_flag_breaks_under_checkpointing() -> None:
    """No thread: the flag is back on when the checkpoint computes the call again in backward."""
    layer = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    _toggled(layer, _input(), reentrant=True).backward()
    assert layer[0].weight.grad.count_nonzero() == 16
    loss = _toggled(layer, _input(), reentrant=False)
    with pytest.raises(CheckpointError):
        loss.backward()


@pytest.mark.parametrize("reentrant", [True, False])
def test_f18_a_frozen_use_survives_both_kinds_of_checkpoint(reentrant: bool) -> None:
    """No thread: a frozen use toggles nothing, so the second computation finds what the first found."""
    layer, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh()), _input()
    layer(x).sum().backward()
    expected, x.grad = bits(x.grad), None
    layer.zero_grad()
    checkpoint(ft.Frozen(layer), x, use_reentrant=reentrant).sum().backward()
    assert bits(x.grad) == expected
    assert gradients(layer) == {"0.weight": None, "0.bias": None}


@pytest.mark.parametrize("reentrant", [True, False])
def test_f18_a_checkpoint_inside_a_frozen_use(reentrant: bool) -> None:
    """No thread: the checkpoint is in the layer, and the frozen use is over when it computes again."""

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(4, 4), nn.Tanh())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(self.inner, x, use_reentrant=reentrant)

    layer, x = Checkpointed(), _input()
    ft.frozen_call(layer, x).sum().backward()
    assert x.grad.count_nonzero() == 12
    assert gradients(layer) == {"inner.0.weight": None, "inner.0.bias": None}


def test_f19_a_frozen_use_does_not_poison_the_cache_of_autocast() -> None:
    """pytorch#65766: a cast cached in a first use without history took the gradient of the next."""
    layer, x = nn.Linear(4, 4), _input()
    with torch.autocast("cpu", torch.bfloat16):
        layer(x).float().sum().backward()
    expected = gradients(layer)
    assert expected["weight"] is not None
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        ft.frozen_call(layer, x)
        layer(x).float().sum().backward()
    assert gradients(layer) == expected


def test_f19_nor_does_a_trainable_use_reach_a_later_frozen_one() -> None:
    """pytorch#65766, the other way round: the cached cast of a trainable use has a history."""
    layer, x = nn.Linear(4, 4), _input()
    with torch.autocast("cpu", torch.bfloat16):
        layer(x)
        ft.frozen_call(layer, x).float().sum().backward()
    assert gradients(layer) == {"weight": None, "bias": None}
    assert x.grad.count_nonzero() == 12


def _saved(model: nn.Module, x: torch.Tensor) -> int:
    """The bytes that one call saves for backward, each storage counted once."""
    storages: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = model(x)
    assert kept.requires_grad
    return sum(storages.values())


def test_f20_freezing_saves_the_same_for_backward_as_freezing_by_hand() -> None:
    """pytorch#133566: a frozen linear keeps its weight alone, a frozen convolution its input too."""
    linear, line = nn.Linear(16, 16), torch.randn(32, 16, requires_grad=True)
    conv, image = nn.Conv2d(2, 2, 3), torch.randn(1, 2, 8, 8, requires_grad=True)
    by_hand = nn.Linear(16, 16).requires_grad_(False)
    assert (_saved(linear, line), _saved(by_hand, line)) == (3072, 1024)
    assert (_saved(ft.Frozen(linear), line), _saved(ft.Frozen(conv), image)) == (1024, _saved(conv, image))
    ft.freeze(linear)
    assert _saved(linear, line) == 1024
