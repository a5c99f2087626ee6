"""Patterns and what they name, as one table."""

import pytest

from core.models import MODEL
from frostline import NoMatchError, UnsupportedError, glob
from frostline._core.inventory import Inventory
from frostline._core.param import Module, Param
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
    ("**[3]", {"stem.out.weight", "layers.3.weight"}),
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
    # What has no positions has no first child.
    "[0]",
    "[:-1]",
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
    "pattern",
    [
        "embed.weight[:32000]",
        "embed.weight[0]",
        "*.weight[-1]",
        "**.weight[:2]",
        "scale[0]",
        "table[0]",
        "head[:2]",
        "*[0]",
    ],
)
def test_rows_are_refused_and_never_the_whole_tensor(pattern: str) -> None:
    with pytest.raises(UnsupportedError):
        resolve([pattern], MODEL, allow_empty=True)


def model_of(*paths: str) -> Inventory:
    """A model whose parameters have different first axes."""
    return Inventory(tuple(Param(path, (size,), "float32", 4) for size, path in enumerate(paths, start=1)))


TWELVE = model_of(*(f"layers_{number}.w" for number in sorted(range(12), key=str)))


@pytest.mark.parametrize(
    ("pattern", "numbers"),
    [("[0]", [0]), ("[2]", [2]), ("[-1]", [11]), ("[:2]", [0, 1]), ("[10:]", [10, 11]), ("[::5]", [0, 5, 10])],
)
def test_one_name_with_numbers_counts_in_the_order_of_the_numbers(pattern: str, numbers: list[int]) -> None:
    assert resolve([pattern], TWELVE) == {f"layers_{number}.w" for number in numbers}


def test_one_name_may_count_from_any_number_and_with_zeros() -> None:
    assert resolve(["[0]"], model_of("fc1.w", "fc2.w")) == {"fc1.w"}
    assert resolve(["[-1]"], model_of("block_09.w", "block_10.w")) == {"block_10.w"}


@pytest.mark.parametrize(
    "paths",
    [
        ("stem.w", "body.w", "head.w"),
        ("conv1.w", "bn1.w"),
        ("layer1.w", "layer2.w", "fc.w"),
        ("0.w", "1.w", "norm.w"),
        ("0.w", "layer_1.w"),
        ("block_1.w", "block_01.w"),
        ("q4_proj.w", "q8_proj.w"),
    ],
    ids=str,
)
@pytest.mark.parametrize("pattern", ["[0]", "[-1]", "[:1]", "[:]"])
def test_other_names_have_no_positions(paths: tuple[str, ...], pattern: str) -> None:
    with pytest.raises(NoMatchError) as caught:
        resolve([pattern], model_of(*paths))
    assert caught.value.closest == tuple(path.rpartition(".")[0] for path in paths)


def test_a_list_has_the_positions_that_python_gives_it() -> None:
    params = tuple(Param(f"seq.{key}.w", (size,), "float32", 4) for size, key in ((1, "2"), (2, "act"), (3, "0")))
    model = Inventory(params, (Module("", object), Module("seq", object, members=("2", "drop", "0", "act"))))
    assert resolve(["seq[0]"], model) == {"seq.2.w"}
    assert resolve(["seq[-1]"], model) == {"seq.act.w"}
    assert resolve(["seq[1:3]"], model) == {"seq.0.w"}
    assert resolve(["seq.0"], model) == {"seq.0.w"}
    with pytest.raises(NoMatchError):
        resolve(["seq[1]"], model)


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
    with pytest.raises(UnsupportedError):
        resolve(["l[0]"], Inventory(names))
    assert resolve(["l[0]"], Inventory(names[:2])) == {"l.0.w"}
    assert resolve(["l[-1]"], Inventory(names[:2])) == {names[1].path}
