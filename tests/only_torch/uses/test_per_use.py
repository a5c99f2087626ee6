"""A frozen use of every kind of layer: output, input gradient, no gradients, no movement (L1 to L4, L7, L9)."""

import pytest
import torch
from torch import nn

import frostline.torch as ft
from only_torch.bits import bits, contents, gradients, moved, training, without_gradient
from only_torch.kinds import Kind, each_kind, loss

SEED = 8  # of the random numbers of a training call: with it, stochastic depth computes its branch


def free(layer: nn.Module) -> list[nn.Parameter]:
    return [p for p in layer.parameters() if p.requires_grad]


@each_kind()
def test_computes_the_same_as_a_constant_copy(kind: Kind) -> None:
    """L1."""
    use = ft.Frozen(kind.layer())
    assert bits(kind.call(use, kind.input())) == bits(kind.call(kind.constant(), kind.input()))


@each_kind()
def test_computes_the_same_when_called_again(kind: Kind) -> None:
    """L1, L7: a call leaves nothing behind that the next call would see."""
    use = ft.Frozen(kind.layer())
    kind.call(use, kind.input(seed=6))
    assert bits(kind.call(use, kind.input())) == bits(kind.call(kind.constant(), kind.input()))


@each_kind()
def test_computes_the_same_without_gradients(kind: Kind) -> None:
    """L1."""
    use = ft.Frozen(kind.layer())
    with torch.no_grad():
        assert bits(kind.call(use, kind.input())) == bits(kind.call(kind.constant(), kind.input()))


@each_kind()
def test_follows_the_mode_where_asked_to(kind: Kind) -> None:
    """L1: the output of a constant copy in training mode with the same random numbers."""
    use = ft.Frozen(kind.layer().eval(), mode="follow").train()
    plain = kind.constant().train()
    torch.default_generator.manual_seed(SEED)
    out = kind.call(use, kind.input())
    torch.default_generator.manual_seed(SEED)
    assert bits(out) == bits(kind.call(plain, kind.input()))


@each_kind()
def test_frozen_call_computes_the_same_as_a_frozen_use(kind: Kind) -> None:
    """L1, L3."""
    layer = kind.layer()
    out = kind.call(lambda *args, **kwargs: ft.frozen_call(layer, *args, **kwargs), kind.input())
    assert bits(out) == bits(kind.call(kind.constant(), kind.input()))
    loss(out).backward()
    assert without_gradient(layer.parameters())


@each_kind()
def test_frozen_call_computes_the_same_each_time(kind: Kind) -> None:
    layer = kind.layer()
    outs = [kind.call(lambda *args, **kwargs: ft.frozen_call(layer, *args, **kwargs), kind.input()) for _ in range(2)]
    assert bits(outs[0]) == bits(outs[1])


@each_kind()
def test_gradient_of_the_input_is_that_of_a_constant_copy(kind: Kind) -> None:
    """L2."""
    x, same = kind.input(), kind.input()
    loss(kind.call(ft.Frozen(kind.layer()), x)).backward()
    loss(kind.call(kind.constant(), same)).backward()
    assert bits(x.grad) == bits(same.grad)
    assert x.grad.count_nonzero() > 0


@each_kind()
def test_no_parameter_gets_a_gradient(kind: Kind) -> None:
    """L3."""
    layer = kind.layer()
    use = ft.Frozen(layer)
    loss(kind.call(use, kind.input())).backward()
    assert without_gradient([*layer.parameters(), *use.parameters()])


@each_kind(without=("checkpointed_reentrant",))  # which refuses torch.autograd.grad
def test_a_gradient_that_is_asked_for_is_none(kind: Kind) -> None:
    """L3."""
    layer, x = kind.layer(), kind.input()
    found = torch.autograd.grad(loss(kind.call(ft.Frozen(layer), x)), [x, *free(layer)], allow_unused=True)
    assert [g is None for g in found] == [False] + [True] * len(free(layer))


@each_kind()
def test_a_sweep_over_flags_does_not_thaw_it(kind: Kind) -> None:
    """L3: ``model.requires_grad_(True)`` is how people undo a freeze by hand."""
    layer = kind.layer()
    use = ft.Frozen(layer)
    for p in use.parameters():
        if p.is_floating_point() or p.is_complex():
            p.requires_grad_(True)
    loss(kind.call(use, kind.input())).backward()
    assert without_gradient([*layer.parameters(), *use.parameters()])


@each_kind()
@pytest.mark.parametrize("frozen_first", [True, False])
def test_the_use_that_trains_gets_its_own_gradient_alone(kind: Kind, frozen_first: bool) -> None:
    """L4: the same layer, used twice in one loss."""
    layer, alone = kind.layer(), kind.layer()
    uses = [ft.Frozen(layer), layer] if frozen_first else [layer, ft.Frozen(layer)]
    torch.default_generator.manual_seed(SEED)
    parts = [loss(kind.call(use, kind.input(seed))) for seed, use in enumerate(uses)]
    sum(parts).backward()
    torch.default_generator.manual_seed(SEED)
    loss(kind.call(alone, kind.input(uses.index(layer)))).backward()
    assert gradients(layer) == gradients(alone)
    assert not without_gradient(layer.parameters())


@each_kind(without=("checkpointed", "checkpointed_reentrant"))  # which see new statistics when they compute again
def test_the_input_of_the_frozen_use_gets_its_own_gradient_beside_training(kind: Kind) -> None:
    """L2, L4: a training call of the layer after the frozen one, before backward."""
    layer, x, same = kind.layer(), kind.input(), kind.input()
    out = kind.call(ft.Frozen(layer), x)
    torch.default_generator.manual_seed(SEED)
    loss(kind.call(layer, kind.input(6))).backward()
    loss(out).backward()
    loss(kind.call(kind.constant(), same)).backward()
    assert bits(x.grad) == bits(same.grad)


