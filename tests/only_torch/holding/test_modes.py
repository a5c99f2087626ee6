"""A frozen part does not change through any train() and eval() calls; undone, it takes up its mode (L7, L10)."""

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import frostline.torch as ft
from frostline.errors import ModeError
from only_torch.bits import bits, contents, moved, training
from only_torch.odd_layers import StochasticDepth

NORMS = {
    "batch": lambda: nn.BatchNorm1d(4),
    "batch without affine": lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False)),
    "batch without momentum": lambda: nn.BatchNorm1d(4, momentum=None),
    "batch without statistics": lambda: nn.BatchNorm1d(4, track_running_stats=False),
    "instance": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 2)), nn.InstanceNorm1d(2, affine=True, track_running_stats=True), nn.Flatten()
    ),
    "group": lambda: nn.GroupNorm(2, 4),
    "layer": lambda: nn.LayerNorm(4),
    "sync batch": lambda: nn.SyncBatchNorm(4),
    "dropout": lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)),
    "alpha dropout": lambda: nn.Sequential(nn.Linear(4, 4), nn.AlphaDropout(0.5)),
    "randomised leaky": lambda: nn.Sequential(nn.Linear(4, 4), nn.RReLU(0.1, 0.9)),
    "spectral": lambda: parametrizations.spectral_norm(nn.Linear(4, 4)),
    "stochastic depth": StochasticDepth,
}
X = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.0, 4.0, -1.5, 1.0], [2.0, 2.5, -3.0, 0.5]])


def built(name: str) -> nn.Module:
    torch.manual_seed(2)
    return NORMS[name]()


def sweep(model: nn.Module, calls: tuple[str, ...]) -> None:
    for call in calls:
        if call == "each":
            for module in model.modules():
                module.train()
        elif call == "forward":
            model(X)
        else:
            getattr(model, call)()


SWEEPS = [*itertools.product(("train", "eval"), repeat=2), ("train", "forward", "train"), ("each", "forward", "eval")]


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("calls", SWEEPS, ids=" ".join)
def test_frozen_in_place_through_any_calls(name: str, calls: tuple[str, ...]) -> None:
    layer, plain = built(name), built(name).requires_grad_(False).eval()
    before = contents(layer)
    ft.freeze(layer)
    sweep(layer, calls)
    assert training(layer) == set()
    assert bits(layer(X)) == bits(plain(X))
    assert moved(before, layer) == set()


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("calls", SWEEPS, ids=" ".join)
def test_frozen_use_through_any_calls(name: str, calls: tuple[str, ...]) -> None:
    layer, plain = built(name), built(name).requires_grad_(False).eval()
    before = contents(layer)
    model = nn.Sequential(ft.Frozen(layer))
    sweep(model, calls)
    assert bits(model(X)) == bits(plain(X))
    assert training(model[0]) == set()
    assert moved(before, layer) == set()


@pytest.mark.parametrize("name", NORMS)
def test_following_computes_as_in_training_and_moves_nothing(name: str) -> None:
    layer, plain = built(name), built(name).requires_grad_(False)
    before = contents(layer)
    ft.freeze(layer, mode="follow")
    layer.train()
    torch.manual_seed(8)
    out = layer(X)
    torch.manual_seed(8)
    assert bits(out) == bits(plain(X))
    assert moved(before, layer) == set()
    assert bits(layer.eval()(X)) == bits(built(name).requires_grad_(False).eval()(X))


def test_following_keeps_listening_to_modes() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    handle = ft.freeze(model, mode="follow")
    assert training(model) == {"", "0", "1"}
    assert training(model.eval()) == set()
    handle.undo()
    assert training(model) == set()


@pytest.mark.parametrize(("last", "expected"), [("train", {"", "0", "1"}), ("eval", set())])
@pytest.mark.parametrize("started", ["train", "eval"])
def test_mode_that_was_asked_for_last_is_taken_up_on_undo(started: str, last: str, expected: set[str]) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    getattr(model, started)()
    handle = ft.freeze(model)
    getattr(model, last)()
    handle.undo()
    assert training(model) == expected


