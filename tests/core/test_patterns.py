"""Patterns and what they name, as one table."""

import pytest

from core.models import MODEL
from frostline import NoMatchError, UnsupportedError, glob
from frostline._core.inventory import Inventory
from frostline._core.param import Param
from frostline._core.selecting.pattern import parse, spell
from frostline._core.selecting.resolve import resolve

LAYERS = {
    "layers.0.weight",
    "layers.1.weight",
    "layers.2.weight",
    "layers.3.weight",
    "layers.4.weight",
    "layers.5.weight",
    "layers.6.weight",
    "layers.7.weight",
    "layers.8.weight",
    "layers.9.weight",
    "layers.10.weight",
}
NORM = {"stem.norm.weight", "stem.norm.bias"}
STEM = NORM | {"stem.conv.weight", "stem.out.weight"}
TABLE = {"table.mlp/~/linear.w", "table.my key.w", "table.a.b.w"}
Q_PROJ = {"head.q_proj.weight", "head.q_proj.bias"}
HEAD = Q_PROJ | {"head.v_proj.weight", "head.o_proj.weight"}
GAINS = {"gains.0", "gains.1"}
EVERYTHING = {"scale", "embed.weight", "stats"} | LAYERS | STEM | TABLE | HEAD | GAINS

NAMED: list[tuple[str, set[str]]] = [
    # A parameter names itself, a module all below it.
    ("scale", {"scale"}),
    ("embed.weight", {"embed.weight"}),
    ("embed", {"embed.weight"}),
    ("stem", STEM),
    ("stats", {"stats"}),
    # Anchored at both ends: 1 is not 10.
    ("layers.1", {"layers.1.weight"}),
    ("layers.10", {"layers.10.weight"}),
    ("layers.1*", {"layers.1.weight", "layers.10.weight"}),
    ("layers", LAYERS),
    # Indices and slices as Python counts them.
    ("layers[1]", {"layers.1.weight"}),
    ("layers[10].weight", {"layers.10.weight"}),
    ("layers[-1]", {"layers.10.weight"}),
    ("layers[-11]", {"layers.0.weight"}),
    ("layers[ 3 ]", {"layers.3.weight"}),
    ("layers[:2]", {"layers.0.weight", "layers.1.weight"}),
    ("layers[-2:]", {"layers.9.weight", "layers.10.weight"}),
    ("layers[9:99]", {"layers.9.weight", "layers.10.weight"}),
    ("layers[::5]", {"layers.0.weight", "layers.5.weight", "layers.10.weight"}),
    ("layers[1:8:3]", {"layers.1.weight", "layers.4.weight", "layers.7.weight"}),
    ("layers[::-5]", {"layers.0.weight", "layers.5.weight", "layers.10.weight"}),
    ("layers[2:0:-1]", {"layers.1.weight", "layers.2.weight"}),
    ("layers[:]", LAYERS),
    ("gains[-1]", {"gains.1"}),
    # Members with names are counted too, those without parameters included.
    ("stem[0]", {"stem.conv.weight"}),
    ("stem[1]", NORM),
    ("stem[1].bias", {"stem.norm.bias"}),
    ("stem[3]", {"stem.out.weight"}),
    ("stem[-1]", {"stem.out.weight"}),
    ("stem[2:]", {"stem.out.weight"}),
    # Of the model itself too.
    ("[0]", {"embed.weight"}),
    ("[4]", TABLE),
    ("['scale']", {"scale"}),
    # Keys as Python writes them.
    ("table['mlp/~/linear']", {"table.mlp/~/linear.w"}),
    ("table['mlp/~/linear']['w']", {"table.mlp/~/linear.w"}),
    ("table.mlp/~/linear.w", {"table.mlp/~/linear.w"}),
    ('table["my key"].w', {"table.my key.w"}),
    ("table['a.b']", {"table.a.b.w"}),
    ("table['my\\x20key']", {"table.my key.w"}),
    ("layers['1']", {"layers.1.weight"}),
    # * is within one segment.
    ("*", EVERYTHING),
    ("*.weight", {"embed.weight"}),
    ("*.*.bias", {"stem.norm.bias", "head.q_proj.bias"}),
    ("head.*_proj.weight", {"head.q_proj.weight", "head.v_proj.weight", "head.o_proj.weight"}),
    ("head.q*j", Q_PROJ),
    ("s*", STEM | {"scale", "stats"}),
    ("table.*", TABLE),
    # {a,b} are alternatives within one segment.
    ("head.{q,v}_proj.weight", {"head.q_proj.weight", "head.v_proj.weight"}),
    ("{scale,gains}", {"scale"} | GAINS),
    ("layers.{1,1{0,1}}", {"layers.1.weight", "layers.10.weight"}),
    ("{st*,e{m,n}bed}", STEM | {"embed.weight", "stats"}),
    # ** is any number of segments, none included.
    ("**", EVERYTHING),
    ("**.**", EVERYTHING),
    ("**.scale", {"scale"}),
    ("**.bias", {"stem.norm.bias", "head.q_proj.bias"}),
    ("**.n*", NORM),
    ("**.norm.weight", {"stem.norm.weight"}),
    ("**.{q,v}_proj", Q_PROJ | {"head.v_proj.weight"}),
    ("stem.**", STEM),
    ("scale.**", {"scale"}),
    ("stem.**.weight", {"stem.conv.weight", "stem.norm.weight", "stem.out.weight"}),
    ("stem.**.norm.**.bias", {"stem.norm.bias"}),
    ("{stem,head}.**.bias", {"stem.norm.bias", "head.q_proj.bias"}),
    ("**.layers.**.weight", LAYERS),
    ("**.*.bias", {"stem.norm.bias", "head.q_proj.bias"}),
    ("**.layers[0]", {"layers.0.weight"}),
    ("**[3]", {"stem.out.weight", "layers.3.weight", "stats"}),
    ("layers[:3].weight", {"layers.0.weight", "layers.1.weight", "layers.2.weight"}),
]