@each_kind()
def test_layer_trains_as_if_there_were_no_frozen_use(kind: Kind) -> None:
    """L4: making and calling a frozen use does not change what the layer computes next."""
    layer, alone = kind.layer(), kind.layer()
    kind.call(ft.Frozen(layer), kind.input(6))
    for one in (layer, alone):
        torch.default_generator.manual_seed(SEED)
        loss(kind.call(one, kind.input())).backward()
    assert gradients(layer) == gradients(alone)
    assert contents(layer) == contents(alone)


@each_kind()
@pytest.mark.parametrize("mode", ["eval", "follow"])
def test_nothing_in_the_layer_moves(kind: Kind, mode: str) -> None:
    """L7: neither a parameter nor a buffer moves, in any mode."""
    layer = kind.layer()
    before = contents(layer)
    use = ft.Frozen(layer, mode=mode)
    for training_mode in (True, False, True):
        use.train(training_mode)
        loss(kind.call(use, kind.input())).backward()
    assert moved(before, layer) == set()
    assert moved(before, use) == set()


@each_kind()
def test_flags_and_modes_of_the_layer_do_not_change(kind: Kind) -> None:
    """L7: the layer keeps its own."""
    layer, untouched = kind.layer(), kind.layer()
    use = ft.Frozen(layer)
    kind.call(use, kind.input())
    use.train().eval()
    assert training(layer) == training(untouched)
    assert [p.requires_grad for p in layer.parameters()] == [p.requires_grad for p in untouched.parameters()]


@each_kind()
def test_train_leaves_every_module_of_it_in_evaluation_mode(kind: Kind) -> None:
    """L7."""
    model = nn.ModuleList([ft.Frozen(kind.layer())])
    model.train()
    assert training(model) == {""}


@each_kind()
def test_parameters_that_it_lists_need_no_gradient(kind: Kind) -> None:
    """L5: code that collects the tensors that require a gradient leaves them out."""
    use = ft.Frozen(kind.layer())
    assert len(list(use.parameters())) > 0
    assert [name for name, p in use.named_parameters() if p.requires_grad] == []


@each_kind()
def test_frozen_use_of_a_frozen_use_is_one_of_the_layer(kind: Kind) -> None:
    """L9."""
    layer = kind.layer()
    twice = ft.Frozen(ft.Frozen(layer))
    assert type(twice) is type(ft.Frozen(layer))
    assert bits(kind.call(twice, kind.input())) == bits(kind.call(kind.constant(), kind.input()))
    assert list(twice.state_dict()) == list(layer.state_dict())


@each_kind()
def test_it_is_an_instance_of_the_class_of_the_layer(kind: Kind) -> None:
    layer = kind.layer()
    assert isinstance(ft.Frozen(layer), type(layer))


@each_kind()
def test_two_frozen_uses_in_one_loss(kind: Kind) -> None:
    """L3, L4."""
    layer, x, other, same = kind.layer(), kind.input(), kind.input(6), kind.input()
    (loss(kind.call(ft.Frozen(layer), x)) + loss(kind.call(ft.Frozen(layer), other))).backward()
    loss(kind.call(kind.constant(), same)).backward()
    assert without_gradient(layer.parameters())
    assert bits(x.grad) == bits(same.grad)


def test_the_layer_is_live_behind_a_negative_control() -> None:
    """A use that is not frozen does get a gradient: the tests above can fail."""
    layer = nn.Linear(4, 4)
    loss(layer(torch.ones(2, 4))).backward()
    assert not without_gradient(layer.parameters())


class FiredTwice(nn.Module):
    """Uses one layer frozen and trainable inside one model."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.trained, self.still = layer, ft.Frozen(layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.still(self.trained(self.still(x)))


def test_trainable_use_between_two_frozen_ones() -> None:
    """L4, L9: d/dw of k(w * k(x)), worked out by hand with k(x) = 3 x."""
    model = FiredTwice(nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        model.trained.weight.fill_(3.0)
    x = torch.tensor([[2.0]], requires_grad=True)
    model(x).sum().backward()
    assert model.trained.weight.grad.tolist() == [[18.0]]
    assert x.grad.tolist() == [[27.0]]


def test_frozen_in_trainable_in_frozen() -> None:
    """L9: the outer frozen use freezes all that is in it."""
    inner = nn.Linear(2, 2)
    middle = nn.Sequential(ft.Frozen(inner), nn.Linear(2, 2))
    outer = ft.Frozen(middle)
    outer(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert without_gradient([*inner.parameters(), *middle.parameters(), *outer.parameters()])
    middle(torch.ones(1, 2)).sum().backward()
    assert [name for name, g in gradients(middle).items() if g is not None] == ["1.weight", "1.bias"]


class Scaled(nn.Module):
    """Calls a function that was made when the layer was built, and that has the layer in its closure."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([2.0]))
        self.scaled = lambda x: x * self.scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scaled(x)


def test_function_that_closes_over_the_layer() -> None:
    """L3: a function is not copied with the structure, so it would reach the trainable parameters."""
    layer = Scaled()
    x = torch.tensor([3.0], requires_grad=True)
    ft.Frozen(layer)(x).backward()
    assert x.grad.tolist() == [2.0]
    assert layer.scale.grad is None


def test_embedding_that_renormalises_its_weight_when_called() -> None:
    """L7: max_norm writes into the weight during the call, in every mode."""
    layer = nn.Embedding(3, 2, max_norm=1.0)
    with torch.no_grad():
        layer.weight.fill_(3.0)
    ft.Frozen(layer)(torch.tensor([0, 1]))
    assert layer.weight.tolist() == [[3.0, 3.0]] * 3
