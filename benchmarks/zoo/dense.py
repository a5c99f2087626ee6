"""DenseNet (Huang et al. 2017, https://arxiv.org/abs/1608.06993) and U-Net (https://arxiv.org/abs/1505.04597)."""

from __future__ import annotations

import torch
from torch import nn


class DenseLayer(nn.Module):
    """Adds `growth` channels to all that came before."""

    def __init__(self, before: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2(self.relu(self.norm2(self.conv1(self.relu(self.norm1(x))))))
        return torch.cat([x, y], 1)


class Transition(nn.Sequential):
    """Half the channels, half the size."""

    def __init__(self, before: int) -> None:
        norm, conv = nn.BatchNorm2d(before), nn.Conv2d(before, before // 2, 1, bias=False)
        super().__init__(norm, nn.ReLU(inplace=True), conv, nn.AvgPool2d(2))


class DenseNet(nn.Module):
    """`features` with blocks `dense1`, `dense2`, ... and transitions between them, and a `classifier`."""

    def __init__(self, depths: tuple[int, ...], growth: int, classes: int) -> None:
        super().__init__()
        width = 2 * growth
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(3, width, 7, 2, 3, bias=False))
        self.features.add_module("norm0", nn.BatchNorm2d(width))
        self.features.add_module("relu0", nn.ReLU(inplace=True))
        self.features.add_module("pool0", nn.MaxPool2d(3, 2, 1))
        for block, depth in enumerate(depths, start=1):
            layers = [DenseLayer(width + index * growth, growth) for index in range(depth)]
            self.features.add_module(f"dense{block}", nn.Sequential(*layers))
            width += depth * growth
            if block < len(depths):
                self.features.add_module(f"transition{block}", Transition(width))
                width //= 2
        self.features.add_module("norm", nn.BatchNorm2d(width))
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.relu(self.features(x)).mean((2, 3)))


class TwoConvs(nn.Sequential):
    """What each level of a U-Net does."""

    def __init__(self, before: int, after: int) -> None:
        first, second = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
        super().__init__(
            first, nn.BatchNorm2d(after), nn.ReLU(inplace=True), second, nn.BatchNorm2d(after), nn.ReLU(inplace=True)
        )


class UNet(nn.Module):
    """`down`, `up` and `widen` level by level, with a skip connection at each, and a `head`."""

    def __init__(self, width: int, levels: int, classes: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels)]
        self.down = nn.ModuleList(TwoConvs(before, after) for before, after in zip([3, *widths], widths, strict=False))
        pairs = list(zip(widths[1:], widths, strict=False))[::-1]
        self.widen = nn.ModuleList(nn.ConvTranspose2d(below, above, 2, 2) for below, above in pairs)
        self.up = nn.ModuleList(TwoConvs(2 * above, above) for _, above in pairs)
        self.pool, self.head = nn.MaxPool2d(2), nn.Conv2d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for level, down in enumerate(self.down):
            x = down(self.pool(x) if level else x)
            skips.append(x)
        for widen, up, skip in zip(self.widen, self.up, skips[-2::-1], strict=True):
            x = up(torch.cat([skip, widen(x)], 1))
        return self.head(x)
