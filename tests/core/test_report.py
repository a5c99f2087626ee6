"""Reports: the text of one in full, what is folded and what is not, the page and the data."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from core.models import SMALL, TIED, Linear, ModuleList, Net, Norm, param
from frostline import Plan
from frostline._core.inventory import Inventory
from frostline._core.param import Module, Param
from frostline._core.reporting.report import Report, report
from frostline._core.selecting.resolve import resolve


class Layer: ...


class Attention: ...


def layer(number: int) -> tuple[Param, ...]:
    path = f"encoder.layers.{number}"
    return (
        param(f"{path}.attn.in_proj", 48, 16),
        param(f"{path}.attn.out.weight", 16, 16),
        param(f"{path}.norm.w", 16),
    )


def layer_modules(number: int) -> tuple[Module, ...]:
    path = f"encoder.layers.{number}"
    below = (Module(f"{path}.attn", Attention), Module(f"{path}.attn.out", Linear), Module(f"{path}.norm", Norm))
    return (Module(path, Layer), *below, Module(f"{path}.dropout", Net))


BIG = Inventory(
    params=(
        param("cls", 16),
        param("embed.weight", 100, 16, aliases=("head.weight",)),
        *(each for number in range(12) for each in layer(number)),
        param("head.bias", 100),
        replace(param("probe.weight", 16, 2), pinned=True),
    ),
    modules=(
        Module("", Net),
        Module("embed", Norm),
        Module("encoder", Net),
        Module("encoder.layers", ModuleList),
        *(each for number in range(12) for each in layer_modules(number)),
        Module("stats", Norm, buffer_bytes=2048, stateful=True),
        Module("head", Linear),
        Module("probe", Linear, pinned=True),
    ),
)
FROZEN = resolve(["embed", "encoder.layers[:9]", "stats", "probe"], BIG)
PLAN = Plan(FROZEN, BIG.paths - FROZEN)
HELD = frozenset({"embed", "stats", *(f"encoder.layers.{number}" for number in range(9))})

TEXT = """\
                                         params  frozen    memory  optimizer  state
model  Net                               14,228  10,992  55.6 KiB       88 B  partly
├─ embed  Norm                            1,600   1,600   6.2 KiB        0 B  frozen     held
│  └─ weight  float32[100, 16]            1,600   1,600   6.2 KiB        0 B  frozen     also head.weight
├─ encoder  Net                          12,480   9,360  48.8 KiB       72 B  partly
│  └─ layers  ModuleList                 12,480   9,360  48.8 KiB       72 B  partly
│     ├─ layers[0:9] ×9  Layer            9,360   9,360  36.6 KiB        0 B  frozen     held
│     │  ├─ attn  Attention               9,216   9,216  36.0 KiB        0 B  frozen
│     │  │  ├─ out  Linear                2,304   2,304   9.0 KiB        0 B  frozen
│     │  │  └─ in_proj  float32[48, 16]   6,912   6,912  27.0 KiB        0 B  frozen
│     │  └─ norm  Norm                      144     144     576 B        0 B  frozen
│     └─ layers[9:12] ×3  Layer           3,120       0  12.2 KiB       72 B  trainable
│        ├─ attn  Attention               3,072       0  12.0 KiB       48 B  trainable
│        │  ├─ out  Linear                  768       0   3.0 KiB       24 B  trainable
│        │  └─ in_proj  float32[48, 16]   2,304       0   9.0 KiB       24 B  trainable
│        └─ norm  Norm                       48       0     192 B       24 B  trainable
├─ stats  Norm                                0       0       0 B        0 B  frozen     held
├─ head  Linear                             100       0     400 B        8 B  partly
│  ├─ weight  float32[100, 16]                0       0       0 B        0 B  frozen     is embed.weight
│  └─ bias  float32[100]                    100       0     400 B        8 B  trainable
├─ probe  Linear                             32      32     128 B        0 B  frozen     frozen use
└─ cls  float32[16]                          16       0      64 B        8 B  trainable
3,236 of 14,228 params are trainable (22.7%; 12.6 KiB of 55.6 KiB).
"""


def test_the_text_of_a_report_never_changes_silently() -> None:
    shown = report(BIG, PLAN, held=HELD, optimizer_bytes=dict.fromkeys(PLAN.trainable, 8))
    assert str(shown) == TEXT.removesuffix("\n")


SMALL_TEXT = """\
                              params  frozen  memory  state
