"""A frozen recurrent layer under cuDNN, which cannot differentiate in evaluation mode (L2, L7)."""

import pytest
import torch
from torch import Tensor, nn

import frostline.torch as ft
from frostline.torch._holding import calls as _calls
from only_torch.bits import bits, without_gradient


@pytest.fixture
def _cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every recurrent layer look as if cuDNN ran it."""
    monkeypatch.setattr(_calls, "runs_on_cudnn", lambda module: isinstance(module, nn.RNNBase))


def lstm() -> nn.LSTM:
    torch.manual_seed(0)
    return nn.LSTM(4, 4, num_layers=2, dropout=0.5)


class Failing(nn.LSTM):
    """Fails when called, after the flags were turned."""

    def forward(self, x: Tensor) -> Tensor:
        raise ArithmeticError(self.training, self.dropout)


@pytest.mark.usefixtures("_cudnn")
@pytest.mark.parametrize("how", ["use", "in place", "inside a use"])
def test_recurrent_layer_on_cudnn_is_turned_during_the_call_only(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN differentiates in training mode only; without dropout it computes what evaluation mode computes."""
    layer = lstm()
    if how == "use":
        model: nn.Module = ft.Frozen(layer)
    elif how == "inside a use":
        model = ft.Frozen(nn.ModuleList([layer]))[0]
    else:
        ft.freeze(layer)
        model = layer
    seen, real = [], model.forward
    flat = model._flat_weights
    monkeypatch.setattr(
        nn.LSTM, "permute_hidden", lambda self, *a: seen.append((self.training, self.dropout)) or a[0], raising=True
    )
    x = torch.randn(3, 2, 4, requires_grad=True)
    model(x)[0].sum().backward()
    assert seen == [(True, 0.0)]
    assert (model.training, model.dropout) == (False, 0.5)
    assert model.forward == real
    assert [id(w) for w in model._flat_weights] == [id(w) for w in flat]
    assert x.grad is not None
    assert without_gradient(layer.parameters())


@pytest.mark.usefixtures("_cudnn")
@pytest.mark.parametrize("how", ["use", "in place"])
def test_flags_of_a_recurrent_layer_are_restored_after_an_exception(how: str) -> None:
    layer = Failing(4, 4, num_layers=2, dropout=0.5)
    model = ft.Frozen(layer) if how == "use" else layer
    if how == "in place":
        ft.freeze(layer)
    with pytest.raises(ArithmeticError) as caught:
        model(torch.ones(3, 2, 4))
    assert caught.value.args == (True, 0.0)
    assert (model.training, model.dropout) == (False, 0.5)


@pytest.mark.usefixtures("_cudnn")
def test_recurrent_layer_computes_the_same_with_turned_flags() -> None:
    plain = lstm().requires_grad_(False).eval()
    x, same = (torch.ones(3, 2, 4, requires_grad=True) for _ in range(2))
    out, expected = ft.Frozen(lstm())(x)[0], plain(same)[0]
    out.sum().backward()
    expected.sum().backward()
    assert bits(out) == bits(expected)
    assert bits(x.grad) == bits(same.grad)


@pytest.mark.usefixtures("_cudnn")
def test_recurrent_layer_is_not_turned_where_nothing_is_differentiated() -> None:
    model = ft.Frozen(Failing(4, 4, num_layers=2, dropout=0.5))
    with torch.no_grad(), pytest.raises(ArithmeticError) as caught:
        model(torch.ones(3, 2, 4))
    assert caught.value.args == (False, 0.5)
