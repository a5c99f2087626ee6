"""Saving, moving and copying a model with frozen uses in it, as if they were plain modules (L5)."""

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn

import frostline.torch as ft
from only_torch.bits import bits, contents
from only_torch.kinds import Kind, each_kind, loss


def both(kind: Kind) -> tuple[nn.Module, ft.Frozen, nn.ModuleList]:
    """A layer, a frozen use of it, and a model with both."""
    layer = kind.layer()
    use = ft.Frozen(layer)
    return layer, use, nn.ModuleList([layer, use])


def addresses(module: nn.Module) -> dict[str, int]:
    return {name: t.data_ptr() for name, t in module.state_dict().items() if isinstance(t, Tensor)}


def halve(layer: nn.Module) -> None:
    with torch.no_grad():
        for p in layer.parameters():
            if p.requires_grad:
                p.mul_(0.5)


def check_shared(kind: Kind, layer: nn.Module, use: nn.Module) -> None:
    """Checks that the use sees writes to the layer, and that no gradient comes back."""
    assert isinstance(use, ft.Frozen)
    layer.train()
    halve(layer)
    out = kind.call(use, kind.input())
    assert bits(out) == bits(kind.call(kind.constant(layer), kind.input()))
    loss(out).backward()
    assert [p.grad for p in layer.parameters()] == [None] * len(list(layer.parameters()))
    assert [p.requires_grad for p in use.parameters()] == [False] * len(list(use.parameters()))


@each_kind()
def test_state_dict_has_the_names_of_the_layer(kind: Kind) -> None:
    layer, use, _ = both(kind)
    assert list(use.state_dict()) == list(layer.state_dict())
    assert contents(use) == contents(layer)


@each_kind()
def test_state_of_the_plain_model_loads_strictly_into_the_frozen_one(kind: Kind) -> None:
    plain = nn.Sequential(kind.layer())
    halve(plain)
    model = nn.Sequential(ft.Frozen(kind.layer()))
    model.load_state_dict(plain.state_dict(), strict=True)
    assert contents(model) == contents(plain)


@each_kind()
def test_state_of_the_frozen_model_loads_strictly_into_the_plain_one(kind: Kind) -> None:
    layer = kind.layer()
    halve(layer)
    plain = nn.Sequential(kind.layer())
    plain.load_state_dict(nn.Sequential(ft.Frozen(layer)).state_dict(), strict=True)
    assert contents(plain) == contents(nn.Sequential(layer))


@each_kind()
def test_loading_into_a_use_loads_into_its_layer(kind: Kind) -> None:
    """They share their tensors, as one module at two places does."""
    layer, use, _ = both(kind)
    source = kind.layer()
    halve(source)
    use.load_state_dict(source.state_dict())
    assert contents(layer) == contents(source)
    check_shared(kind, layer, use)


@each_kind(without=("tied", "listed_parameters"))  # assignment breaks ties, as it does without frostline
def test_loading_by_assignment_into_a_use(kind: Kind) -> None:
    layer, use, _ = both(kind)
    source = kind.layer()
    halve(source)
    flags = [p.requires_grad for p in layer.parameters()]
    use.load_state_dict({name: t.clone() for name, t in source.state_dict().items()}, assign=True)
    assert contents(layer) == contents(source)
    assert [p.requires_grad for p in layer.parameters()] == flags
    check_shared(kind, layer, use)


@each_kind(without=("tied", "listed_parameters"))
def test_loading_by_assignment_into_a_model_with_both(kind: Kind) -> None:
    layer, use, model = both(kind)
    halve(layer)
    model.load_state_dict({name: t.clone() for name, t in model.state_dict().items()}, assign=True)
    assert addresses(use) == addresses(layer)
    check_shared(kind, layer, use)


@each_kind(without=("integer_weight", "complex_filter"))
def test_another_dtype_for_the_model(kind: Kind) -> None:
    layer, use, model = both(kind)
    model.to(torch.float64)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    x = kind.input(dtype=torch.float64)
    assert bits(kind.call(use, x)) == bits(kind.call(kind.constant(layer), x))
    assert addresses(use) == addresses(layer)


@each_kind(without=("integer_weight", "complex_filter"))
def test_another_dtype_for_a_use_alone_moves_its_layer(kind: Kind) -> None:
    """As ``.to`` on a shared module moves it for all that share it."""
    layer, use, _ = both(kind)
    use.double()
    assert {p.dtype for p in layer.parameters()} == {torch.float64}
    assert addresses(use) == addresses(layer)


@each_kind(without=("cached_bias",))  # to_empty reads what is not there: the cache of a layer in training is empty
def test_to_meta_and_back(kind: Kind) -> None:
    source = kind.layer()
    layer, use, model = both(kind)
    model.to("meta")
    assert {t.device.type for t in [*use.parameters(), *use.buffers()]} == {"meta"}
    assert {t.device.type for t in [*layer.parameters(), *layer.buffers()]} == {"meta"}
    model.to_empty(device="cpu")
    layer.load_state_dict(source.state_dict())
    assert contents(use) == contents(source)
    assert [p.requires_grad for p in use.parameters()] == [False] * len(list(use.parameters()))


