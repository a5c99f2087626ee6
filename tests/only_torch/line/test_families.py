"""The line of models from a library, and of models that do odd things."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import frostline.torch as ft
from frostline.errors import LineError
from frostline.torch._line.line import frostline
from only_torch.line.lined import both_ways, crossing, outputs

TEXT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}
PICTURE = {"num_labels": 3, "image_size": 16}


def bert() -> nn.Module:
    return hf.BertForSequenceClassification(hf.BertConfig(**TEXT))


def llama(*, use_cache: bool = False) -> nn.Module:
    return hf.LlamaForCausalLM(hf.LlamaConfig(**TEXT, num_key_value_heads=1, use_cache=use_cache))


def gpt2() -> nn.Module:
    return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, use_cache=False))


def vit() -> nn.Module:
    return hf.ViTForImageClassification(hf.ViTConfig(**TEXT, **PICTURE, patch_size=4))


def swin() -> nn.Module:
    sizes = {"patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2}
    return hf.SwinForImageClassification(hf.SwinConfig(**PICTURE, **sizes))


def resnet() -> nn.Module:
    config = hf.ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=3)
    return hf.ResNetForImageClassification(config)


def t5() -> nn.Module:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 50}
    return hf.T5ForConditionalGeneration(hf.T5Config(**sizes, decoder_start_token_id=0, use_cache=False))


def words(samples: int) -> dict[str, Tensor]:
    mask = torch.ones(samples, 10, dtype=torch.long)
    mask[::2, 4:] = 0
    return {"input_ids": torch.randint(1, 50, (samples, 10)), "attention_mask": mask}


def pictures(samples: int) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(samples, 3, 16, 16)}


def pairs(samples: int) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(1, 50, (samples, 10)), "labels": torch.randint(1, 50, (samples, 4))}


Boundary = list[tuple[str, tuple[int, ...]]]
FAMILIES: list[tuple[Callable[[], nn.Module], Callable[[int], dict[str, Tensor]], tuple[str, ...], Boundary]] = [
    (
        bert,
        words,
        ("bert.embeddings", "bert.encoder.layer[0]"),
        [("bert", (1, 1, 10)), ("bert.encoder.layer.0", (10, 16))],
    ),
    (
        llama,
        words,
        ("model.embed_tokens", "model.layers[0]"),
        [("model", (1, 1, 10)), ("model.layers.1.input_layernorm", (10, 16))],
    ),
    (
        gpt2,
        words,
        ("transformer.h[0]", "transformer.wte", "transformer.wpe"),
        [("transformer", (1, 1, 10)), ("transformer.h.0", (10, 16))],
    ),
    (vit, pictures, ("vit.embeddings", "vit.layers[0]"), [("vit.layers.0", (17, 16))]),
    (swin, pictures, ("swin.embeddings", "swin.encoder.layers[0]"), [("swin.encoder.layers.0", (16, 16))]),
    (resnet, pictures, ("resnet.embedder", "resnet.encoder.stages[0]"), [("resnet.encoder.stages.0", (4, 4, 4))]),
    (
        t5,
        pairs,
        ("encoder", "shared"),
        [("encoder", (10, 16)), ("decoder.dropout", (4, 16)), ("view_16", (4,))],
    ),
]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("make", "inputs", "frozen", "boundary"), FAMILIES, ids=lambda each: getattr(each, "__name__", "")
)
def test_a_model_of_a_library(make: Any, inputs: Any, frozen: tuple[str, ...], boundary: Boundary) -> None:
    model = make().eval()
    for path in frozen:
        model.get_submodule(path.replace("[", ".").replace("]", "")).requires_grad_(False)
    line = frostline(model, **inputs(2))
    assert crossing(line) == boundary
    want, got = both_ways(model, line, **inputs(1))
    assert type(got) is type(want)
    assert outputs(got) == outputs(want)


def test_a_cache_of_keys_and_values_is_named() -> None:
    model = llama(use_cache=True)
    ft.freeze(model, "model.embed_tokens")
    with pytest.raises(LineError) as caught:
        frostline(model, torch.ones(2, 6, dtype=torch.long))
    assert str(caught.value) == "\n".join(
        [
            "frostline(LlamaForCausalLM, int64[2, 6]) cannot be drawn: the model returns a DynamicCache, in which a "
            "trace finds no tensors.",
            "If it is a cache of keys and values, switch it off: model.config.use_cache = False.",
        ]
    )


class Odd(nn.Module):
    """A `body` that is frozen, a `head` that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 4)


class WithoutGradient(Odd):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.body(x).relu()
        return self.head(features)


class InPlace(Odd):
    """Writes into a view, into what is returned, and into a value at the line."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        features[:, 0] = x.sum(1)
        features += 1
        result = self.head(features)
        features.mul_(2)
        return result + features


class SecondDimension(Odd):
    """Time first, samples second."""

    def forward(self, x: Tensor) -> Tensor:
        steps = self.body(x).movedim(1, 0)
        return self.head(steps.cumsum(0)).movedim(0, 1)


class Flattened(Odd):
    """Samples and steps in one dimension."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.flatten(0, 1)).softmax(-1)).unflatten(0, (len(x), -1))


