"""Layers that write into themselves when they are called do not change while they are frozen (L7)."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import frostline.torch as ft
from frostline import MovedError


class Normalising(nn.Module):
    """Writes its own weight in training mode, as the magnitude-preserving layers of EDM2 do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2, 2), 3.0))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.weight.copy_(nn.functional.normalize(self.weight))
        return x @ self.weight


def test_following_undoes_writes_of_a_layer_into_its_weight() -> None:
    x = torch.ones(1, 2)
    written = Normalising()
    written(x)
    assert written.weight[0, 0].item() == 0.7071068286895752
    layer = Normalising()
    assert ft.Frozen(layer, mode="follow")(x)[0, 0].item() == 1.4142136573791504
    ft.freeze(layer, mode="follow")
    layer.train()(x)
    assert layer.weight.flatten().tolist() == [3.0, 3.0, 3.0, 3.0]


class Late(nn.Module):
    """Writes a large buffer, but not before its third call."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("table", torch.zeros(size))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls >= 3:
            self.table.add_(1)
        return x * self.scale


def test_late_write_into_a_small_buffer_is_undone() -> None:
    layer = Late(4096)
    ft.freeze(layer)
    for _ in range(4):
        layer(torch.ones(1))
    assert layer.table.count_nonzero() == 0


def test_late_write_into_a_large_buffer_is_an_error() -> None:
    layer = Late(4097)
    ft.freeze(layer)
    layer(torch.ones(1))
    layer.load_state_dict({name: value + 1 for name, value in layer.state_dict().items()})
    layer(torch.ones(1))
    with pytest.raises(MovedError) as caught:
        layer(torch.ones(1))
    assert [(m.path, m.kind) for m in caught.value.moved] == [("table", "buffer")]


def test_late_write_of_a_use_into_a_large_buffer_is_an_error() -> None:
    """What calls have counted in a use lasts while the layer does not change."""
    use = ft.Frozen(Late(4097))
    use(torch.ones(1))
    use(torch.ones(1))
    with pytest.raises(MovedError) as caught:
        use(torch.ones(1))
    assert [(m.path, m.kind) for m in caught.value.moved] == [("table", "buffer")]


class Averaging(nn.Module):
    """Writes a weight of more than 4 MiB through ``.data``, which advances no version, in each call."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data.mul_(2)
        return x * self.weight.flatten()[-1]


def held(layer: nn.Module) -> nn.Module:
    ft.freeze(layer)
    return layer


@pytest.mark.parametrize(("way", "name"), [(ft.Frozen, "FrozenAveraging"), (held, "Averaging")], ids=["use", "held"])
@pytest.mark.parametrize(
    "weight",
    [torch.ones(1100, 1000), torch.ones(1000, 1100).t(), torch.ones(1100000), torch.ones(2, 550000, 1)],
    ids=["matrix", "transposed", "vector", "of three axes"],
)
def test_a_silent_write_into_a_weight_of_many_bytes_is_an_error_and_the_next_are_undone(
    way: Callable[[nn.Module], nn.Module], name: str, weight: Tensor
) -> None:
    layer = Averaging(weight.clone())
    called = way(layer)
    with pytest.raises(MovedError) as caught:
        called(torch.ones(1))
    assert str(caught.value) == (
        "1 of 1 frozen tensors moved.\n"
        f"'weight' (parameter) moved. It is a large parameter of a frozen {name}.\n"
        "  Likely cause: the module wrote into it in this call, and no copy of it was made before.\n"
        "  Keep what it writes in a parameter of at most 16384 bytes; those are restored."
    )
    layer.weight.data.fill_(1)
    for _ in range(3):
        called(torch.ones(1))
    assert (layer.weight.min().item(), layer.weight.max().item()) == (1, 1)


def test_a_call_on_tensors_without_data() -> None:
    with torch.device("meta"):
        layer = Late(5000)
    for called in (ft.Frozen(layer), held(layer)):
        for _ in range(2):
            assert called(torch.ones(1, device="meta")).shape == (1,)