NOT_NAMED = [
    "weight",
    "layer",
    "layers.11",
    "layers[11]",
    "layers[-12]",
    "layers[11:]",
    "layers.1.weigh",
    "layers.01",
    "layers.-1",
    "ayers.1",
    "Scale",
    "stem.act",
    "stem.0",
    "scale.weight",
    "table.a.b",
    "stem.*.*.bias",
    "stem.**.stem",
    "{a,b}",
    "bias",
    "*.bias",
]


@pytest.mark.parametrize(("pattern", "paths"), NAMED, ids=[pattern for pattern, _ in NAMED])
def test_a_pattern_names_these(pattern: str, paths: set[str]) -> None:
    assert resolve([pattern], MODEL) == paths
    assert resolve([glob(pattern)], MODEL) == paths


@pytest.mark.parametrize("pattern", NOT_NAMED)
def test_a_pattern_names_nothing(pattern: str) -> None:
    with pytest.raises(NoMatchError):
        resolve([pattern], MODEL)
    assert resolve([pattern], MODEL, allow_empty=True) == frozenset()


@pytest.mark.parametrize(
    "pattern", ["embed.weight[:32000]", "embed.weight[0]", "*.weight[-1]", "**.weight[:2]", "scale[0]"]
)
def test_rows_are_refused_and_never_the_whole_tensor(pattern: str) -> None:
    with pytest.raises(UnsupportedError):
        resolve([pattern], MODEL, allow_empty=True)


def test_the_model_of_the_table_is_as_it_says() -> None:
    assert MODEL.paths == EVERYTHING


def test_a_spelled_path_names_itself() -> None:
    for node in MODEL.tree.names:
        assert resolve([spell(node.keys)], MODEL) == {node.canonical}


def test_a_key_that_does_not_print_is_quoted() -> None:
    assert spell(("a", "\x1b[2J", "b")) == r"a['\x1b[2J'].b"
    assert spell(("\ud800", "x")) == r"['\ud800'].x"


def test_deep_paths_need_no_recursion() -> None:
    path = ".".join(["a"] * 5000)
    assert len(parse(path)) == 5000


def test_a_key_may_be_longer_than_any_number() -> None:
    names = tuple(Param(f"l.{key}.w", (1,), "float32", 4) for key in ("0", "9" * 999, "9" * 5000))
    assert resolve(["l[0]"], Inventory(names)) == {"l.0.w"}
    assert resolve(["l[0]"], Inventory(names[:2])) == {"l.0.w"}
    assert resolve(["l[-1]"], Inventory(names[:2])) == {names[1].path}
