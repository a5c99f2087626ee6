"""An example of each schedule and policy, and hypothesis strategies for them."""

from __future__ import annotations

from hypothesis import strategies as st

from frostline.schedules import (
    LISA,
    AutoFreeze,
    BAdam,
    Egeria,
    FreezeOut,
    HiFT,
    LinearProbe,
    Phase,
    Phases,
    Plateau,
    Policy,
    Schedule,
    Span,
    ULMFiT,
)

LAYERS = tuple(f"layers[{number}]" for number in range(6))

SCHEDULES: dict[str, Schedule] = {
    "Phases": Phases(
        [
            Span(0, 3, Phase(["**", "!head"], name="probe")),
            Span(3, 8, Phase(["layers[0:3]"], rates=[("layers", 0.5)])),
            Span(8, None, Phase()),
        ]
    ),
    "LinearProbe": LinearProbe(["head"], steps=5),
    "ULMFiT": ULMFiT(LAYERS, period=3),
    "LISA": LISA(LAYERS, sampled=2, period=3, always=["embed", "head"]),
    "BAdam": BAdam(LAYERS, period=2, seed=4),
    "HiFT": HiFT(LAYERS, size=4, order="random", cycles=3),
    "FreezeOut": FreezeOut(LAYERS, steps=20),
}

POLICIES: dict[str, Policy] = {
    "Plateau": Plateau([Phase(["**", "!head"]), Phase(["layers[0:3]"]), Phase()], patience=2, delta=0.01),
    "AutoFreeze": AutoFreeze(LAYERS),
    "Egeria": Egeria(LAYERS, window=2, patience=1),
}

# Keys of all kinds that a pattern may have, and what a text of TOML must escape.
NAMES = [
    "a",
    "b.c",
    "b.*",
    "c[0]",
    "c[-1]",
    "d[2:4]",
    "e.{x,y}",
    "f['mlp/~/w']",
    'g["é\'."]',
    "h['\\t\\x7f\"']",
    "**.bias",
]
blocks = st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True)
seeds = st.integers(-(2**70), 2**70)
small = st.integers(1, 9)
finite = st.floats(0, 1e9)
phases = st.builds(
    Phase,
    blocks.map(lambda names: ["**", *(f"!{name}" for name in names)]) | blocks | st.just([]),
    st.text(max_size=5),
    st.lists(st.tuples(st.sampled_from(["a", "b.c", "**"]), finite), max_size=3),
)


@st.composite
def spans(draw: st.DrawFn) -> Phases:
    starts = [0, *sorted(draw(st.sets(st.integers(1, 30), max_size=4)))]
    stops = [*starts[1:], None]
    return Phases([Span(start, stop, draw(phases)) for start, stop in zip(starts, stops, strict=True)])


schedules = st.one_of(
    spans(),
    st.builds(LinearProbe, blocks, small),
    st.builds(ULMFiT, blocks, small, st.floats(1, 10), st.sampled_from([None, "frozen", "train"])),
    blocks.flatmap(
        lambda names: st.builds(LISA, st.just(names), st.integers(1, len(names)), small, st.just(["head0"]), seeds)
    ),
    st.builds(BAdam, blocks, small, st.sampled_from(["random", "ascending", "descending"]), seed=seeds),
    st.builds(
        HiFT, blocks, small, st.sampled_from(["bottom2up", "top2down", "random"]), small, st.none() | small, seeds
    ),
    st.builds(
        FreezeOut,
        blocks,
        st.integers(1, 60),
        st.floats(0.001, 1),
        st.sampled_from(["cubic", "linear"]),
        st.booleans(),
        st.sampled_from([None, "frozen", "train"]),
    ),
)
policies = st.one_of(
    st.builds(
        Plateau,
        st.lists(phases, min_size=1, max_size=3),
        small,
        finite,
        st.text(max_size=4),
        st.sampled_from(["min", "max"]),
        st.none() | small,
    ),
    st.builds(AutoFreeze, blocks, st.floats(0, 100)),
    st.builds(Egeria, blocks, st.integers(2, 4), st.integers(1, 3), st.floats(0, 1)),
)
