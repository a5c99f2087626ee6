"""The frozen part of each model: all of it but the last part."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

import frostline.torch as ft
from benchmarks.zoo import ZOO


@dataclass(frozen=True)
class Cut:
    """A model with a frozen prefix.

    Attributes:
        title: in words.
        model: its name in the zoo.
        trains: what is trained; all else is frozen.
        small: the same, for the small model.
        times: how many times as many samples as in the zoo a batch has: a head alone is trained in larger batches.
    """

    title: str
    model: str
    trains: tuple[str, ...]
    small: tuple[str, ...] = ()
    times: int = 1

    def made(self, size: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
        """The model in training mode, what is below frozen, and the example."""
        torch.manual_seed(0)
        is_small = size == "small"
        model, example = ZOO[self.model](small=is_small)
        trains = (is_small and self.small) or self.trains
        ft.freeze(model, "**", *(f"!{each}.**" for each in trains))
        return model.train(), tuple(x.repeat(self.times, *[1] * (x.dim() - 1)) for x in example)


CUTS = {
    "resnet18": Cut("ResNet-18, last stage trained", "resnet18", ("layer4", "fc")),
    "resnet50": Cut("ResNet-50, last stage trained", "resnet50", ("layer4", "fc")),
    "mobilenet_v3": Cut(
        "MobileNetV3, last four blocks trained",
        "mobilenet_v3",
        ("features[13:]", "classifier"),
        ("features[5:]", "classifier"),
    ),
    "densenet": Cut(
        "DenseNet-121, last block trained",
        "densenet",
        ("features.dense4", "features.norm", "classifier"),
        ("features.dense2", "features.norm", "classifier"),
    ),
    "unet": Cut("U-Net, way up trained", "unet", ("widen", "up", "head")),
    "vit": Cut(
        "ViT-tiny, three of twelve blocks trained", "vit", ("blocks[9:]", "norm", "head"), ("blocks[2:]", "head")
    ),
    "bert": Cut("BERT, two of six layers trained", "bert", ("layer[4:]", "classifier"), ("layer[2:]", "classifier")),
    "llama": Cut(
        "Llama, two of six layers trained",
        "llama",
        ("layers[4:]", "norm", "lm_head"),
        ("layers[2:]", "norm", "lm_head"),
    ),
    "lstm": Cut("LSTM, head trained", "lstm", ("head",)),
    "resnet50 probe": Cut("ResNet-50, linear probe", "resnet50", ("fc",), times=4),
    "bert probe": Cut("BERT, linear probe", "bert", ("classifier",), times=4),
}
