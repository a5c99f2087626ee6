"""Costs: the text of one in full, what is folded, the page and the data."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from frostline._core.reporting.bill import Bill, Culprit, UnitCost
from frostline._core.reporting.cost import Cost
from frostline._core.reporting.cost_rows import rows

NOW = Bill(3_600_000, 1_200_000, 400, saved_bytes=4096, gradient_bytes=1600, optimizer_bytes=3200)
LIMIT = replace(NOW, input_gradient_flops=0, saved_bytes=512)
NOTHING = Bill(saved_bytes=100)
CULPRIT = Culprit(("stem.weight", "stem.bias"), 1_200_000, 9_000_400, 6_000_000, 'ft.freeze(model, "stem")')


def unit(path: str, now: Bill = NOW, limit: Bill = LIMIT) -> UnitCost:
    return UnitCost(path, "Linear", now, now, limit)


def cost(*units: UnitCost, culprit: Culprit | None = None) -> Cost:
    now, limit = Bill.total(each.now for each in units), Bill.total(each.limit for each in units)
    return Cost(units, replace(now, peak_bytes=10**6), replace(now, peak_bytes=2 * 10**6), limit, culprit)


SMALL = cost(unit("stem"), *(unit(f"layers.{number}") for number in range(3)), unit("head", NOTHING), culprit=CULPRIT)


def test_the_text_in_full() -> None:
    assert str(SMALL).splitlines() == [
        "                forward  input grad  weight grad     saved  least saved  gradients  optimizer       peak",
        "stem              3.6 M       1.2 M          400   4.0 KiB        512 B    1.6 KiB    3.1 KiB",
        "layers[0:3] ×3   10.8 M       3.6 M        1.2 k  12.0 KiB      1.5 KiB    4.7 KiB    9.4 KiB",
        "head                  0           0            0     100 B        512 B        0 B        0 B",
        "= now            14.4 M       4.8 M        1.6 k  16.1 KiB                 6.2 KiB   12.5 KiB  976.6 KiB",
        "= all trained    14.4 M       4.8 M        1.6 k  16.1 KiB                 6.2 KiB   12.5 KiB    1.9 MiB",
        "= limit          18.0 M           0        2.0 k   2.5 KiB                 7.8 KiB   15.6 KiB        0 B",
        "94 % of the FLOP limit, 16 % of the byte limit.",
        "'stem.weight', 'stem.bias' make the gradient pass through frozen units: 1.2 M FLOPs a step, "
        "1.50 × what it would cost without.",
        'ft.freeze(model, "stem")',
    ]


def test_the_text_in_one_line() -> None:
    assert repr(SMALL) == "<Cost: 94 % of the FLOP limit, 16 % of the byte limit>"


def test_many_culprits_are_counted() -> None:
    many = replace(CULPRIT, paths=tuple(f"stem.{number}" for number in range(5)))
    assert str(many).startswith("'stem.0', 'stem.1', 'stem.2' and 2 more make the gradient pass")
    assert str(replace(CULPRIT, paths=("stem.bias",))).startswith("'stem.bias' makes the gradient pass")


def test_nothing_spent_is_at_the_limit() -> None:
    empty = Cost((), Bill(), Bill(), Bill())
    assert (empty.flop_percent, empty.byte_percent) == (100.0, 100.0)
    assert str(empty).splitlines()[-1] == "100 % of the FLOP limit, 100 % of the byte limit."


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["", "a", "b"], ["model", "a", "b"]),
        (["a.0", "a.1", "b"], ["a[0:2] ×2", "b"]),
        (["a.0.x", "a.0.y", "a.1.x"], ["a.0.x", "a.0.y", "a.1.x"]),
        (["a.0", "a.2"], ["a.0", "a.2"]),
        (["a", "a.b", "a.c"], ["a", "a.b", "a.c"]),
        ([f"u{number}" for number in range(30)], [f"u{number}" for number in range(30)]),
        ([f"a.u{number}" for number in range(30)], ["a"]),
    ],
)
def test_neighbours_that_are_alike_are_one_row(paths: list[str], expected: list[str]) -> None:
    assert [row.label for row in rows([unit(path) for path in paths])] == expected


def test_neighbours_that_differ_are_two_rows() -> None:
    units = [unit("a.0"), unit("a.1"), unit("a.2", NOTHING)]
    assert [row.label for row in rows(units)] == ["a[0:2] ×2", "a.2"]


def test_more_rows_than_a_screen_has_are_counted() -> None:
    text = str(cost(*(unit(f"u{number}") for number in range(30))))
    assert "... and 6 rows more" in text
    assert len(text.splitlines()) == 1 + 24 + 1 + 3 + 1


def test_rows_add_up_to_the_model() -> None:
    shown = rows(SMALL.units)
    assert sum(len(row.units) for row in shown) == len(SMALL.units)
    assert Bill.total(u.now for row in shown for u in row.units) == replace(SMALL.now, peak_bytes=0)


def test_the_page_is_well_formed_and_says_the_same() -> None:
    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []
            self.words: list[str] = []

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

        def handle_data(self, data: str) -> None:
            self.words.append(data)

    named = cost(unit("a<b>"), culprit=CULPRIT)
    reader = Reader()
    reader.feed(named._repr_html_())
    assert reader.open == []
    assert "a<b>" in reader.words
    assert 'ft.freeze(model, "stem")' in reader.words


def test_the_data_is_whole_and_json() -> None:
    data = json.loads(json.dumps(SMALL.to_dict()))
    assert data["format"] == "frostline.cost"
    assert data["now"] == {
        "forward_flops": 14_400_000,
        "input_gradient_flops": 4_800_000,
        "weight_gradient_flops": 1600,
        "saved_bytes": 16_484,
        "gradient_bytes": 6400,
        "optimizer_bytes": 12_800,
        "peak_bytes": 1_000_000,
    }
    assert [each["path"] for each in data["units"]] == ["stem", "layers.0", "layers.1", "layers.2", "head"]
    assert data["culprit"]["ratio"] == 1.5001
    assert data["flop_percent"] == round(100 * SMALL.limit.flops / SMALL.now.flops, 4)
