"""An example of each schedule and policy for the net of the runs; both front ends use them."""

from __future__ import annotations

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

STEPS = 8
LAYERS = ["layers[0]", "layers[1]", "layers[2]"]
BLOCKS = ["embed", *LAYERS, "head"]

WALKS: dict[str, Schedule | Policy] = {
    "Phases": Phases(
        [
            Span(0, 2, Phase(["**", "!head"])),
            Span(2, 5, Phase(["**.bias"], rates=[("layers", 0.5), ("layers[1].**.weight", 0.0)])),
            Span(5, 7, Phase(["layers[1:]"])),
            Span(7, None, Phase()),
        ]
    ),
    "LinearProbe": LinearProbe(["head"], steps=3),
    "ULMFiT": ULMFiT(BLOCKS, period=2),
    "LISA": LISA(LAYERS, sampled=1, period=2, always=["embed", "head"], seed=1),
    "BAdam": BAdam(BLOCKS[:3], period=1),
    "HiFT": HiFT(BLOCKS, size=2, order="random", cycles=2),
    "FreezeOut": FreezeOut(BLOCKS, steps=STEPS, t0=0.3, spacing="linear"),
    "Plateau": Plateau([Phase(["**", "!head"]), Phase(["layers[:2]"]), Phase()], patience=2, delta=10.0),
    # The head changes most by a wide margin; whether the first block is below the median depends on the processor.
    "AutoFreeze": AutoFreeze(BLOCKS, percentile=90.0),
    "Egeria": Egeria(BLOCKS, window=2, patience=1, tolerance=0.9),
}
