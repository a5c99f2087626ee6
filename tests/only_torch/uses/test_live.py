"""A frozen use sees writes to the layer elsewhere, and costs no copy (L6)."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.parametrize import remove_parametrizations

import frostline.torch as ft
from only_torch.bits import bits, contents
from only_torch.kinds import Kind, each_kind, is_double, loss, some_kinds

INTEGERS = (torch.int8, torch.int32, torch.int64, torch.uint8)


def places(layer: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Where a layer holds its floating parameters."""
    for inner in layer.modules():
        for name, parameter in list(inner._parameters.items()):
            if parameter is not None and not isinstance(inner, ft.Frozen) and parameter.dtype not in INTEGERS:
                yield inner, name, parameter


def step(layer: nn.Module, kind: Kind) -> None:
    torch.manual_seed(8)
    loss(kind.call(layer, kind.input())).backward()
    torch.optim.SGD(layer.parameters(), lr=0.5).step()


def write_in_place(layer: nn.Module, kind: Kind) -> None:
    with torch.no_grad():
        for _, _, parameter in places(layer):
            parameter.mul_(0.5)


def give_data(layer: nn.Module, kind: Kind) -> None:
    for _, _, parameter in places(layer):
        parameter.data = parameter.data * 0.5


def replace(layer: nn.Module, kind: Kind) -> None:
    for inner, name, parameter in places(layer):
        inner._parameters[name] = nn.Parameter(parameter.detach() * 0.5)
        if isinstance(inner, nn.RNNBase):
            setattr(inner, name, inner._parameters[name])


def halved_state(layer: nn.Module) -> dict[str, Tensor]:
    return {name: t.clone() if t.dtype in INTEGERS else t * 0.5 for name, t in layer.state_dict().items()}


def load(layer: nn.Module, kind: Kind) -> None:
    layer.load_state_dict(halved_state(layer))


def load_by_assignment(layer: nn.Module, kind: Kind) -> None:
    layer.load_state_dict(halved_state(layer), assign=True)


def replace_buffers(layer: nn.Module, kind: Kind) -> None:
    for inner in layer.modules():
        for name, buffer in list(inner._buffers.items()):
            if buffer is not None and buffer.is_floating_point():
                setattr(inner, name, buffer * 0.5)


def double(layer: nn.Module, kind: Kind) -> None:
    layer.double()


BREAK_TIES = ("tied",)
MOVE_LISTED = ("listed_parameters",)  # a plain list keeps the parameters that it was given


def check_live(kind: Kind, write: Callable[[nn.Module, Kind], None]) -> None:
    layer = kind.layer()
    use = ft.Frozen(layer)
    first = bits(kind.call(use, kind.input()))
    write(layer, kind)
    x, same = (kind.input(dtype=torch.float64 if is_double(layer) else torch.float32) for _ in range(2))
    out, expected = kind.call(use, x), kind.call(kind.constant(layer), same)
    assert bits(out) == bits(expected)
    assert bits(out) != first
    loss(out).backward()
    loss(expected).backward()
    assert bits(x.grad) == bits(same.grad)


@each_kind()
def test_step_of_an_optimizer(kind: Kind) -> None:
    check_live(kind, step)


@each_kind()
def test_write_in_place(kind: Kind) -> None:
    check_live(kind, write_in_place)


@each_kind()
def test_new_data(kind: Kind) -> None:
    check_live(kind, give_data)


@each_kind(without=BREAK_TIES + MOVE_LISTED)
def test_new_parameters(kind: Kind) -> None:
    check_live(kind, replace)


@each_kind()
def test_loaded_state(kind: Kind) -> None:
    check_live(kind, load)


@each_kind(without=BREAK_TIES + MOVE_LISTED)
def test_loaded_state_by_assignment(kind: Kind) -> None:
    check_live(kind, load_by_assignment)


@each_kind(without=("integer_weight", "complex_filter"))
def test_another_dtype(kind: Kind) -> None:
    check_live(kind, double)


@some_kinds("norm_net", "spectral_norm", "old_spectral_norm", "instance_norm", "plain_norm", "codebook")
def test_new_buffers(kind: Kind) -> None:
    check_live(kind, replace_buffers)


@each_kind()
def test_it_holds_no_memory_of_its_own(kind: Kind) -> None:
    """Every parameter and buffer lies where the layer's lies, also after many calls."""
    layer = kind.layer()
    use = ft.Frozen(layer)
    for _ in range(3):
        kind.call(use, kind.input())
        step(layer, kind)
        kind.call(use, kind.input())
    here = {name: t.data_ptr() for name, t in [*use.named_parameters(), *use.named_buffers()]}
    assert here == {name: t.data_ptr() for name, t in [*layer.named_parameters(), *layer.named_buffers()]}


