"""Models of every kind, as their papers have them, on which accounting, lean freezing and the frost line are tested."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from benchmarks.zoo.dense import DenseNet, UNet
from benchmarks.zoo.mobile import LARGE, MobileNetV3
from benchmarks.zoo.recurrent import Recurrent
from benchmarks.zoo.residual import BasicBlock, Bottleneck, ResNet
from benchmarks.zoo.transformers import Bert, Llama, ViT

Example = tuple[nn.Module, tuple[torch.Tensor, ...]]
"""A model and the arguments of one call of it."""


def resnet18(*, small: bool = False) -> Example:
    """ResNet-18 and 16 pictures of 160 x 160; small: 8 channels and 2 pictures of 32 x 32."""
    if small:
        return ResNet(BasicBlock, (2, 2, 2, 2), 8, 10), (torch.randn(2, 3, 32, 32),)
    return ResNet(BasicBlock, (2, 2, 2, 2), 64, 1000), (torch.randn(16, 3, 160, 160),)


def resnet50(*, small: bool = False) -> Example:
    """ResNet-50 and 8 pictures of 160 x 160; small: 5 of its 16 blocks, 4 channels and 2 pictures of 32 x 32."""
    if small:
        return ResNet(Bottleneck, (1, 2, 1, 1), 4, 10), (torch.randn(2, 3, 32, 32),)
    return ResNet(Bottleneck, (3, 4, 6, 3), 64, 1000), (torch.randn(8, 3, 160, 160),)


def mobilenet_v3(*, small: bool = False) -> Example:
    """MobileNetV3-Large and 16 pictures of 160 x 160; small: its first six blocks and 2 pictures of 32 x 32."""
    if small:
        return MobileNetV3(LARGE[:6], 10), (torch.randn(2, 3, 32, 32),)
    return MobileNetV3(LARGE, 1000), (torch.randn(16, 3, 160, 160),)


def densenet(*, small: bool = False) -> Example:
    """DenseNet-121 and 8 pictures of 160 x 160; small: 2 blocks of 2 layers and 2 pictures of 32 x 32."""
    if small:
        return DenseNet((2, 2), 4, 10), (torch.randn(2, 3, 32, 32),)
    return DenseNet((6, 12, 24, 16), 32, 1000), (torch.randn(8, 3, 160, 160),)


def unet(*, small: bool = False) -> Example:
    """U-Net of 4 levels and 4 pictures of 128 x 128; small: 3 levels of 4 channels and 2 pictures of 16 x 16."""
    if small:
        return UNet(4, 3, 3), (torch.randn(2, 3, 16, 16),)
    return UNet(32, 4, 3), (torch.randn(4, 3, 128, 128),)


def vit(*, small: bool = False) -> Example:
    """ViT-tiny/16 and 8 pictures of 224 x 224; small: 3 blocks of width 16 and 2 pictures of 32 x 32."""
    if small:
        return ViT(32, 8, 16, 3, 2, 10), (torch.randn(2, 3, 32, 32),)
    return ViT(224, 16, 192, 12, 3, 1000), (torch.randn(8, 3, 224, 224),)


def bert(*, small: bool = False) -> Example:
    """BERT, 6 layers of width 384, and 16 texts of 128 words; small: 3 layers of width 16 and 2 texts of 8."""
    if small:
        return Bert(50, 16, 16, 3, 2, 0.1), (torch.randint(50, (2, 8)),)
    return Bert(30522, 512, 384, 6, 6, 0.1), (torch.randint(30522, (16, 128)),)


def llama(*, small: bool = False) -> Example:
    """Llama, 6 layers of width 384, and 8 texts of 128 words; small: 3 layers of width 16 and 2 texts of 8."""
    if small:
        return Llama(50, 16, 3, 2), (torch.randint(50, (2, 8)),)
    return Llama(8000, 384, 6, 6), (torch.randint(8000, (8, 128)),)


def lstm(*, small: bool = False) -> Example:
    """Two LSTM layers of width 256 and 16 texts of 64 words; small: width 8 and 2 texts of 8."""
    if small:
        return Recurrent(50, 8, 2), (torch.randint(50, (2, 8)),)
    return Recurrent(8000, 256, 2), (torch.randint(8000, (16, 64)),)


ZOO: dict[str, Callable[..., Example]] = {
    "resnet18": resnet18,
    "resnet50": resnet50,
    "mobilenet_v3": mobilenet_v3,
    "densenet": densenet,
    "unet": unet,
    "vit": vit,
    "bert": bert,
    "llama": llama,
    "lstm": lstm,
}
