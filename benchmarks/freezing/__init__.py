"""Freezing in PyTorch beside requires_grad_(False) and eval()."""

from __future__ import annotations

import shutil
from dataclasses import asdict

from rich.console import Console

from benchmarks.freezing.case import AGAIN, OURS
from benchmarks.processes import measured
from benchmarks.report import Report, environment, table

MODELS = ("mlp", "resnet", "encoder", "gpt")
ROUNDS, QUICK_ROUNDS = 45, 5
VERB_ROUNDS, IMPORT_RUNS = 25, 9
STEPS_OF_AN_EPOCH = 100


def measure(console: Console, *, quick: bool) -> Report:
    """Measures every model, eager and, where a C++ compiler is there, compiled; a call; and what is done once."""
    kinds = [False] if quick or not any(map(shutil.which, ("g++", "clang++", "c++"))) else [False, True]
    if len(kinds) == 1 and not quick:
        console.print("No C++ compiler here: torch.compile is not measured.")
    cases = []
    for compiled in kinds:
        for name in MODELS:
            with console.status(f"{name}, {'compiled' if compiled else 'eager'} ..."):
                rounds = QUICK_ROUNDS if quick else ROUNDS
                cases.append(measured("benchmarks.freezing.steps", name, rounds, compiled))
    with console.status("A call, and what is done once ..."):
        overhead = measured("benchmarks.freezing.overhead")
        once = measured("benchmarks.freezing.once", 1 if quick else 5)
    with console.status("The verbs beside loops by hand, and the imports ..."):
        rounds = QUICK_ROUNDS if quick else VERB_ROUNDS
        beside = [
            *measured("benchmarks.freezing.verbs", "llama", rounds, function="verbs"),
            *measured("benchmarks.freezing.verbs", "large", QUICK_ROUNDS, function="verbs"),
            *measured("benchmarks.freezing.verbs", QUICK_ROUNDS if quick else IMPORT_RUNS, function="imports"),
        ]
    resnet_seconds = next(case.step_ms for case in cases if case.title.startswith("ResNet")) / 1000
    epoch = once["guard_seconds"] + STEPS_OF_AN_EPOCH * resnet_seconds
    on_resnet = {
        "with freeze(model)": f"{once['temporary_ms']:.1f} ms",
        "guard, in and out": f"{1000 * once['guard_seconds']:.0f} ms, {once['guard_gigabytes']:.1f} GB/s",
        f"of an epoch of {STEPS_OF_AN_EPOCH} steps": f"{100 * once['guard_seconds'] / epoch:.2f} %",
    }
    steps = ("model", "ms", AGAIN, *OURS, "MiB saved", "beyond", "MiB peak", "beyond")
    calls = ("a call adds, in µs", "call", "each parameter", "each module", "each own module with a buffer")
    tables = [
        table(steps, [case.row() for case in cases], title="A training step over one that is frozen by hand"),
        # Adding 0 makes a zero of a negative zero.
        table(calls, [(way, *(f"{round(cost, 2) + 0:.2f}" for cost in costs)) for way, costs in overhead.items()]),
        table(
            ("done once, on", "what", "takes"),
            [
                *(("20,000 parameters", what, f"{ms:.0f} ms") for what, ms in once["milliseconds"].items()),
                *(("ResNet-50", what, takes) for what, takes in on_resnet.items()),
            ],
            words=2,
        ),
        table(("on", "what", "over", "ms of that", "times", "goal"), [each.row() for each in beside], words=3),
    ]
    numbers = {
        "steps": [asdict(case) for case in cases],
        "overhead_us": overhead,
        "once": once,
        "beside": [asdict(each) for each in beside],
    }
    page = "\n\n".join([f"{environment('torch')}.", *tables])
    return Report(page, numbers, [miss for each in (*cases, *beside) for miss in each.misses()])
