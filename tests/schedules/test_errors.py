"""The whole text of every error of schedules and policies."""

import pickle
from collections.abc import Callable

import pytest

from frostline import FrostlineError
from frostline._core.errors import ScheduleError
from frostline.schedules import (
    LISA,
    AutoFreeze,
    BAdam,
    Chart,
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

LAYERS = [f"layers[{number}]" for number in range(8)]
PROBE = LinearProbe(["head"], steps=5)
SPANS = 'Write Phases([Span(0, 1000, Phase(["**", "!head"])), Span(1000, None, Phase())]).'
BLOCKS = 'Write LISA(..., blocks=["encoder.layers[0]", "encoder.layers[1]"]).'
SELECTORS = 'a list of selectors: Phase(["**", "!head"])'
HEADER = '{"format": "frostline.schedule", "version": 1'


def two(*ends: tuple[int, int | None]) -> Phases:
    return Phases([Span(start, stop, Phase()) for start, stop in ends])


# A name, a call, and the lines of its error.
TEXTS: list[tuple[str, Callable[[], object], list[str]]] = [
    (
        "negative step",
        lambda: PROBE.at(-1),
        [
            "LinearProbe.at(step=-1) is -1, and must be a whole number of at least 0.",
            "Write LinearProbe.at(..., step=1).",
        ],
    ),
    (
        "step that is not a number",
        lambda: PROBE.next_change(0.5),  # type: ignore[arg-type]
        [
            "LinearProbe.at(step=0.5) is 0.5 of type float, and must be a whole number of at least 0.",
            "Write LinearProbe.at(..., step=1).",
        ],
    ),
    (
        "negative stop",
        lambda: list(PROBE.changes(-5)),
        [
            "LinearProbe.changes(stop=-5) is -5, and must be a whole number of at least 0.",
            "Write LinearProbe.changes(..., stop=1).",
        ],
    ),
    (
        "negative cycle",
        lambda: HiFT(["a"]).cycle(-1),
        ["HiFT.cycle(step=-1) is -1, and must be a whole number of at least 0.", "Write HiFT.cycle(..., step=1)."],
    ),
    (
        "no steps to draw",
        lambda: Chart.of(PROBE, steps=0),
        ["Chart.of(steps=0) is 0, and must be a whole number of at least 1.", "Write Chart.of(..., steps=1)."],
    ),
    (
        "period of 0",
        lambda: LISA(LAYERS, sampled=2, period=0),
        ["LISA(period=0) is 0, and must be a whole number of at least 1.", "Write LISA(..., period=1)."],
    ),
    (
        "a truth for a number",
        lambda: BAdam(LAYERS, period=True),
        [
            "BAdam(period=True) is True of type bool, and must be a whole number of at least 1.",
            "Write BAdam(..., period=1).",
        ],
    ),
    (
        "seed",
        lambda: BAdam(LAYERS, period=1, seed="0"),  # type: ignore[arg-type]
        ["BAdam(seed='0') is '0' of type str, and must be a whole number.", "Write BAdam(..., seed=0)."],
    ),
    (
        "more layers than there are",
        lambda: LISA(LAYERS, sampled=9, period=1),
        [
            "LISA(sampled=9) draws 9 of 8 blocks.",
            "  layers[0]",
            "  layers[1]",
            "  layers[2]",
            "  layers[3]",
            "  layers[4]",
            "Write LISA(..., sampled=8) or less.",
        ],
    ),
    (
        "no blocks",
        lambda: LISA([], sampled=1, period=1),
        ["LISA(blocks=[]) names 0 blocks, and needs 1 or more, in order from input to output.", BLOCKS],
    ),
    (
        "one text for blocks",
        lambda: LISA("layers", sampled=1, period=1),
        ["LISA(blocks='layers') is a string, and must be a list of selectors.", "Write blocks=['layers']."],
    ),
    (
        "blocks of another kind",
        lambda: LISA(5, sampled=1, period=1),  # type: ignore[arg-type]
        ["LISA(blocks=5) is of type int, and must be a list of selectors.", BLOCKS],
    ),
    (
        "blocks that are not selectors",
        lambda: ULMFiT(["embed", 5, "!head"], period=1),  # type: ignore[list-item]
        [
            "ULMFiT(blocks=...) has 2 of 3 entries that are not selectors without '!'.",
            "  5",
            "  '!head'",
            'Write the paths of modules: "encoder.layers[0]".',
        ],
    ),
    (
        "blocks twice",
        lambda: HiFT(["a", "b", "a"]),
        ["HiFT(blocks=...) names 1 of 2 blocks more than once.", "  a", "Name each block once: remove one 'a'."],
    ),
    (
        "a block that cannot be read",
        lambda: BAdam(["layers[x]"], period=1),
        [
            "'layers[x]' has no index in the brackets at position 6.",
            "Write [3], [-1], [2:8:2], or ['key'] for a key in quotes.",
        ],
    ),
    (
        "order",
        lambda: BAdam(["a"], period=1, order="descend"),
        [
            "BAdam(order='descend') is not one of the 3 possible values.",
            "Possible values:",
            "  'random'",
            "  'ascending'",
            "  'descending'",
            "Write BAdam(..., order='descending').",
        ],
    ),
    (
        "mode",
        lambda: Plateau([Phase()], patience=1, mode="maximum"),
        [
            "Plateau(mode='maximum') is not one of the 2 possible values.",
            "Possible values:",
            "  'min'",
            "  'max'",
            "Write Plateau(..., mode='max').",
        ],
    ),
    (
        "longest",
        lambda: Plateau([Phase()], patience=1, longest=0),
        ["Plateau(longest=0) is 0, and must be a whole number of at least 1.", "Write Plateau(..., longest=1)."],
    ),
    (
        "share",
        lambda: FreezeOut(["a"], steps=1, t0=0.0),
        ["FreezeOut(t0=0.0) must be a finite number above 0 and at most 1.", "Write FreezeOut(..., t0=1.0)."],
    ),
    (
        "decay",
        lambda: ULMFiT(["a"], period=1, decay=float("nan")),
        ["ULMFiT(decay=nan) must be a finite number of at least 1.", "Write ULMFiT(..., decay=1.0)."],
    ),
    (
        "scaled",
        lambda: FreezeOut(["a"], steps=1, scaled="yes"),  # type: ignore[arg-type]
        ["FreezeOut(scaled='yes') is of type str, and must be true or false.", "Write FreezeOut(..., scaled=True)."],
    ),
    (
        "percentile",
        lambda: AutoFreeze(["a"], percentile=101),
        [
            "AutoFreeze(percentile=101) must be a finite number of at least 0 and at most 100.",
            "Write AutoFreeze(..., percentile=1.0).",
        ],
    ),
    (
        "window",
        lambda: Egeria(["a"], window=1),
        ["Egeria(window=1) is 1, and must be a whole number of at least 2.", "Write Egeria(..., window=2)."],
    ),
    (
        "overlap",
        lambda: two((0, 10), (8, None)),
        [
            "Phases(...) has an overlap of 2 steps.",
            "  from step 8 to step 10",
            "Start each span where the one before it ends: Span(10, ...).",
        ],
    ),
    (
        "gap",
        lambda: two((0, 10), (13, None)),
        [
            "Phases(...) leaves a gap of 3 steps.",
            "  from step 10 to step 13",
            "Start each span where the one before it ends: Span(10, ...).",
        ],
    ),
    (
        "gap at the beginning",
        lambda: two((5, None)),
        ["Phases(...) leaves a gap of 5 steps.", "  from step 0 to step 5", "Begin with Span(0, ...)."],
    ),
    (
        "gap at the end",
        lambda: two((0, 5), (5, 9)),
        [
            "Phases(...) has no span from step 9 on.",
            "  from step 9 on",
            "Leave the last end open: Span(5, None, ...).",
        ],
    ),
    (
        "after the end",
        lambda: two((0, None), (5, None)),
        [
            "Phases(...) has another span after a span without an end.",
            "  from step 0 on",
            "Give it an end: Span(0, 5, ...).",
        ],
    ),
    (
        "empty range",
        lambda: Span(5, 5, Phase()),
        ["Span(stop=5) is 5, and must be a whole number of at least 6.", "Write Span(..., stop=6)."],
    ),
    (
        "no phase",
        lambda: Span(0, None, ["a"]),  # type: ignore[arg-type]
        ["Span(phase=['a']) is of type list, and must be a phase.", 'Write Span(0, 1000, Phase(["**", "!head"])).'],
    ),
    ("no spans", lambda: Phases([]), ["Phases([]) has 0 spans, and needs 1 or more.", SPANS]),
    ("spans of another kind", lambda: Phases([1]), ["Phases([1]) is not a list of spans.", SPANS]),  # type: ignore[list-item]
    (
        "no phases",
        lambda: Plateau([], patience=1),
        [
            "Plateau([]) has 0 phases, and needs 1 or more.",
            'Write Plateau([Phase(["**", "!head"]), Phase()], patience=3).',
        ],
    ),
    (
        "phases of another kind",
        lambda: Plateau("ab", patience=1),  # type: ignore[arg-type]
        [
            "Plateau('ab') is not a list of phases.",
            'Write Plateau([Phase(["**", "!head"]), Phase()], patience=3).',
        ],
    ),
    (
        "watched",
        lambda: Plateau([Phase()], patience=1, watch=1),  # type: ignore[arg-type]
        ["Plateau(watch=1) must be the name of a number.", 'Write Plateau(..., watch="loss").'],
    ),
    (
        "one text for a phase",
        lambda: Phase("head"),
        [f"Phase(frozen='head') is a string, and must be {SELECTORS}.", "Write Phase(['head'])."],
    ),
    (
        "objects of a model",
        lambda: Phase([1]),  # type: ignore[list-item]
        [
            f"Phase(frozen=[1]) is not {SELECTORS}.",
            "Write each selector as a string: a schedule is created without a model, and cannot refer to its objects.",
        ],
    ),
    (
        "begins with taking back",
        lambda: Phase(["!head"]),
        [
            "Phase(frozen=['!head']) begins with an exclusion, but nothing is frozen before it.",
            "Begin with the whole model: Phase([\"**\", '!head']).",
        ],
    ),
    (
        "name",
        lambda: Phase(name=1),  # type: ignore[arg-type]
        ["Phase(name=1) is of type int, and must be a string.", 'Write Phase(..., name="probe").'],
    ),
    (
        "rates",
        lambda: Phase(rates=[("!head", 1)]),
        [
            "Phase(rates=[('!head', 1)]) holds ('!head', 1), which is not a pair of a selector without '!' and a "
            "factor.",
            'Write Phase(..., rates=[("embed", 0.1)]).',
        ],
    ),
    (
        "factor",
        lambda: Phase(rates=[("head", -1)]),
        ["Phase(rates['head']=-1) must be a finite number of at least 0.", "Write Phase(..., rates['head']=1.0)."],
    ),
    (
        "unknown schedule",
        lambda: Schedule.from_json(HEADER + ', "schedule": "Lisa"}'),
        [
            "Schedule.from_json(text) finds no schedule with the name 'Lisa'.",
            "Closest names:",
            "  LISA",
            'Write schedule = "LISA", or first import the module that defines your own schedule.',
        ],
    ),
    (
        "no schedule",
        lambda: Schedule.from_toml("version = 1"),
        [
            "Schedule.from_toml(text) cannot read a schedule: its format is None, not 'frostline.schedule'.",
            "Write it with schedule.to_toml() or schedule.to_json().",
        ],
    ),
    (
        "no TOML",
        lambda: Policy.from_toml("a ="),
        [
            "Policy.from_toml(text) cannot read a policy: it is not TOML (Invalid value (at end of document)).",
            "Write it with policy.to_toml() or policy.to_json().",
        ],
    ),
    (
        "no JSON",
        lambda: Schedule.from_json("{"),
        [
            "Schedule.from_json(text) cannot read a schedule: it is not JSON "
            "(Expecting property name enclosed in double quotes: line 1 column 2 (char 1)).",
            "Write it with schedule.to_toml() or schedule.to_json().",
        ],
    ),
    (
        "no text",
        lambda: Schedule.from_toml(b""),  # type: ignore[arg-type]
        [
            "Schedule.from_toml(text) cannot read a schedule: it is a bytes, not a text.",
            "Write it with schedule.to_toml() or schedule.to_json().",
        ],
    ),
    (
        "no data",
        lambda: Schedule.from_dict([]),
        [
            "Schedule.from_dict(data) cannot read a schedule: it is a list, not an object.",
            "Write it with schedule.to_toml() or schedule.to_json().",
        ],
    ),
    (
        "fields of a file",
        lambda: Schedule.from_json(HEADER + ', "schedule": "BAdam", "blocks": ["a"], "perod": 5}'),
        [
            "BAdam(...) lacks 1 field and has 1 unknown field.",
            "  lacks period",
            "  has 'perod'; closest: period",
            "Write it with these fields: blocks, period.",
        ],
    ),
    (
        "a phase of a file",
        lambda: Phase.from_dict(5),
        ["Phase.from_dict(data) is a int, not an object.", "Write it with these fields: frozen."],
    ),
    (
        "state of another policy",
        lambda: AutoFreeze(["a"]).update({"place": 0}, {}),
        [
            "AutoFreeze(...) got a state of another policy.",
            "  given: {'place': 0}",
            "  for example: {'frozen': 0, 'norms': {}}",
            "Start with AutoFreeze(...).init(), or load the state that was saved with this policy.",
        ],
    ),
    (
        "state of a policy with more phases",
        lambda: Plateau([Phase()], patience=1).phase({"place": 1, "best": None, "waited": 0}),
        [
            "Plateau(...) got a state of another policy.",
            "  given: {'place': 1, 'best': None, 'waited': 0}",
            "  for example: {'place': 0, 'best': None, 'waited': 0}",
            "Start with Plateau(...).init(), or load the state that was saved with this policy.",
        ],
    ),
    (
        "observation missing",
        lambda: Plateau([Phase()], patience=1).update({"place": 0, "best": None, "waited": 0}, {"los": 1.0, "rate": 2}),
        [
            "observation['loss'] is missing among 2 numbers.",
            "Observed:",
            "  los",
            "Pass it: policy.update(state, {'loss': ...}).",
        ],
    ),
    (
        "nothing observed",
        lambda: AutoFreeze(["a"]).update({"frozen": 0, "norms": {}}, {}),
        ["observation['a'] is missing among 0 numbers.", "Pass it: policy.update(state, {'a': ...})."],
    ),
    (
        "observation that is not a number",
        lambda: AutoFreeze(["a"]).update({"frozen": 0, "norms": {}}, {"a": float("inf")}),
        [
            "observation['a'] is inf, and must be a finite number.",
            "Skip steps whose loss is not finite, and pass plain numbers: loss.item().",
        ],
    ),
]


@pytest.mark.parametrize(("do", "lines"), [text[1:] for text in TEXTS], ids=[text[0] for text in TEXTS])
def test_the_whole_text(do: Callable[[], object], lines: list[str]) -> None:
    with pytest.raises(FrostlineError) as raised:
        do()
    assert str(raised.value).splitlines() == lines
    assert isinstance(raised.value, ValueError)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_the_error_has_its_parts_as_attributes() -> None:
    with pytest.raises(ScheduleError) as raised:
        BAdam(["a"], period=1, order="x")
    error = raised.value
    assert (error.expression, error.problem) == ("BAdam(order='x')", "is not one of the 3 possible values.")
    assert error.found == ("Possible values:", "  'random'", "  'ascending'", "  'descending'")
    assert error.fix == "Write BAdam(..., order='random')."


BROKEN_STATES: list[tuple[Policy, dict[str, object]]] = [
    (Plateau([Phase()], patience=1), {"place": -1, "best": None, "waited": 0}),
    (Plateau([Phase()], patience=1), {"place": "0", "best": None, "waited": 0}),
    (AutoFreeze(["a", "b"]), {"frozen": 2, "norms": {}}),
    (AutoFreeze(["a", "b"]), {"frozen": -1, "norms": {}}),
    (AutoFreeze(["a", "b"]), {"frozen": 0, "norms": {"c": 1.0}}),
    (AutoFreeze(["a", "b"]), {"frozen": 0, "norms": []}),
    (Egeria(["a"]), {"frozen": 1, "rate": None, "recent": [], "averages": [], "steepest": 0.0, "flat": 0}),
    (Egeria(["a"]), {"frozen": 0, "rate": None, "recent": 5, "averages": [], "steepest": 0.0, "flat": 0}),
]


@pytest.mark.parametrize(("policy", "state"), BROKEN_STATES)
def test_a_broken_state_is_an_error(policy: Policy, state: dict[str, object]) -> None:
    with pytest.raises(ScheduleError, match="got a state of another policy"):
        policy.update(state, {"a": 1.0, "b": 1.0, "loss": 1.0})
