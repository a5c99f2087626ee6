"""The claims of the papers and of their programs, as ratios to full training, and the same ratios measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report import table
from benchmarks.schedules.case import Case, Count
from benchmarks.schedules.setup import FULL, RELEASE, Setup, predicted, schedules

NOT_FOUND = "not found"
LISA_TEXT = "https://ml.paperswithcode.com/paper/lisa-layerwise-importance-sampling-for-memory"
LISA_MEMORY = f"{LISA_TEXT} https://github.com/OptimalScale/LMFlow"
LISA_FIGURES = "https://github.com/deep-diver/neurips2024/blob/main/content/posters/L8ifDX5XNq/index.md"
BADAM = "https://arxiv.org/abs/2404.02827"
HIFT = "https://arxiv.org/abs/2401.15207"
HIFT_TABLE = "https://github.com/misonsky/HiFT/blob/b6ee5601f5d2b988f10df405244a46680d853852/figure/llama.png"


@dataclass(frozen=True)
class Claim:
    """One figure of a paper.

    Attributes:
        what: the quantity that is compared with full training.
        figures: as they are given.
        ratio: their ratio.
        source: where in the paper.
        address: where it was read; two, where a figure is of both.
        predicted: the same for the model that is measured, by the sizes of its blocks, where they say it.
        measured: the same as measured.
    """

    way: str
    what: str
    figures: str
    ratio: float | None
    source: str
    address: str
    predicted: float | None
    measured: float


def claims(setup: Setup, cases: dict[str, Case]) -> list[Claim]:
    """All that were found, and two that were looked for and not found; of cases in which moments are released."""
    full = cases[FULL]
    held = {way: predicted(setup, schedule, RELEASE) for way, schedule in schedules(setup).items()}
    most = predicted(setup, None, RELEASE)[0]

    def bytes_of(way: str, part: str, kind: str) -> tuple[float, float]:
        counts = Count.of([getattr(step, part) for step in held[way]])
        mine, theirs = getattr(cases[way], part), getattr(full, part)
        return getattr(counts, kind) / getattr(most, part), getattr(mine, kind) / getattr(theirs, kind)

    def memory(way: str) -> tuple[None, float]:
        return None, cases[way].total.peak / full.total.peak

    # Time of backward while one layer trains.
    badam, lisa = cases["BAdam"].times, cases["LISA"].times
    assert badam is not None
    assert lisa is not None
    first, *_, last = (badam.backward_of[name] for name in setup.blocks if name.startswith("layers"))
    d = len(setup.blocks)  # D or k in the papers
    bars, less, table_of_hift = "figure 3: bars without numbers", "abstract, and its program", "its program's table"
    state_mean, gradients_mean = (bytes_of("BAdam", part, "mean") for part in ("optimizer", "gradients"))
    rows = [
        # arXiv 2403.17919: the embedding, the head and two layers train.
        ("LISA", "optimizer state", NOT_FOUND, None, bars, LISA_FIGURES, bytes_of("LISA", "optimizer", "peak")),
        ("LISA", "gradients", NOT_FOUND, None, bars, LISA_FIGURES, bytes_of("LISA", "gradients", "peak")),
        ("LISA", "all memory", "24 GB of at least 60 GB, 7B", 24 / 60, less, LISA_MEMORY, memory("LISA")),
        ("LISA", "time of a step", "2.9 x faster, LLaMA-2-7B", 1 / 2.9, "figure 4", LISA_FIGURES, (None, lisa.total)),
        # arXiv 2404.02827: one of D blocks trains.
        ("BAdam", "optimizer state, mean", f"1/D of it, D = {d}", 1 / d, "equation 5", BADAM, state_mean),
        ("BAdam", "gradients, mean", f"1/D of them, D = {d}", 1 / d, "equation 5", BADAM, gradients_mean),
        *(
            ("BAdam", what, figures, ratio, "table 2", BADAM, here)
            for what, figures, ratio, here in (
                ("optimizer state", "2.6 of 96.6 GB, 8B", 2.6 / 96.6, bytes_of("BAdam", "optimizer", "peak")),
                ("gradients", "0.9 of 32.1 GB, 8B", 0.9 / 32.1, bytes_of("BAdam", "gradients", "peak")),
                ("all memory", "23.5 of 144.8 GB, 8B", 23.5 / 144.8, memory("BAdam")),
            )
        ),
        ("BAdam", "backward", f"(D + 1) / 2D, D = {d}", (d + 1) / (2 * d), "equation 6", BADAM, (None, badam.backward)),
        ("BAdam", "backward, first layer", "0.33 of 0.64 s, 8B", 0.33 / 0.64, "table 4", BADAM, (None, first)),
        ("BAdam", "backward, last layer", "0.03 of 0.64 s, 8B", 0.03 / 0.64, "table 4", BADAM, (None, last)),
        # arXiv 2401.15207: one of k groups trains. Its program's table is for float32 and AdamW.
        ("HiFT", "optimizer state, mean", f"1/k: {NOT_FOUND}", None, "", HIFT, bytes_of("HiFT", "optimizer", "mean")),
        (
            "HiFT",
            "parameters, mean",
            "89.18 % fewer, six models",
            1 - 0.8918,
            "abstract, v3",
            HIFT,
            bytes_of("HiFT", "gradients", "mean"),
        ),
        *(
            ("HiFT", what, f"{figures}, LLaMA 7B", ratio, table_of_hift, HIFT_TABLE, here)
            for what, figures, ratio, here in (
                ("optimizer state", "1544 of 51410 MB", 1544.06 / 51410.08, bytes_of("HiFT", "optimizer", "peak")),
                ("gradients", "772 of 25705 MB", 772.03 / 25705.04, bytes_of("HiFT", "gradients", "peak")),
                ("all memory", "55.41 of 142.11 GB", 55.41 / 142.11, memory("HiFT")),
            )
        ),
    ]
    return [Claim(*row, *here) for *row, here in rows]


def claims_table(found: Sequence[Claim]) -> str:
    """A row for each figure of a paper."""

    def shown(ratio: float | None) -> str:
        return "–" if ratio is None else f"{ratio:.3f}"

    headings = ("", "over full training", "claimed", "where", "as a ratio", "here, predicted", "measured")
    rows = [(c.way, c.what, c.figures, c.source, shown(c.ratio), shown(c.predicted), shown(c.measured)) for c in found]
    return table(headings, rows, words=4, title="The claims of the papers, and the same here, moments released")
