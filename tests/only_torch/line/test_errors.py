"""The whole texts of errors: models without a line, and inputs that a line does not take."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import frostline.torch as ft
from frostline import FrostlineError
from frostline.errors import LineError, UntraceableError
from frostline.torch._line.line import frostline
from only_torch.bits import contents, moved
from only_torch.line.lined import Net, small

X = torch.ones(3, 4)
CUT = 'Say where to cut, by the path of a module: frostline(model, *example, at="layer3").'
ALONE = 'Cut where each sample is by itself: frostline(model, *example, at="layer3").'


def net(*selectors: str) -> Net:
    model = Net()
    if selectors:
        ft.freeze(model, *selectors)
    return model


class Deciding(Net):
    """Decides by the values of the body."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        return self.head(self.neck(features) if features.sum() > 0 else features)


class Mixing(Net):
    """Each sample sees the mean of all."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        return self.head(self.neck(features - features.mean(0)))


class Dropping(Net):
    """Reduces the samples to one value."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.neck(self.body(x).mean(0, keepdim=True).softmax(1)))


class Counting(Net):
    """Does something else for one sample."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        return self.head(self.neck(features if len(x) < 4 else features.tanh()))


class Skipping(Net):
    """A connection around the neck."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.neck(self.body(x)) + x.repeat(1, 2))


class Twice(Net):
    """Calls the body twice."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.neck(self.body(self.body(x)[:, :4])))


class Own(torch.autograd.Function):
    """A function whose backward is not the derivative of its forward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 3 * gradient