CANNOT_BE_COPIED = ("old_weight_norm", "old_spectral_norm")  # PyTorch's deepcopy refuses them too
# PyTorch refuses a parametrized module, and its quantisation gives a module functions of no name.
CANNOT_BE_PICKLED = ("weight_norm", "spectral_norm", "orthogonal", "prepared_for_quantisation")


@each_kind(without=CANNOT_BE_COPIED)
def test_deepcopy_of_both_shares_among_the_copies(kind: Kind) -> None:
    layer, use, _ = both(kind)
    kind.call(use, kind.input())
    before = contents(layer)
    layer_copy, use_copy = copy.deepcopy((layer, use))
    assert addresses(use_copy) == addresses(layer_copy)
    check_shared(kind, layer_copy, use_copy)
    assert contents(layer) == before


@each_kind(without=CANNOT_BE_COPIED)
def test_deepcopy_of_a_use_alone_is_a_frozen_use_of_its_own(kind: Kind) -> None:
    layer, use, _ = both(kind)
    alone = copy.deepcopy(use)
    before = contents(layer)
    halve(layer)
    assert contents(alone) == before
    x = kind.input()
    loss(kind.call(alone, x)).backward()
    assert [p.grad for p in alone.parameters()] == [None] * len(list(alone.parameters()))
    assert x.grad is not None


@each_kind()
def test_copy_of_a_use_is_another_use_of_the_same_layer(kind: Kind) -> None:
    layer, use, _ = both(kind)
    other = copy.copy(use)
    assert other is not use
    check_shared(kind, layer, other)


PICKLED = CANNOT_BE_PICKLED + CANNOT_BE_COPIED


@each_kind(without=PICKLED)
def test_pickle_of_both_shares_among_the_copies(kind: Kind) -> None:
    layer, use, _ = both(kind)
    kind.call(use, kind.input())
    layer_copy, use_copy = pickle.loads(pickle.dumps((layer, use)))
    check_shared(kind, layer_copy, use_copy)


@each_kind(without=PICKLED)
def test_saved_module_shares_when_loaded(kind: Kind) -> None:
    _, use, model = both(kind)
    kind.call(use, kind.input())
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert addresses(loaded[1]) == addresses(loaded[0])
    check_shared(kind, loaded[0], loaded[1])


@each_kind()
def test_saved_state_loads_with_weights_only(kind: Kind) -> None:
    layer, _, model = both(kind)
    halve(layer)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    _, _, other = both(kind)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert contents(other) == contents(model)


@each_kind()
def test_saved_state_stores_shared_tensors_once(kind: Kind) -> None:
    _, _, model = both(kind)
    state = model.state_dict()
    names = [name for name in state if name.startswith("0.")]
    assert [state[n].data_ptr() for n in names] == [state[f"1.{n[2:]}"].data_ptr() for n in names]
    assert len(state) == 2 * len(names)


@each_kind()
def test_shared_memory(kind: Kind) -> None:
    layer, use, model = both(kind)
    model.share_memory()
    assert all(p.is_shared() for p in use.parameters())
    assert addresses(use) == addresses(layer)


@pytest.mark.parametrize("mode", ["eval", "follow"])
@pytest.mark.parametrize("training", [True, False])
def test_copies_keep_mode(mode: str, training: bool) -> None:
    use = ft.Frozen(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)), mode=mode).train(training)
    expected = training and mode == "follow"
    for other in (copy.deepcopy(use), copy.copy(use), pickle.loads(pickle.dumps(use))):
        assert [m.training for m in other.modules()] == [expected] * 3
        assert [m.training for m in other.train(True).modules()] == [mode == "follow"] * 3
        assert [m.training for m in other.eval().modules()] == [False] * 3


def test_loading_by_assignment_keeps_an_optimizer_of_others_right() -> None:
    """The layer beside the frozen use keeps its own parameters."""
    model = nn.Sequential(nn.Linear(2, 2), ft.Frozen(nn.Linear(2, 2)))
    head = model[0].weight
    model[1].load_state_dict({"weight": torch.ones(2, 2), "bias": torch.zeros(2)}, assign=True)
    assert model[0].weight is head
    assert model[1].weight.tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_strict_load_names_missing_keys() -> None:
    use = ft.Frozen(nn.Linear(2, 2))
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "bias"'):
        use.load_state_dict({"weight": torch.ones(2, 2)})


def test_seven_uses_of_one_layer_hold_it_once() -> None:
    layer = nn.Linear(64, 64)
    model = nn.ModuleList([layer, *(ft.Frozen(layer) for _ in range(7))])
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in model.state_dict().values()}
    assert sum(storages.values()) == (64 * 64 + 64) * 4
