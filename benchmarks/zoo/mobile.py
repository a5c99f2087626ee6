"""MobileNetV3 (Howard et al. 2019, https://arxiv.org/abs/1905.02244)."""

from __future__ import annotations

import torch
from torch import nn

# kernel, expanded channels, channels after, squeeze and excite, hard swish, stride: table 1 of the paper.
LARGE = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)


class ConvNorm(nn.Sequential):
    """A convolution, its batch norm and, if it has one, its activation."""

    def __init__(
        self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1, act: type[nn.Module] | None = None
    ) -> None:
        layers = [
            nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(after, eps=0.001, momentum=0.01),
        ]
        super().__init__(*layers, *([act(inplace=True)] if act else []))  # type: ignore[call-arg]


class SqueezeExcite(nn.Module):
    """Scales each channel by a function of its average."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = eighths(width / 4)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.fc1(self.avgpool(x)))
        return nn.functional.hardsigmoid(self.fc2(y)) * x


def eighths(width: float) -> int:
    """The nearest multiple of 8, but never less than nine tenths of `width`."""
    near = max(8, int(width + 4) // 8 * 8)
    return near + 8 if near < 0.9 * width else near


class InvertedResidual(nn.Module):
    """Expands, convolves each channel by itself, and projects."""

    def __init__(self, before: int, row: tuple[int, int, int, bool, bool, int]) -> None:
        super().__init__()
        kernel, wide, after, squeeze, swish, stride = row
        act: type[nn.Module] = nn.Hardswish if swish else nn.ReLU
        layers: list[nn.Module] = [ConvNorm(before, wide, 1, act=act)] if wide != before else []
        layers.append(ConvNorm(wide, wide, kernel, stride, groups=wide, act=act))
        layers += [SqueezeExcite(wide)] if squeeze else []
        self.block = nn.Sequential(*layers, ConvNorm(wide, after, 1))
        self.residual = stride == 1 and before == after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.block(x) if self.residual else self.block(x)


class MobileNetV3(nn.Module):
    """`features` and a `classifier`."""

    def __init__(self, rows: tuple[tuple[int, int, int, bool, bool, int], ...], classes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = [ConvNorm(3, 16, 3, 2, act=nn.Hardswish)]
        before = 16
        for row in rows:
            blocks.append(InvertedResidual(before, row))
            before = row[2]
        blocks.append(ConvNorm(before, 6 * before, 1, act=nn.Hardswish))
        self.features, self.avgpool = nn.Sequential(*blocks), nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(6 * before, 8 * before),
            nn.Hardswish(inplace=True),
            nn.Dropout(0.2),
            nn.Linear(8 * before, classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))