@each_kind()
def test_it_lists_the_values_that_the_layer_has_now(kind: Kind) -> None:
    """Also where nothing was called in between."""
    layer = kind.layer()
    use = ft.Frozen(layer)
    give_data(layer, kind)
    assert contents(use) == contents(layer)


# The others save what they made of their parameters, or nothing.
SAVE_PARAMETERS = (
    *("linear", "norm_net", "lstm", "two_way_lstm", "gru", "attention", "encoder", "decoder", "group_norm"),
    *("plain_norm", "listed_children", "listed_parameters", "stochastic_depth", "cached_bias"),
    *("nested", "tied", "scalar_gain", "named_result", "bound_forward", "delegating", "back_reference"),
)


@some_kinds(*SAVE_PARAMETERS)
def test_write_between_forward_and_backward_is_an_error(kind: Kind) -> None:
    """PyTorch's own: nobody gets a gradient that mixes old and new values."""
    layer = kind.layer()
    out = kind.call(ft.Frozen(layer), kind.input())
    write_in_place(layer, kind)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss(out).backward()


def linear_use() -> tuple[nn.Sequential, ft.Frozen]:
    layer = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    use = ft.Frozen(layer)
    use(torch.ones(1, 2))
    return layer, use


def check_same(layer: nn.Module, use: nn.Module) -> None:
    x = torch.tensor([[1.0, -2.0]], requires_grad=True)
    assert bits(use(x)) == bits(layer(x))
    use(x).sum().backward()
    assert x.grad is not None
    assert [p.grad for p in layer.parameters()] == [None] * len(list(layer.parameters()))


def test_child_is_replaced() -> None:
    layer, use = linear_use()
    layer[1] = nn.Linear(2, 3)
    check_same(layer, use)


def test_child_is_added() -> None:
    layer, use = linear_use()
    layer.append(nn.Linear(2, 5))
    check_same(layer, use)


def test_child_is_removed() -> None:
    layer, use = linear_use()
    del layer[0]
    check_same(layer, use)


def test_parameter_becomes_none() -> None:
    layer, use = linear_use()
    layer[0].bias = None
    check_same(layer, use)


def test_parameter_is_added() -> None:
    layer, use = linear_use()
    layer[0].bias = None
    use(torch.ones(1, 2))
    layer[0].bias = nn.Parameter(torch.tensor([7.0, 8.0]))
    check_same(layer, use)


def test_weight_is_pruned_later() -> None:
    layer, use = linear_use()
    prune.l1_unstructured(layer[0], "weight", amount=0.5)
    check_same(layer, use)
    prune.remove(layer[0], "weight")
    check_same(layer, use)


def test_child_is_parametrized_later() -> None:
    layer, use = linear_use()
    parametrizations.weight_norm(layer[0])
    check_same(layer, use)
    remove_parametrizations(layer[0], "weight")
    check_same(layer, use)


def test_layer_itself_is_parametrized_later() -> None:
    layer = nn.Linear(2, 2)
    use = ft.Frozen(layer)
    parametrizations.weight_norm(layer)
    check_same(layer, use)
    remove_parametrizations(layer, "weight")
    check_same(layer, use)


def test_hook_that_is_added_later_changes_the_output_here_too() -> None:
    layer, use = linear_use()
    layer.register_forward_hook(lambda module, args, out: out * 2)
    check_same(layer, use)


def test_parameters_are_swapped_on_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch can convert by swapping tensors instead of setting ``.data``."""
    monkeypatch.setattr(torch.__future__, "_swap_module_params_on_conversion", True)
    layer, use = linear_use()
    layer.double()
    layer.float()
    nn.Sequential(layer, use).double().float()
    assert [p.requires_grad for p in layer.parameters()] == [True] * 4
    assert [p.requires_grad for p in use.parameters()] == [False] * 4
    check_same(layer, use)


class Uncounted(nn.BatchNorm1d):
    """Moves its statistics as many re-implementations do, without counting the batches."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, None, None, self.training)


def test_statistics_that_nobody_counts() -> None:
    """The kernel of batch norm writes them without counting a version."""
    layer = Uncounted(2)
    use = ft.Frozen(layer)
    x = torch.tensor([[1.0, 5.0], [3.0, 9.0]])
    use(x)
    layer(x)
    assert bits(use(x)) == bits(layer.eval()(x))


def test_layer_gets_shared_memory() -> None:
    layer, use = linear_use()
    layer.share_memory()
    assert all(p.is_shared() for p in use.parameters())
    check_same(layer, use)