class Tied(Odd):
    """One frozen weight on both sides."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.head(self.body(x)), self.body.weight)


class Structured(Odd):
    """Gives a dict with what is below in it, and takes a dict and a number."""

    def forward(self, inputs: dict[str, Tensor], scale: float, *, shift: Tensor) -> dict[str, Any]:
        features = self.body(inputs["x"]) * scale + shift
        return {"logits": self.head(features), "features": [features, None], "scale": scale}


@dataclass
class Output:
    """What a model may return."""

    logits: Tensor
    features: Tensor


pytree.register_dataclass(Output)


class InADataclass(Odd):
    def forward(self, x: Tensor) -> Output:
        features = self.body(x)
        return Output(self.head(features), features)


class Standardised(Odd):
    """A weight of mean 0 and variance 1, by a norm in training mode that sees no sample."""

    def forward(self, x: Tensor) -> Tensor:
        weight = F.batch_norm(self.body.weight.unsqueeze(0), None, None, training=True)[0]
        return self.head(F.linear(x, weight).relu())


class CountedByLength(Odd):
    """Uses the number of samples as a number."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.zeros(1, 1, 4).expand(len(x), -1, -1)
        return self.head(self.body(torch.cat([tokens, x], 1)))[:, : int(x.shape[0] ** 0) + 1]


ODD: list[tuple[type[Odd], tuple[int, ...], Boundary]] = [
    (WithoutGradient, (4,), [("body", (4,))]),
    (InPlace, (4,), [("body", (4,))]),
    (SecondDimension, (3, 4), [("body", (3, 4))]),
    (Flattened, (3, 4), [("body", (3, 4))]),
    (Tied, (4,), [("body", (4,))]),
    (InADataclass, (4,), [("body", (4,))]),
    (Standardised, (4,), [("body", (4,))]),
    (CountedByLength, (3, 4), [("body", (4, 4))]),
]


@pytest.mark.parametrize(("kind", "shape", "boundary"), ODD, ids=[row[0].__name__ for row in ODD])
def test_a_model_that_does_odd_things(kind: type[Odd], shape: tuple[int, ...], boundary: Boundary) -> None:
    model = kind()
    ft.freeze(model, "body")
    line = frostline(model, torch.randn(3, *shape))
    assert [shape for _, shape in crossing(line)] == [shape for _, shape in boundary]
    for samples in (1, 4):
        want, got = both_ways(model, line, torch.randn(samples, *shape))
        assert type(got) is type(want)
        assert outputs(got) == outputs(want)


def test_inputs_and_outputs_may_be_structured() -> None:
    model = Structured()
    ft.freeze(model, "body")
    line = frostline(model, {"x": torch.randn(3, 4)}, 0.5, shift=torch.randn(3, 1))
    want, got = both_ways(model, line, {"x": torch.randn(2, 4)}, 0.5, shift=torch.randn(2, 1))
    assert outputs(got) == outputs(want)
    assert (got["features"][1], got["scale"]) == (None, 0.5)
    with pytest.raises(LineError, match="does not fit the line, which was drawn for"):
        line.below({"x": torch.randn(2, 4)}, 0.25, shift=torch.randn(2, 1))


def test_a_boundary_is_laid_out_above_as_the_model_has_it() -> None:
    """Kernels of convolutions give other bits for another memory format; what is kept has no format."""
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(16 * 144, 2))
    ft.freeze(model, "0")
    model.to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 16, 16).to(memory_format=torch.channels_last)
    line = frostline(model, x)
    want, got = both_ways(model, line, x[:1])
    assert outputs(got) == outputs(want)


def test_a_frozen_use_is_below() -> None:
    layer = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    model = nn.Sequential(ft.Frozen(layer), nn.ReLU(), nn.Linear(4, 4))
    line = frostline(model, torch.randn(3, 4))
    assert crossing(line) == [("1", (4,))]
    first = line.fingerprint()
    with torch.no_grad():
        layer[0].weight.add_(1)
    want, got = both_ways(model, line, torch.randn(5, 4))
    assert outputs(got) == outputs(want)
    assert line.fingerprint() != first


@pytest.mark.parametrize("at", [None, "1"])
@pytest.mark.parametrize("layer", [nn.Linear(4, 4), nn.BatchNorm1d(4)])
def test_a_frozen_use_of_what_trains_elsewhere_moves(layer: nn.Module, at: str | None) -> None:
    model = nn.Sequential(ft.Frozen(layer), nn.Tanh(), layer)
    with pytest.raises(LineError, match=r"meets '0.weight' first, which trains|would be below '1', and train"):
        frostline(model, torch.randn(3, 4), at=at)