model  Net                        12       6    48 B  partly
├─ embed  Norm                     2       0     8 B  trainable
├─ body  Linear                    4       4    16 B  frozen
├─ norm  Norm                      2       0     8 B  trainable
└─ head  Linear                    4       2    16 B  partly
   ├─ projection  float32[2]       2       0     8 B  trainable
   └─ shift  float32[2]            2       2     8 B  frozen
6 of 12 params are trainable (50.0%; 24 B of 48 B).
"""


def test_a_module_whose_parameters_agree_is_one_line() -> None:
    frozen = frozenset({"body.weight", "body.bias", "head.shift"})
    assert str(report(SMALL, Plan(frozen, SMALL.paths - frozen))) == SMALL_TEXT.removesuffix("\n")


def lines_of(inventory: Inventory, frozen: set[str]) -> list[str]:
    plan = Plan(frozenset(frozen), inventory.paths - frozen)
    return [line.strip("│├└─ ").split("  ")[0] for line in str(report(inventory, plan)).splitlines()[1:-1]]


def stack(*paths: str) -> Inventory:
    return Inventory(tuple(param(path, 2, 2) for path in paths))


FOLDS = [
    (stack("l.0.w", "l.1.w", "l.2.w"), set(), ["model", "l", "l[0:3] ×3"]),
    (stack("l.0.w", "l.1.w", "l.2.w"), {"l.1.w"}, ["model", "l", "0", "1", "2"]),
    (stack("l.0.w", "l.1.w", "l.2.w"), {"l.0.w"}, ["model", "l", "0", "l[1:3] ×2"]),
    (stack("l.0.w", "l.2.w", "l.3.w"), set(), ["model", "l", "0", "l[2:4] ×2"]),
    (stack("0.w", "1.w"), set(), ["model", "[0:2] ×2"]),
    (stack("q.w", "k.w"), set(), ["model", "q", "k"]),
    (stack("l.0.w", "l.1.v"), set(), ["model", "l", "0", "1"]),
    (stack("g.0", "g.1", "h.w"), {"g.0", "g.1"}, ["model", "g", "h"]),
    (stack("l.0.m.0.w", "l.0.m.1.w", "l.1.m.0.w", "l.1.m.1.w"), set(), ["model", "l", "l[0:2] ×2", "m", "m[0:2] ×2"]),
]


@pytest.mark.parametrize(("inventory", "frozen", "lines"), FOLDS)
def test_only_equal_neighbours_are_folded(inventory: Inventory, frozen: set[str], lines: list[str]) -> None:
    assert lines_of(inventory, frozen) == lines


def test_a_key_may_be_longer_than_any_number() -> None:
    keys = ["9" * 999, "1" + "0" * 999, "9" * 5000]
    assert lines_of(stack(*(f"l.{key}.w" for key in keys)), set()) == ["model", "l", *keys]


def test_a_shape_or_a_use_that_differs_is_not_folded() -> None:
    one, other = param("l.0.w", 2, 2), param("l.1.w", 4)
    assert lines_of(Inventory((one, other)), set()) == ["model", "l", "0", "1"]
    assert lines_of(Inventory((one, replace(other, shape=(2, 2), pinned=True))), set()) == ["model", "l", "0", "1", "w"]


def test_folded_lines_add_up() -> None:
    shown = report(stack("l.0.w", "l.1.w"), Plan(frozenset(), frozenset({"l.0.w", "l.1.w"})))
    assert [line.split()[-4:-1] for line in str(shown).splitlines()[3:4]] == [["0", "32", "B"]]
    assert shown.totals.params == 8


def test_a_tied_parameter_is_counted_once() -> None:
    shown = report(TIED, Plan(TIED.paths, frozenset()))
    assert shown.totals.params == 200 + 16 + 4 + 50
    by_path = {entry.path: entry for entry in shown.entries}
    assert (by_path["embed.weight"].tied, by_path["embed.weight"].amounts.params) == (("head.weight",), 200)
    assert (by_path["head.weight"].tied, by_path["head.weight"].amounts.params) == (("embed.weight",), 0)
    assert by_path["head.weight"].state == "frozen"


def test_a_model_without_parameters_has_a_report() -> None:
    shown = report(Inventory((), (Module("", Norm),)), Plan(frozenset(), frozenset()))
    assert str(shown).splitlines()[-1] == "0 of 0 params are trainable (0%; 0 B of 0 B)."
    assert repr(shown) == "<Report: 0 of 0 params are trainable (0%; 0 B of 0 B).>"


def test_the_data_of_a_report() -> None:
    inventory = Inventory((param("a.w", 3), param("b", 1)), (Module("", Net), Module("a", Norm, buffer_bytes=5)))
    shown = report(
        inventory, Plan(frozenset({"a.w"}), frozenset({"b"})), held=frozenset({"a"}), optimizer_bytes={"b": 9}
    )
    assert json.loads(json.dumps(shown.to_dict())) == DATA


def entry(path: str, kind: str, state: str, numbers: tuple[int, ...], **rest: object) -> dict[str, object]:
    names = ("params", "frozen_params", "bytes", "frozen_bytes", "optimizer_bytes", "buffer_bytes")
    words = {"path": path, "kind": kind, "state": state, "tied": [], "is_param": False, "held": False}
    return words | {"frozen_use": False} | dict(zip(names, numbers, strict=True)) | rest


DATA = {
    "format": "frostline.report",
    "version": 1,
    "totals": entry("", "Net", "partly", (4, 3, 16, 12, 9, 5), trainable_percent=25.0),
    "entries": [
        entry("a", "Norm", "frozen", (3, 3, 12, 12, 0, 5), held=True),
        entry("a.w", "float32[3]", "frozen", (3, 3, 12, 12, 0, 0), is_param=True),
        entry("b", "float32[1]", "trainable", (1, 0, 4, 0, 9, 0), is_param=True),
    ],
}


# --- where it is shown

HOSTILE = Inventory((Param("[bold]x.<script>alert(1)</script>.\x1b[2J", (1,), "float32", 4),))


def hostile() -> Report:
    return report(HOSTILE, Plan(frozenset(), HOSTILE.paths))


def test_a_name_is_neither_markup_nor_a_command_to_the_terminal() -> None:
    text = str(hostile())
    assert "['[bold]x']" in text
    assert "\x1b" not in text


def test_a_narrow_terminal_gets_one_line_each() -> None:
    console = Console(width=60, color_system=None)
    with console.capture() as captured:
        console.print(report(BIG, PLAN))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= 60
    assert len(lines) < 40


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append(tag)
        self.open.append(tag)
        self.links += [name for name, _ in attrs if name in {"href", "src"} or name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def tags(page: str) -> _Tags:
    found = _Tags()
    found.feed(page)
    return found


@pytest.mark.parametrize("shown", [hostile(), report(BIG, PLAN, held=HELD, optimizer_bytes={})])
def test_the_page_is_whole_and_has_no_script(shown: Report) -> None:
    found = tags(shown._repr_html_())
    assert found.open == []
    assert found.links == []
    assert set(found.opened) == {"table", "thead", "tbody", "tr", "th", "td", "code", "small", "p"}


def test_a_script_would_be_seen() -> None:
    """The twin of the test above."""
    assert tags("<p><script src='x'>").opened == ["p", "script"]
    assert tags("<p><script src='x'>").links == ["src"]


def test_the_page_says_what_the_text_says() -> None:
    page = report(SMALL, Plan(frozenset({"norm.weight"}), SMALL.paths - {"norm.weight"}))._repr_html_()
    assert "10 of 12 params are trainable (83.3%; 40 B of 48 B)." in page
    assert page.count("<tr>") == 6
