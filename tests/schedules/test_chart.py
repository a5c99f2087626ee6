"""Charts of schedules, as text, as data and as pictures."""

import json

import pytest

from core.models import MODEL, SMALL
from frostline import NoMatchError, UnsupportedError
from frostline.integrations.schedule_plot import picture
from frostline.schedules import LISA, BAdam, Chart, FreezeOut, HiFT, LinearProbe, Phase, Phases, Span, ULMFiT
from schedules.examples import SCHEDULES

LISA_CHART = """\
LISA(blocks=('0', '1', '2', '3', '4', '5'), sampled=2, period=2, always=('head',))
head             ████████  100%
0                ██████··   75%
1                ······██   25%
2                ········    0%
3                ··██··██   50%
4                ········    0%
5                ██··██··   50%
everything else  ········    0%
                 0      8
█ trains   ▓▒░ at a lower rate, or for a part of a column   · frozen   1 step a column"""

FREEZEOUT_CHART = """\
FreezeOut(blocks=('a', 'b'), steps=40, t0=0.5, spacing='linear')
a                █▓▒░░·····   50%
b                ▒▒▒▒░░░░░░  100%
everything else  ▒▒▒▒▒▒▒▒▒▒  100%
                 0       40
█ trains at 1.96 of the rate   ▓▒░ at a lower rate, or for a part of a column   · frozen   4 steps a column"""

MODEL_CHART = """\
ULMFiT(blocks=('embed', 'body', 'head'), period=2, decay=1.0)
embed            ····██   33%
body             ··████   67%
head             ██████  100%
everything else  ██████  100%
                 0    6
█ trains   ▓▒░ at a lower rate, or for a part of a column   · frozen   1 step a column"""


def test_a_chart_has_a_band_for_each_part() -> None:
    schedule = LISA(["0", "1", "2", "3", "4", "5"], sampled=2, period=2, always=["head"])
    assert str(Chart.of(schedule, steps=8)) == LISA_CHART


def test_a_chart_shades_rates() -> None:
    schedule = FreezeOut(["a", "b"], steps=40, t0=0.5, spacing="linear")
    assert str(Chart.of(schedule, columns=10)) == FREEZEOUT_CHART


def test_a_chart_of_a_model() -> None:
    schedule = ULMFiT(["embed", "body", "head"], period=2, decay=1)
    assert str(Chart.of(schedule, inventory=SMALL)) == MODEL_CHART
    chart = Chart.of(ULMFiT(["**"], period=2), inventory=SMALL)
    assert chart.rows == ("**",)


def test_a_chart_of_a_model_weighs_parameters_by_their_size() -> None:
    """Each of the eleven layers has 2 elements."""
    schedule = Phases([Span(0, 1, Phase(["embed"])), Span(1, None, Phase(["layers[0]"]))])
    chart = Chart.of(schedule, steps=2, inventory=MODEL)
    assert chart.rows == ("embed", "layers[0]", "everything else")
    assert chart.cells == ((0.0, 1.0), (1.0, 0.0), (1.0, 1.0))
    schedule = Phases([Span(0, None, Phase(["layers[0]"], rates=[("layers", 0.5)]))])
    mixed = Phases([Span(0, None, Phase(["layers", "!layers[0]"], rates=[("layers[0]", 0.5)]))])
    assert Chart.of(schedule, steps=1, inventory=MODEL).cells[:2] == ((0.0,), (pytest.approx(10 / 11 * 0.5),))
    assert Chart.of(mixed, steps=1, inventory=MODEL).cells[0] == (pytest.approx(1 / 11 * 0.5),)


def test_a_chart_of_a_model_refuses_a_selector_without_a_match() -> None:
    with pytest.raises(NoMatchError, match="'boddy' matches none"):
        Chart.of(BAdam(["body", "boddy"], period=1), inventory=SMALL)


def test_without_a_model_a_selector_covers_the_paths_that_begin_with_it() -> None:
    spans = [Span(0, 1, Phase(["enc", "!enc[1]"])), Span(1, None, Phase(["enc.norm", "encoder"], rates=[("enc", 0.5)]))]
    chart = Chart.of(Phases(spans), steps=2)
    assert dict(zip(chart.rows, chart.cells, strict=True)) == {
        "enc": (0.0, 0.5),
        "enc[1]": (1.0, 0.5),
        "enc.norm": (0.0, 0.0),
        "encoder": (1.0, 0.0),
        "everything else": (1.0, 1.0),
    }


