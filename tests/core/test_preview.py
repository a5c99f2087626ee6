"""What selectors would take, as a value and as a table."""

import pytest

from core.models import MODEL, TIED
from frostline._core.inventory import Inventory
from frostline._core.param import Param
from frostline._core.reporting.preview import Selection, preview
from frostline._core.selecting.resolve import resolve


def taken(*selectors: str) -> Selection:
    return preview(MODEL, resolve(selectors, MODEL))


def test_a_table_of_what_is_taken_whole() -> None:
    assert str(taken("**.bias", "layers[2:5]", "layers[7]", "stem", "stats", "table")).splitlines() == [
        "                              parameters  params  memory",
        "layers[2:5]  Linear                    3       6    24 B",
        "layers.7  Linear                       1       2     8 B",
        "stem  ModuleList                       4       8    32 B",
        "stats  Norm                            0       0     0 B",
        "table                                  3       6    24 B",
        "head.q_proj.bias  float32[2]           1       2     8 B",
        "12 of 26 parameters (24 of 250 params, 96 B) and 1 module with buffers alone.",
    ]


def test_the_whole_model_is_one_row() -> None:
    assert str(taken()).splitlines()[1:] == [
        "**  Net          26     250  1000 B",
        "26 of 26 parameters (250 of 250 params, 1000 B) and 1 module with buffers alone.",
    ]


def test_equal_parts_of_equal_neighbours_are_one_row() -> None:
    paths = [f"layers.{number}.{name}" for number in range(12) for name in ("w", "b")]
    model = Inventory(tuple(Param(path, (3,), "float32", 4) for path in paths))
    assert str(preview(model, resolve(["**.b"], model))).splitlines()[1:] == [
        "layers[0:12].b  float32[3]          12      36   144 B",
        "12 of 24 parameters (36 of 72 params, 144 B).",
    ]
    assert resolve(["layers[0:12].b"], model) == resolve(["**.b"], model)


def test_values() -> None:
    found = taken("**.bias", "stats")
    assert found.paths == ("stem.norm.bias", "head.q_proj.bias")
    assert (len(found), found.total, found.modules) == (2, 26, ("stats",))
    assert repr(found) == "<Selection: 2 of 26 parameters (4 of 250 params, 16 B) and 1 module with buffers alone>"
    assert (found.amounts.frozen_params, found.amounts.frozen_bytes) == (4, 16)


def test_a_tied_parameter_is_counted_once() -> None:
    assert str(preview(TIED, resolve(["head"], TIED))).splitlines() == [
        "              parameters  params  memory",
        "embed  Norm            1     200   800 B",
        "head  Linear           1      50   200 B",
        "2 of 4 parameters (250 of 270 params, 1000 B).",
    ]


def test_a_page_holds_what_the_table_holds() -> None:
    page = preview(MODEL, resolve(["table"], MODEL))._repr_html_()
    assert "<code>table</code>" in page
    assert "3 of 26 parameters (6 of 250 params, 24 B)." in page


@pytest.mark.parametrize("selectors", [(), ("layers",)])
def test_equal_selections_are_equal(selectors: tuple[str, ...]) -> None:
    assert taken(*selectors) == taken(*selectors)
    assert taken(*selectors) != taken("head")