@pytest.mark.parametrize(("started", "expected"), [("train", {"", "0", "0.0", "0.1", "1"}), ("eval", {"", "1"})])
def test_modes_that_a_trainer_notes_and_writes_back(started: str, expected: set[str]) -> None:
    """As Lightning's does for each validation: what it notes of a held module is that it evaluates."""
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), nn.Linear(4, 4))
    getattr(model[0], started)()
    handle = ft.freeze(model, "[0]")
    for _ in range(2):
        noted = {module: module.training for module in model.modules()}
        model.eval()
        for module, mode in noted.items():
            module.training = mode
        assert training(model) == {"", "1"}
    handle.undo()
    assert training(model) == expected


@pytest.mark.parametrize(("started", "expected"), [("train", {"", "0", "1"}), ("eval", set())])
def test_mode_of_before_is_taken_up_where_none_was_asked_for(started: str, expected: set[str]) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    getattr(model, started)()
    ft.freeze(model).undo()
    assert training(model) == expected


def test_each_module_takes_up_its_own_mode() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4).eval(), nn.Linear(4, 4))
    handle = ft.freeze(model)
    handle.undo()
    assert training(model) == {"", "1"}


def test_two_modes_from_two_owners() -> None:
    """The stricter one holds; when its owner leaves, the other's does."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    ft.freeze(model, mode="follow")
    strict = ft.freeze(model)
    assert training(model.train()) == set()
    strict.undo()
    assert training(model.train()) == {"", "0", "1"}


def test_two_modes_for_two_parameters_of_one_module() -> None:
    model = nn.Linear(4, 4)
    ft.freeze(model, "weight", mode="follow")
    strict = ft.freeze(model, "bias")
    assert training(model.train()) == set()
    strict.undo()
    ft.freeze(model, "bias", mode="follow")
    assert training(model.train()) == {""}


def test_train_sets_no_flag_in_a_frozen_use() -> None:
    """Looked at directly: a walk over the modules would put it right."""
    use = ft.Frozen(nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5)))
    nn.Sequential(use).train()
    use.train()
    children = vars(use)["_modules"]
    assert (use.training, children["0"].training, children["1"].training) == (False, False, False)


def test_a_wrong_mode_is_refused_before_anything_is_changed() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ModeError):
        ft.freeze(model, mode="train")
    with pytest.raises(ModeError):
        ft.Frozen(model, mode="train")
    assert model.training
    assert len(ft.trainable(model)) == 2


class Backbone(nn.Module):
    """Freezes its first stages itself in train(), as the backbones of mmdetection do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        self.stem.eval()
        for parameter in self.stem.parameters():
            parameter.requires_grad = False
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.stem(x))


def test_train_of_their_own_goes_on_working() -> None:
    model = nn.Sequential(Backbone(), nn.Linear(4, 1)).train()
    handle = ft.freeze(model, "[0].body")
    assert training(model.train()) == {"", "1"}  # all of the backbone is frozen, by the two of them
    handle.undo()
    assert training(model.train()) == {"", "0", "0.body", "0.body.0", "0.body.1", "1"}
    assert sorted(ft.frozen(model)) == ["0.stem.0.bias", "0.stem.0.weight", "0.stem.1.bias", "0.stem.1.weight"]


def test_train_of_their_own_is_not_undone_by_a_freeze_of_all() -> None:
    model = Backbone().train()
    with ft.freeze(model):
        assert training(model.train()) == set()
    assert training(model.train()) == {"", "body", "body.0", "body.1"}


def test_frozen_use_of_a_layer_with_a_train_of_its_own() -> None:
    layer = Backbone()
    use = ft.Frozen(layer, mode="follow")
    assert training(use.train()) == {"", "body", "body.0", "body.1"}
    assert training(ft.Frozen(layer).train()) == set()


def test_what_a_call_puts_into_a_held_module_takes_up_the_mode_of_its_parent() -> None:
    """As BigBird does, which replaces its attention at the first short sequence."""

    class Switching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))

        def forward(self, x: Tensor) -> Tensor:
            if len(self.attention) == 2:
                self.attention = nn.Sequential(self.attention[0]).train(self.training)
            return self.attention(x)

    layer = Switching()
    handle = ft.freeze(layer)
    layer.train()(X)
    assert training(layer) == set()
    handle.undo()
    assert training(layer) == {"", "attention", "attention.0"}
