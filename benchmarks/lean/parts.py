"""The parts of models that are frozen, and what lean freezing is to reach there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.timing import Ratio

BASE, AGAIN, COMPILED = "by hand", "by hand again", "torch.compile"


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
        model: its name in the zoo.
        frozen: selectors of the frozen part.
        goals: way -> what it is to reach.
        budget: the share of the saved bytes that the way `budget` asks for.
        has_peers: whether the ways of others are measured, too.
    """

    title: str
    model: str
    frozen: tuple[str, ...]
    goals: dict[str, Goal]
    budget: float | None = None
    has_peers: bool = True


NOTHING_TO_GAIN = Goal(saved=1.00, time=1.01, peak=1.00)
STAGES = ("layer1", "layer2", "layer3")

PARTS = {
    "resnet50 suffix": Part(
        "ResNet-50, frozen suffix",
        "resnet50",
        ("**", "!conv1", "!bn1"),
        {"lean": Goal(0.20, 1.05, 0.33), "folded": Goal(0.20, 1.00, 0.31)},
    ),
    "resnet50 middle": Part(
        "ResNet-50, frozen middle",
        "resnet50",
        STAGES,
        {"lean": Goal(0.26, 1.05, 0.44), "folded": Goal(0.26, 1.00, 0.42)},
    ),
    "mobilenet suffix": Part(
        "MobileNetV3, frozen suffix",
        "mobilenet_v3",
        ("**", "!features[0]"),
        {"lean": Goal(0.27, 1.05, 0.34), "folded": Goal(0.27, 0.90, 0.30)},
    ),
    "vit suffix": Part(
        "ViT-tiny, frozen suffix",
        "vit",
        ("blocks", "norm", "head"),
        {"lean": NOTHING_TO_GAIN, "budget": Goal(0.15, 1.33, 0.25)},
        budget=0.15,
    ),
    "resnet50 prefix": Part(
        "ResNet-50, frozen prefix", "resnet50", ("**", "!layer4", "!fc"), {"lean": NOTHING_TO_GAIN}, has_peers=False
    ),
    "llama middle": Part("Llama, frozen middle", "llama", ("layers[1:5]",), {"lean": NOTHING_TO_GAIN}, has_peers=False),
}


@dataclass(frozen=True)
class Case:
    """The measurements of one part; all but the first by way.

    Attributes:
        step_ms: median of a step that is frozen by hand.
        times: over the time by hand; by hand twice shows the noise.
        saved: bytes that a forward pass leaves to the backward pass.
        peak: bytes at the peak of a step.
        same: whether gradients are bitwise those by hand.
    """

    step_ms: float
    times: dict[str, Ratio]
    saved: dict[str, int]
    peak: dict[str, int]
    same: dict[str, bool]

    def with_compiled(self, other: Case) -> Case:
        """With a compiled model, whose ratios are to the same model by hand in its own process."""
        fields = (getattr(case, name) for name in ("times", "saved", "peak", "same") for case in (self, other))
        return Case(
            self.step_ms, *(mine | {COMPILED: theirs[COMPILED]} for mine, theirs in zip(fields, fields, strict=True))
        )

    def ratios(self, way: str) -> dict[str, float]:
        """Saved bytes, time and peak of one way over those by hand."""
        saved, peak = (count[way] / count[BASE] for count in (self.saved, self.peak))
        return {"saved": saved, "time": self.times[way].median, "peak": peak}

    def misses(self, part: Part) -> Iterator[str]:
        """The missed goals, in words."""
        for way in [way for way in part.goals if way in self.saved]:
            for name, ratio in self.ratios(way).items():
                goal = getattr(part.goals[way], name)
                # Goals are given with two digits.
                if round(ratio, 2) > goal:
                    noise = self.times[AGAIN]
                    yield f"{part.title}: {way}: {ratio:.3f} x the {name}, goal {goal:.2f} (by hand again: {noise})"
            if way != "folded" and not self.same[way]:
                yield f"{part.title}: {way}: other gradients than by hand"

    def rows(self, part: Part) -> Iterator[tuple[str, ...]]:
        """By hand in MiB and ms, everything else as ratios to it, goals in brackets."""
        saved, peak = (f"{count[BASE] / 2**20:.1f} MiB" for count in (self.saved, self.peak))
        yield part.title, BASE, saved, f"{self.step_ms:.0f} ms", peak, ""
        yield "", AGAIN, "", str(self.times[AGAIN]), "", ""
        for way in [way for way in self.saved if way != BASE]:
            texts = {name: f"{ratio:.3f}" for name, ratio in self.ratios(way).items()} | {"time": str(self.times[way])}
            if way in part.goals:
                texts = {name: f"{text} (≤ {getattr(part.goals[way], name):.2f})" for name, text in texts.items()}
            yield "", way, *texts.values(), "bitwise" if self.same[way] else "rounded otherwise"
