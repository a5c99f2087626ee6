"""The whole text of every error of a cost."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import frostline.torch as ft
from frostline import FrostlineError, UnsupportedError
from frostline.errors import CostError


class Looking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gate(x))


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"count": (x * self.scale).argmax()}


class Holding(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 2)
        self.numbers = (number for number in range(3))


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2))
    ft.freeze(model)
    return model


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(nn.Linear(4, 2))


TEXTS: dict[str, tuple[Callable[[], Any], type[Exception], list[str]]] = {
    "an example of the wrong shape": (
        lambda: ft.cost(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(9, 2)), torch.ones(3, 4)),
        CostError,
        [
            "cost(model, float32[3, 4]) stops in '2' (Linear), called with (float32[3, 8]): RuntimeError: "
            "a and b must have same reduction dim, but got [3, 8] X [9, 2].",
            "  weight is float32[2, 9]",
            "  bias is float32[2]",
            "Pass the arguments of a training call: cost(model, *batch), where model(*batch) runs.",
        ],
    ),
    "an argument that the model does not take": (
        lambda: ft.cost(nn.ReLU(), torch.ones(3, 4), mask=torch.ones(3, dtype=torch.bool)),
        CostError,
        [
            "cost(model, float32[3, 4], mask=bool[3]) stops in the model (ReLU), called with (float32[3, 4]): "
            "TypeError: ReLU.forward() got an unexpected keyword argument 'mask'",
            "Pass the arguments of a training call: cost(model, *batch), where model(*batch) runs.",
        ],
    ),
    "nothing that needs a gradient": (
        lambda: ft.cost(frozen(), torch.ones(3, 4)),
        CostError,
        [
            "cost(model, float32[3, 4]) has nothing to differentiate: all 4 parameters are frozen.",
            "  0.weight",
            "  0.bias",
            "  1.weight",
            "  1.bias",
            'Thaw a part, ft.thaw(model, "head"), or pass an example that requires a gradient.',
        ],
    ),
    "no output that can be differentiated": (
        lambda: ft.cost(Counting(), torch.ones(3)),
        CostError,
        [
            "cost(model, float32[3]) finds no floating output that depends on a trainable parameter.",
            "Pass the loss: cost(model, x, loss=lambda output: output.score).",
        ],
    ),
    "a model that looks at numbers": (
        lambda: ft.cost(Looking(), torch.ones(3, 4)),
        UnsupportedError,
        [
            "cost(model, float32[3, 4]) cannot be computed: 'gate' (Gate) reads values "
            "(aten._local_scalar_dense.default), but a fake run has only shapes.",
            "Ask for the cost of the parts that do not: cost(model.encoder, x), and so on.",
        ],
    ),
    "no parameters": (
        lambda: ft.cost(nn.ReLU(), torch.ones(3, 4)),
        CostError,
        [
            "cost(model, float32[3, 4]) has nothing to differentiate: the model has no parameters.",
            "Ask for the cost of the whole model, or pass an example that requires a gradient.",
        ],
    ),
    "a part that TorchScript has compiled": (
        lambda: ft.cost(nn.Sequential(scripted(), nn.Linear(2, 2)), torch.ones(3, 4)),
        UnsupportedError,
        [
            "cost(model) cannot be computed: Linear was compiled by TorchScript, and its parameters cannot be "
            "exchanged.",
            "Ask for the cost of the module from which it was compiled.",
        ],
    ),
    "an attribute that cannot be copied": (
        lambda: ft.cost(Holding(), torch.ones(3, 4)),
        UnsupportedError,
        [
            "cost(model) cannot copy the structure of Holding: cannot pickle 'generator' object.",
            "Move the attribute that cannot be copied out of the model while its cost is asked for.",
        ],
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_whole_text(name: str) -> None:
    act, kind, lines = TEXTS[name]
    with pytest.raises(kind) as caught:
        act()
    assert isinstance(caught.value, FrostlineError)
    assert str(caught.value).splitlines() == lines


def test_a_kernel_that_needs_data_is_named() -> None:
    class Own(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.frostline_tests.opaque(super().forward(x))

    with torch.library._scoped_library("frostline_tests", "DEF") as library:
        library.define("opaque(Tensor x) -> Tensor")
        library.impl("opaque", lambda x: x.clone(), "CPU")
        with pytest.raises(UnsupportedError) as caught:
            ft.cost(Own(4, 2), torch.ones(3, 4))
    assert str(caught.value).splitlines() == [
        "cost(model, float32[3, 4]) cannot be computed: the model (Own) calls an operator that needs data "
        "(frostline_tests.opaque.default).",
        "Register a fake kernel with torch.library.register_fake, or ask for the cost of the other parts.",
    ]


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(TypeError, match=r"a model is an nn\.Module; this is of type int"):
        ft.cost(3, torch.ones(3, 4))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("optimizer", "name", "reason"),
    [
        ("adam", "str", "TypeError: 'str' object is not callable"),
        (len, "len", "TypeError: it returns a value of type int, which is not an optimizer"),
    ],
)
def test_what_is_no_optimizer_is_refused(optimizer: Any, name: str, reason: str) -> None:
    with pytest.raises(CostError) as caught:
        ft.cost(nn.Linear(4, 2), torch.ones(3, 4), optimizer=optimizer)
    assert str(caught.value).splitlines() == [
        f"cost(model, ..., optimizer={name}) cannot be computed: the optimizer does not take float32[2, 4]: {reason}.",
        "Pass an optimizer of this model's parameters, or a class: optimizer=torch.optim.AdamW.",
    ]


def test_an_optimizer_of_some_parameters_keeps_nothing_for_those_it_cannot_take() -> None:
    model = nn.Linear(4, 2)
    muon = torch.optim.Muon([model.weight])
    assert ft.cost(model, torch.ones(3, 4), optimizer=muon).now.optimizer_bytes == 4 * 2 * 4
