"""A phase takes all selectors that `freeze` takes, and files keep them."""

import pytest

from core.models import MODEL, SMALL, Linear, Norm
from frostline import everything, glob, of_type, own, regex, where
from frostline._core.param import Param
from frostline._core.selecting.expressions import Selector
from frostline._core.selecting.resolve import resolve
from frostline.errors import SelectorError
from frostline.schedules import Chart, Phase, Phases, Schedule, Span, ULMFiT


def is_vector(param: Param) -> bool:
    return len(param.shape) == 1


SELECTORS: list[Selector] = [
    regex(r".*\.(weight|bias)"),
    of_type(Linear),
    of_type("Norm", "Linear") - glob("head"),
    where(is_vector),
    own("stem.norm") | own("**.q_proj"),
    everything,
    glob("layers[:2]"),
]


@pytest.mark.parametrize("selector", SELECTORS, ids=repr)
def test_a_phase_freezes_what_freeze_freezes_also_from_a_file(selector: Selector) -> None:
    phase = Phase([selector, "!head"], rates=[(selector, 0.5)])
    assert phase.plan(MODEL).frozen == resolve([selector, "!head"], MODEL)
    taken = resolve([selector], MODEL)
    assert {path for path, factor in phase.factors(MODEL).items() if factor == 0.5} == taken - {"stats"}
    schedule = Phases([Span(0, None, phase)])
    for again in (Schedule.from_toml(schedule.to_toml()), Schedule.from_json(schedule.to_json())):
        assert again == schedule
        assert again.at(0).plan(MODEL) == phase.plan(MODEL)


def test_the_text_in_a_file() -> None:
    schedule = Phases([Span(0, None, Phase(["**", of_type(Norm), regex("he.*")]))])
    assert schedule.to_toml() == (
        'format = "frostline.schedule"\n'
        "version = 1\n"
        'schedule = "Phases"\n'
        "\n"
        "[[spans]]\n"
        "start = 0\n"
        "frozen = [\n"
        '    "**",\n'
        "    \"of_type('core.models.Norm')\",\n"
        "    \"regex('he.*')\",\n"
        "]\n"
    )


def test_a_text_takes_back() -> None:
    assert Phase(["**", "!of_type('Linear') | own('norm')"]).plan(SMALL).frozen == {"embed.table"}


def test_a_phase_keeps_the_text() -> None:
    assert Phase([everything, glob("head"), of_type("Norm")]).frozen == ("**", "head", "of_type('Norm')")


def test_a_function_without_a_name_is_in_no_phase() -> None:
    with pytest.raises(SelectorError, match="has no name by which it can be imported"):
        Phase([where(lambda param: True)])


def test_blocks_may_be_selectors() -> None:
    schedule = ULMFiT([of_type("Norm"), glob("body"), "head"], period=1)
    assert schedule.blocks == ("of_type('Norm')", "body", "head")
    assert schedule.at(0).plan(SMALL).trainable == {"head.projection", "head.shift"}


def test_a_chart_has_a_row_for_each_text() -> None:
    schedule = Phases([Span(0, 1, Phase([of_type("Norm"), "!norm"])), Span(1, None, Phase())])
    chart = Chart.of(schedule, steps=2, inventory=SMALL)
    assert chart.rows == ("of_type('Norm')", "norm", "everything else")
    assert Chart.of(schedule, steps=2).shares == (0.5, 1.0, 1.0)