def test_the_last_column_may_have_fewer_steps() -> None:
    chart = Chart.of(LinearProbe(["head"], steps=5), steps=8, columns=2)
    assert (chart.width, chart.cells) == (5, ((1.0, 1.0), (0.0, 1.0)))
    chart = Chart.of(LinearProbe(["head"], steps=7), steps=8, columns=2)
    assert (chart.width, chart.cells, chart.shares) == (7, ((1.0, 1.0), (0.0, 1.0)), (1.0, 0.125))
    chart = Chart.of(LinearProbe(["head"], steps=13), steps=20, columns=4)
    assert (chart.width, chart.cells) == (5, ((1.0,) * 4, (0.0, 0.0, 0.4, 1.0)))


@pytest.mark.parametrize(
    ("schedule", "horizon"),
    [
        (LinearProbe(["head"], steps=50), 100),
        (ULMFiT(["a", "b", "c"], period=10), 30),
        (ULMFiT(["a"], period=10), 1),
        (BAdam(["a", "b", "c"], period=10, order="ascending"), 240),
        (HiFT(["a", "b", "c"]), 24),
        (FreezeOut(["a"], steps=77), 77),
    ],
)
def test_the_default_length_of_a_chart(schedule: BAdam, horizon: int) -> None:
    assert Chart.of(schedule).steps == horizon


@pytest.mark.parametrize("name", SCHEDULES)
def test_cells_are_means_over_all_steps(name: str) -> None:
    """The reference visits each step, with one column for each."""
    schedule = SCHEDULES[name]
    fine, coarse = Chart.of(schedule, steps=60, columns=60), Chart.of(schedule, steps=60, columns=7)
    for each, few in zip(fine.cells, coarse.cells, strict=True):
        for column, cell in enumerate(few):
            steps = each[column * coarse.width : (column + 1) * coarse.width]
            assert cell == pytest.approx(sum(steps) / len(steps))


def test_the_estimate_for_a_long_run_misses_no_period() -> None:
    """In a column of 1000 steps and a cycle of 4, samples at equal distances would see only one group."""
    chart = Chart.of(HiFT(["a", "b", "c", "d"]), steps=64_000)
    assert chart.width == 1000
    assert all(cell == pytest.approx(0.25, abs=0.08) for row in chart.cells[:4] for cell in row)
    assert chart.cells[4] == (0.0,) * 64
    chart = Chart.of(FreezeOut(["a", "b"], steps=64_000, t0=0.5, spacing="linear", scaled=False))
    assert chart.shares == (pytest.approx(0.5, abs=0.001), 1.0, 1.0)
    # The mean of a cosine over its first 64th, half of it, and the last 64th of the other block.
    assert [chart.cells[0][0], chart.cells[0][16], chart.cells[1][63]] == pytest.approx([1.0, 0.475, 0.0], abs=0.01)


def test_a_chart_as_data() -> None:
    chart = Chart.of(LinearProbe(["head"], steps=1), steps=2)
    assert json.loads(json.dumps(chart.to_dict())) == {
        "format": "frostline.chart",
        "version": 1,
        "schedule": {
            "format": "frostline.schedule",
            "version": 1,
            "schedule": "LinearProbe",
            "head": ["head"],
            "steps": 1,
        },
        "steps": 2,
        "steps_a_column": 1,
        "rows": [
            {"part": "head", "trains": 1.0, "columns": [1.0, 1.0]},
            {"part": "everything else", "trains": 0.5, "columns": [0.0, 1.0]},
        ],
        "changes": [
            {"step": 0, "frozen": ["**", "!head"], "name": "probe"},
            {"step": 1, "frozen": [], "name": "fine-tune"},
        ],
    }


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".SVG", b"<?xml"), (".pdf", b"%PDF")])
def test_a_picture_has_the_bytes_of_its_format_and_is_reproducible(suffix: str, magic: bytes) -> None:
    chart = Chart.of(SCHEDULES["FreezeOut"])
    data = picture(chart, suffix)
    assert data.startswith(magic)
    assert picture(chart, suffix) == data
    assert picture(Chart.of(SCHEDULES["LISA"]), suffix) != data


def test_a_picture_in_another_format_is_refused() -> None:
    with pytest.raises(UnsupportedError) as raised:
        picture(Chart.of(SCHEDULES["LISA"]), ".gif")
    assert str(raised.value) == (
        "picture(chart, '.gif') needs one of these 3 suffixes: .pdf, .png, .svg.\nName the file schedule.png."
    )
