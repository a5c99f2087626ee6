"""What is frozen of which model, and what lean freezing is to reach there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.zoo import Example, llama, mobilenet_v3, resnet50, vit


@dataclass(frozen=True)
class Goal:
    """The most that may be left, as ratios to a model that is frozen by hand.

    Attributes:
        saved: bytes that wait for the backward pass.
        time: of a step.
        peak: bytes at the peak of a step.
    """

    saved: float
    time: float
    peak: float


@dataclass(frozen=True)
class Part:
    """A model, and a part of it.

    Attributes:
        title: for people.
        made: makes the model and the arguments of one call.
        frozen: selectors of the frozen part.
        goals: way -> what it is to reach.
        budget: the share of the saved bytes that the way `budget` asks for.
    """

    title: str
    made: Callable[..., Example]
    frozen: tuple[str, ...]
    goals: dict[str, Goal]
    budget: float | None = None
    compiled: bool = field(default=True)


STAGES = ("layer1", "layer2", "layer3", "layer4")
NOTHING_TO_GAIN = Goal(saved=1.00, time=1.01, peak=1.00)

PARTS = {
    "resnet50 suffix": Part(
        "ResNet-50, frozen suffix",
        resnet50,
        ("**", "!conv1", "!bn1"),
        {"lean": Goal(0.20, 1.05, 0.33), "folded": Goal(0.20, 1.00, 0.31)},
    ),
    "resnet50 middle": Part(
        "ResNet-50, frozen middle",
        resnet50,
        STAGES[:3],
        {"lean": Goal(0.26, 1.05, 0.44), "folded": Goal(0.26, 1.00, 0.42)},
    ),
    "mobilenet suffix": Part(
        "MobileNetV3, frozen suffix",
        mobilenet_v3,
        ("**", "!features[0]"),
        {"lean": Goal(0.27, 1.05, 0.34), "folded": Goal(0.27, 0.90, 0.30)},
    ),
    "vit suffix": Part(
        "ViT-tiny, frozen suffix",
        vit,
        ("blocks", "norm", "head"),
        {"lean": NOTHING_TO_GAIN, "budget": Goal(0.15, 1.33, 0.25)},
        budget=0.15,
    ),
    "resnet50 prefix": Part(
        "ResNet-50, frozen prefix",
        resnet50,
        ("**", "!layer4", "!fc"),
        {"lean": NOTHING_TO_GAIN},
        compiled=False,
    ),
    "llama middle": Part(
        "Llama, frozen middle",
        llama,
        ("layers[1:5]",),
        {"lean": NOTHING_TO_GAIN},
        compiled=False,
    ),
}