class Backward(Net):
    """Calls such a function above the line."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(Own.apply(self.neck(self.body(x))))


class Counted(Net):
    """The body returns a tensor and a number."""

    def forward(self, x: Tensor) -> Tensor:
        features, times = self.body(x)
        return self.head(self.neck(features) * times)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return x, 2


def counted() -> Net:
    model = Counted()
    model.body[3] = Pair()
    ft.freeze(model, "body")
    return model.eval()


def in_another_mode() -> None:
    """In training mode batch norm moves, so that the line is before it."""
    model = by_hand().eval()
    line = frostline(model, X)
    model.train()
    line.below(X)


def held(kind: type[Net], *selectors: str) -> Net:
    model = kind()
    ft.freeze(model, *selectors)
    return model.eval()


def by_hand() -> Net:
    model = Net()
    model.body.requires_grad_(False)
    return model


def random_by_hand() -> Net:
    model = by_hand()
    model.body[1].eval()
    model.neck[0].requires_grad_(False)
    return model


def thawed() -> None:
    model, x = small()
    line = frostline(model, x)
    ft.thaw(model, "body.0")
    line.above(*line.below(x))


def thawed_above() -> None:
    model, x = small()
    line = frostline(model, x)
    features = line.below(x)
    ft.thaw(model, "body.0")
    line.above(*features)


TEXTS: list[tuple[str, Callable[[], object], list[str]]] = [
    (
        "nothing is frozen",
        lambda: frostline(net(), X),
        [
            "frostline(Net, float32[3, 4]) has nothing below its line: 0 of 10 parameters are frozen.",
            'Freeze what is to be below: ft.freeze(model, "encoder").',
        ],
    ),
    (
        "everything is frozen",
        lambda: frostline(net("**"), X),
        [
            "frostline(Net, float32[3, 4]) has nothing above its line: 0 of 10 parameters train.",
            'Train what is to be above: ft.thaw(model, "head").',
        ],
    ),
    (
        "the first layer trains",
        lambda: frostline(net("neck"), X),
        [
            "frostline(Net, float32[3, 4]) has nothing below its line: the input meets 'body.0.weight' first, "
            "which trains.",
            'Freeze what comes first: ft.freeze(model, "body.0.weight").',
        ],
    ),
    (
        "one bias at the bottom trains",
        lambda: frostline(net("**", "!body[0].bias"), X),
        [
            "frostline(Net, float32[3, 4]) has nothing below its line: the input meets 'body.0.bias' first, which "
            "trains.",
            'Freeze what comes first: ft.freeze(model, "body.0.bias").',
        ],
    ),
    (
        "an example of the wrong shape",
        lambda: frostline(net("body"), torch.ones(3, 5)),
        [
            "frostline(Net, float32[3, 5]) cannot be drawn: the model does not take the example.",
            "  RuntimeError: mat1 and mat2 shapes cannot be multiplied (3x5 and 4x8)",
            "Give it a batch as the model is called with: frostline(model, inputs).",
        ],
    ),
    (
        "an example without samples",
        lambda: frostline(net("body"), X, torch.ones(2, 4), mask=torch.ones(())),
        [
            "frostline(Net, float32[3, 4], float32[2, 4], mask=float32[]) has 3 tensors in its example, which must "
            "all have the same number of samples first.",
            "  float32[3, 4]",
            "  float32[2, 4]",
            "  float32[]",
            "Give it a batch as the model is called with: frostline(model, inputs).",
        ],
    ),
    (
        "no tensor",
        lambda: frostline(net("body")),
        [
            "frostline(Net) has 0 tensors in its example, which must all have the same number of samples first.",
            "Give it a batch as the model is called with: frostline(model, inputs).",
        ],
    ),
    (
        "other inputs",
        lambda: frostline(held(Net, "body"), X).below(torch.ones(3, 5)),
        [
            "line.below(float32[3, 5]) does not fit the line, which was drawn for:",
            "  float32[3, 4]",
            "Only the number of samples may differ; draw a line for other shapes: frostline(model, *inputs).",
        ],
    ),
    (
        "another boundary",
        lambda: frostline(held(Net, "body"), X).above(torch.ones(3, 9)),
        [
            "line.above(float32[3, 9]) does not fit the line, which was drawn for:",
            "  body float32[8], for each sample",
            "Hand it what line.below returns, samples first: line.above(*line.below(*inputs)).",
        ],
    ),
    (
        "thawed",
        thawed,
        [
            "line has 2 parameters below it that would train without a gradient.",
            "  body.0.weight",
            "  body.0.bias",
            "Freeze what is below again, or draw the line again: line = frostline(model, *example).",
        ],
    ),
    (
        "batch statistics below",
        lambda: frostline(by_hand_through(), X),
        [
            "frostline(Net, float32[3, 4]) has 'body.1' below its line, whose output changes from call to call.",
            "  body.1: BatchNorm1d, aten.batch_norm.default",
            'Hold it by freezing it here: ft.freeze(model, "body").',
        ],
    ),
    (
        "dropout below",
        lambda: frostline(random_by_hand(), X),
        [
            "frostline(Net, float32[3, 4]) has 'body.3' below its line, whose output changes from call to call.",
            "  body.3: Dropout, aten.dropout.default",
            'Hold it by freezing it here: ft.freeze(model, "body").',
        ],
    ),
    (
        "samples that are mixed",
        lambda: frostline(held(Mixing, "body", "neck[0]"), X),
        [
            "frostline(Mixing, float32[3, 4]) mixes samples below its line: 1 value cannot be stored for each sample "
            "by itself.",
            "  neck.0",
            ALONE,
        ],
    ),
    (
        "samples that are reduced",
        lambda: frostline(held(Dropping, "body", "neck[0]"), X),
        [
            "frostline(Dropping, float32[3, 4]) mixes samples below its line: 1 value cannot be stored for each sample "
            "by itself.",
            "  neck.0: aten.linear.default",
            ALONE,
        ],
    ),
    (
        "another computation for one more sample",
        lambda: frostline(held(Counting, "body"), X),
        ["frostline(Counting, float32[3, 4]) does something else for 3 samples than for 4.", CUT],
    ),
    (
        "a backward of its own",
        lambda: frostline(held(Backward, "body"), X),
        [
            "frostline(Backward, float32[3, 4]) computes something else in two parts: 4 of 6 gradients differ.",
            "  neck.0.weight: by up to 1.3e+00",
            "  neck.0.bias: by up to 1.0e+00",
            "  neck.1.weight: by up to 1.3e-01",
            "  neck.1.bias: by up to 1.0e+00",
            CUT,
        ],
    ),
    (
        "an unknown path",
        lambda: frostline(net("body"), X, at="bodi"),
        [
            "at='bodi' is not one of the 11 modules. Closest paths:",
            "  body",
            "  body.3",
            "  body.2",
            'Write the path of one: frostline(model, *example, at="body").',
        ],
    ),
    (
        "a cut above something that trains",
        lambda: frostline(net("body"), X, at="neck"),
        [
            "frostline(Net, float32[3, 4]) has 4 parameters that would be below 'neck', and train.",
            "  neck.0.bias",
            "  neck.0.weight",
            "  neck.1.bias",
            "  neck.1.weight",
            'Cut before it, or freeze it: ft.freeze(model, "neck.0.bias").',
        ],
    ),
    (
        "a cut that a connection goes around",
        lambda: frostline(held(Skipping, "body"), X, at="body"),
        [
            "frostline(Skipping, float32[3, 4]) uses more from before 'body' than its output, from which alone it "
            "cannot go on.",
            "Cut behind a module that everything goes through, or leave at= away if the model can be traced.",
        ],
    ),
    (
        "a cut behind a module that is called twice",
        lambda: frostline(held(Twice, "body"), X, at="body"),
        [
            "frostline(Twice, float32[3, 4]) calls 'body' 2 times, and a line is drawn behind one call.",
            "Cut behind a module that is called once: frostline(model, *example, at=...).",
        ],
    ),
    (
        "a cut behind a module that does not return tensors",
        lambda: frostline(counted(), X, at="body"),
        [
            "frostline(Counted, float32[3, 4]) has values at 'body' that are not tensors, and cannot be stored.",
            "  Tensor",
            "  int",
            "Cut behind a module that returns tensors: frostline(model, *example, at=...).",
        ],
    ),
    (
        "another line in another mode",
        in_another_mode,
        [
            "frostline(Net, float32[3, 4]) has another line now than when it was drawn.",
            "  now: body.0 float32[8]",
            "  then: body float32[8]",
            "Draw the line in the mode in which it is used: line = frostline(model, *example).",
        ],
    ),
    (
        "a cut above dropout",
        lambda: frostline(random_by_hand(), X, at="body"),
        [
            "frostline(Net, float32[3, 4]) has 'body.3' below its line, whose output changes from call to call.",
            "  body.3: Dropout",
            'Hold it by freezing it here: ft.freeze(model, "body").',
        ],
    ),
    (
        "a cut above batch statistics",
        lambda: frostline(by_hand(), X, at="body.2"),
        [
            "frostline(Net, float32[3, 4]) has 'body.1' below its line, whose output changes from call to call.",
            "  body.1: BatchNorm1d",
            'Hold it by freezing it here: ft.freeze(model, "body").',
        ],
    ),
]


def by_hand_through() -> Net:
    """Returns a model whose batch norm moves, with a frozen linear layer behind it."""
    model = by_hand()
    model.body[3].eval()
    model.neck[0].requires_grad_(False)
    return model


@pytest.mark.parametrize(("act", "lines"), [row[1:] for row in TEXTS], ids=[row[0] for row in TEXTS])
def test_the_whole_text(act: Callable[[], object], lines: list[str]) -> None:
    with pytest.raises(FrostlineError) as caught:
        act()
    assert str(caught.value) == "\n".join(lines)
    assert isinstance(caught.value, LineError)


def test_an_untraceable_model_is_told_where_to_cut() -> None:
    model = held(Deciding, "body")
    with pytest.raises(UntraceableError) as caught:
        frostline(model, X)
    first, second, *reasons, last = str(caught.value).splitlines()
    assert (first, second) == (
        "frostline(Deciding, float32[3, 4]) cannot be traced, and so its frost line is not known.",
        "What stopped the trace:",
    )
    assert (last, len(reasons)) == (CUT, 1)
    assert "data-dependent" in reasons[0]
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), vars(again)) == (UntraceableError, str(caught.value), vars(caught.value))


def test_thawing_stops_the_part_above_too() -> None:
    with pytest.raises(LineError, match="2 parameters below it that would train without a gradient"):
        thawed_above()


@pytest.mark.parametrize("act", [by_hand_through, random_by_hand])
def test_a_refusal_leaves_the_model_as_it_was(act: Callable[[], Net]) -> None:
    model = act()
    before, state = contents(model), torch.get_rng_state()
    flags = {path: (dict(vars(m)), m.training) for path, m in model.named_modules()}
    for at in (None, "body"):
        with pytest.raises(LineError):
            frostline(model, X, at=at)
    assert moved(before, model) == set()
    assert torch.equal(torch.get_rng_state(), state)
    assert {path: (dict(vars(m)), m.training) for path, m in model.named_modules()} == flags


def test_the_line_is_that_of_the_model_inside_a_wrapper() -> None:
    assert frostline(nn.DataParallel(held(Net, "body")), X).boundary[0].name == "body"
