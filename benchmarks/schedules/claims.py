"""The claims of the papers and of their programs, as ratios to full training, and the same measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.report import table
from benchmarks.schedules.case import Case, Times
from benchmarks.schedules.setup import FULL, RELEASE, Held, Setup, predicted, schedules

NOT_FOUND = "not found"


@dataclass(frozen=True)
class Here:
    """A ratio for the model that is measured: by the sizes of its blocks, where they say it, and as measured."""

    predicted: float | None
    measured: float


@dataclass(frozen=True)
class Measured:
    """All cases in which moments are released, by way, and full training."""

    setup: Setup
    cases: Mapping[str, Case]

    def peak(self, way: str, part: str) -> Here:
        """Of the moments or the gradients."""
        counts = [getattr(held, part) for held in self._predicted(way)]
        mine, theirs = (getattr(self.cases[name], part).peak for name in (way, FULL))
        return Here(max(counts) / getattr(self._full, part), mine / theirs)

    def mean(self, way: str, part: str) -> Here:
        """Of the moments or the gradients."""
        counts = [getattr(held, part) for held in self._predicted(way)]
        mine, theirs = (getattr(self.cases[name], part).mean for name in (way, FULL))
        return Here(sum(counts) / len(counts) / getattr(self._full, part), mine / theirs)

    def total(self, way: str) -> Here:
        """Parameters, moments, gradients and what is saved for backward."""
        return Here(None, self.cases[way].total.peak / self.cases[FULL].total.peak)

    def alone(self, way: str, layer: int) -> Here:
        """Time of backward while one layer trains."""
        names = [name for name in self.setup.blocks if name.startswith("layers")]
        return Here(None, self.times(way).backward_of[names[layer]])

    def times(self, way: str) -> Times:
        """They are there in PyTorch."""
        times = self.cases[way].times
        assert times is not None
        return times

    @property
    def blocks(self) -> int:
        """How many there are; D or k in the papers."""
        return len(self.setup.blocks)

    @property
    def _full(self) -> Held:
        return predicted(self.setup, None, RELEASE)[0]

    def _predicted(self, way: str) -> list[Held]:
        return predicted(self.setup, schedules(self.setup)[way], RELEASE)


@dataclass(frozen=True)
class Claim:
    """One figure.

    Attributes:
        what: is compared with full training.
        figures: as they are given.
        ratio: what they come to.
        source: where in the paper.
        address: where it was read; two, where a figure is of both.
        here: the same for the model that is measured.
    """

    way: str
    what: str
    figures: str
    ratio: float | None
    source: str
    address: str
    here: Here


LISA_TEXT = "https://ml.paperswithcode.com/paper/lisa-layerwise-importance-sampling-for-memory"
LISA_MEMORY = f"{LISA_TEXT} https://github.com/OptimalScale/LMFlow"
LISA_FIGURES = "https://github.com/deep-diver/neurips2024/blob/main/content/posters/L8ifDX5XNq/index.md"
BADAM = "https://arxiv.org/abs/2404.02827"
HIFT = "https://arxiv.org/abs/2401.15207"
HIFT_TABLE = "https://github.com/misonsky/HiFT/blob/b6ee5601f5d2b988f10df405244a46680d853852/figure/llama.png"


def claims(measured: Measured) -> list[Claim]:
    """All that were found, and two that were looked for and not found."""
    return [*of_lisa(measured), *of_badam(measured), *of_hift(measured)]


def of_lisa(m: Measured) -> list[Claim]:
    """arXiv 2403.17919: the embedding, the head and two layers train."""
    bars, fast = "figure 3: bars without numbers", "figure 4"
    less = "abstract, and its program"
    time = Here(None, m.times("LISA").total)
    return [
        Claim("LISA", "optimizer state", NOT_FOUND, None, bars, LISA_FIGURES, m.peak("LISA", "optimizer")),
        Claim("LISA", "gradients", NOT_FOUND, None, bars, LISA_FIGURES, m.peak("LISA", "gradients")),
        Claim("LISA", "all memory", "24 GB of at least 60 GB, 7B", 24 / 60, less, LISA_MEMORY, m.total("LISA")),
        Claim("LISA", "time of a step", "2.9 times faster, LLaMA-2-7B", 1 / 2.9, fast, LISA_FIGURES, time),
    ]


def of_badam(m: Measured) -> list[Claim]:
    """arXiv 2404.02827: one of D blocks trains."""
    d = m.blocks
    back = Here(None, m.times("BAdam").backward)

    def claim(what: str, figures: str, ratio: float, source: str, here: Here) -> Claim:
        return Claim("BAdam", what, figures, ratio, source, BADAM, here)

    return [
        claim("optimizer state, mean", f"1/D of it, D = {d}", 1 / d, "equation 5", m.mean("BAdam", "optimizer")),
        claim("gradients, mean", f"1/D of them, D = {d}", 1 / d, "equation 5", m.mean("BAdam", "gradients")),
        claim("optimizer state", "2.6 of 96.6 GB, Llama 3-8B", 2.6 / 96.6, "table 2", m.peak("BAdam", "optimizer")),
        claim("gradients", "0.9 of 32.1 GB, Llama 3-8B", 0.9 / 32.1, "table 2", m.peak("BAdam", "gradients")),
        claim("all memory", "23.5 of 144.8 GB, Llama 3-8B", 23.5 / 144.8, "table 2", m.total("BAdam")),
        claim("backward", f"(D + 1) / 2D of it, D = {d}", (d + 1) / (2 * d), "equation 6", back),
        claim("backward, first layer", "0.33 of 0.64 s, Llama 3-8B", 0.33 / 0.64, "table 4", m.alone("BAdam", 0)),
        claim("backward, last layer", "0.03 of 0.64 s, Llama 3-8B", 0.03 / 0.64, "table 4", m.alone("BAdam", -1)),
    ]


def of_hift(m: Measured) -> list[Claim]:
    """arXiv 2401.15207: one of k groups trains."""
    table = "its program's table, float32, AdamW"

    def claim(what: str, figures: str, ratio: float | None, source: str, here: Here) -> Claim:
        return Claim("HiFT", what, figures, ratio, source, HIFT_TABLE if source == table else HIFT, here)

    state, gradients = m.peak("HiFT", "optimizer"), m.peak("HiFT", "gradients")
    return [
        claim("optimizer state, mean", f"1/k of it: {NOT_FOUND}", None, "", m.mean("HiFT", "optimizer")),
        claim("parameters, mean", "89.18 % fewer, six models", 1 - 0.8918, "abstract, v3", m.mean("HiFT", "gradients")),
        claim("optimizer state", "1544.06 of 51410.08 MB, LLaMA 7B", 1544.06 / 51410.08, table, state),
        claim("gradients", "772.03 of 25705.04 MB, LLaMA 7B", 772.03 / 25705.04, table, gradients),
        claim("all memory", "55.41 of 142.11 GB, LLaMA 7B", 55.41 / 142.11, table, m.total("HiFT")),
    ]


def claims_table(found: Sequence[Claim]) -> str:
    """A row for each figure of a paper."""

    def shown(ratio: float | None) -> str:
        return "–" if ratio is None else f"{ratio:.3f}"

    headings = ("", "over full training", "claimed", "where", "as a ratio", "here, predicted", "measured")
    rows = [
        (c.way, c.what, c.figures, c.source, shown(c.ratio), shown(c.here.predicted), shown(c.here.measured))
        for c in found
    ]
    return table(headings, rows, words=4, title="The claims of the papers, and the same here, moments released")
