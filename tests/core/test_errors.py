"""The whole text of every error."""

from collections.abc import Callable

import pytest

import frostline
from core.models import MODEL, SMALL, TIED, Linear
from frostline import FrostlineError, Plan, everything, glob, of_type, regex, where
from frostline._core.fingerprint import Fingerprint
from frostline._core.inventory import Inventory
from frostline._core.param import Param
from frostline._core.plan import Change
from frostline._core.reporting.report import report
from frostline._core.selecting.resolve import resolve
from frostline.errors import FileFormatError, ModeError

WIDE = Inventory(
    tuple(
        Param(path, (size,), "float32", 4)
        for size, path in enumerate(["body.weight", "body.bias", "neck.weight", "neck.bias", "head"], start=1)
    )
)
EMPTY_FIX = "Fix the pattern, or pass allow_empty=True if matching nothing is what you want."
INDEX_FIX = "Write [3], [-1], [2:8:2], or ['key'] for a key in quotes."
BAD_KEY = r"""
"a['\\x']" has a key at position 1 that Python cannot read: '\x'.
""".strip()

# What is done, and the lines of what is then said.
TEXTS: list[tuple[str, Callable[[], object], list[str]]] = [
    (
        "typo",
        lambda: resolve(["boddy.weight"], SMALL),
        [
            "'boddy.weight' matches none of the 6 parameters.",
            "Closest paths:",
            "  body.weight",
            "  norm.weight",
            EMPTY_FIX,
        ],
    ),
    (
        "nothing close",
        lambda: resolve(["body", glob("qqq")], SMALL),
        [
            "glob('qqq') matches none of the 6 parameters.",
            "The first paths:",
            "  embed.table",
            "  body.weight",
            "  body.bias",
            EMPTY_FIX,
        ],
    ),
    (
        "close to what has no parameters",
        lambda: resolve(["acts"], SMALL),
        [
            "'acts' matches none of the 6 parameters.",
            "The first paths:",
            "  embed.table",
            "  body.weight",
            "  body.bias",
            EMPTY_FIX,
        ],
    ),
    (
        "index out of range",
        lambda: resolve(["layers[11].weight"], MODEL),
        [
            "'layers[11].weight' matches none of the 26 parameters.",
            "'layers' has 11 children: indices go from -11 to 10.",
            EMPTY_FIX,
        ],
    ),
    (
        "nothing to freeze",
        lambda: resolve(["act"], SMALL),
        [
            "'act' matches none of the 6 parameters.",
            "'act' has neither parameters nor buffers, so there is nothing to freeze.",
            EMPTY_FIX,
        ],
    ),
    (
        "type",
        lambda: resolve([of_type(int)], SMALL),
        [
            "of_type(int) matches none of the 6 parameters.",
            "Classes in the model:",
            "  Norm",
            "  Net",
            "  Linear",
            "  Activation",
            EMPTY_FIX,
        ],
    ),
    (
        "regular expression",
        lambda: resolve([regex("body.weigth")], SMALL),
        [
            "regex('body.weigth') matches none of the 6 parameters.",
            "Closest paths:",
            "  body.weight",
            "  norm.weight",
            "  body.bias",
            EMPTY_FIX,
        ],
    ),
    (
        "predicate",
        lambda: resolve([where(lambda param: param.size > 1e6)], SMALL),
        [
            "where(<lambda>) matches none of the 6 parameters.",
            "It is asked about:",
            "  embed.table: dtype='float32', shape=(2,)",
            "  body.weight: dtype='float32', shape=(2,)",
            "  body.bias: dtype='float32', shape=(2,)",
            EMPTY_FIX,
        ],
    ),
    (
        "a prefix too much",
        lambda: resolve(["self.model.norm.weight"], SMALL),
        ["'self.model.norm.weight' matches none of the 6 parameters.", "'norm.weight' matches 1.", EMPTY_FIX],
    ),
    (
        "a prefix too much, and an index",
        lambda: resolve(["module.layers[:2]"], MODEL),
        ["'module.layers[:2]' matches none of the 26 parameters.", "'layers[:2]' matches 2.", EMPTY_FIX],
    ),
    (
        "a prefix that lacks",
        lambda: resolve(["norm"], MODEL),
        ["'norm' matches none of the 26 parameters.", "'stem.norm' matches 2.", EMPTY_FIX],
    ),
    (
        "a prefix that could be one of several",
        lambda: resolve(["weight"], SMALL),
        [
            "'weight' matches none of the 6 parameters.",
            "These match:",
            "  body.weight",
            "  norm.weight",
            EMPTY_FIX,
        ],
    ),
    (
        "count",
        lambda: resolve(["**", "!layers.1"], MODEL, expect=12),
        [
            "'**', '!layers.1' selects 25 parameters, but expect=12.",
            "Selected:",
            "  scale",
            "  embed.weight",
            "  layers.0.weight",
            "  layers.2.weight",
            "  layers.3.weight",
            "  ... and 20 more",
            "Fix the selectors, or pass expect=25 if that is what you want.",
        ],
    ),
    (
        "count of one",
        lambda: resolve([glob("norm")], SMALL, expect=0),
        [
            "glob('norm') selects 1 parameter, but expect=0.",
            "Selected:",
            "  norm.weight",
            "Fix the selectors, or pass expect=1 if that is what you want.",
        ],
    ),
    (
        "tied",
        lambda: resolve(["**", "!head"], TIED),
        [
            "'embed.weight' and 'head.weight' are two names of one tensor, and it cannot be both frozen and trainable.",
            "  'embed.weight' is chosen by '**'",
            "  'head.weight' is refused by '!head'",
            "Choose both names, or refuse both: add '!embed.weight' as the last selector to leave the tensor out.",
        ],
    ),
    (
        "rows",
        lambda: resolve(["embed.weight[:32000]"], MODEL),
        [
            "'embed.weight[:32000]' names rows of 'embed.weight', a parameter of shape (50, 4): "
            "rows cannot be frozen yet.",
            "Freeze all of it with 'embed.weight', or leave it out.",
        ],
    ),
    (
        "rows of all parameters of a module",
        lambda: resolve(["head[:1]"], MODEL),
        [
            "'head[:1]' names rows of 'head', which has no positions, and 4 parameters with a first axis of 2: "
            "rows cannot be frozen yet.",
            "Name what is below it: 'head.q_proj', 'head.v_proj', 'head.o_proj'. Or split stacked layers into a list: "
            "[{name: array[i] for name, array in head.items()} for i in range(2)].",
        ],
    ),
    (
        "no positions",
        lambda: resolve(["body", "[0]"], WIDE),
        [
            "'[0]' matches none of the 5 parameters.",
            "The model has no positions: an index is for lists, and for one name with numbers as in layers_0.",
            "Its children:",
            "  body",
            "  neck",
            "  head",
            EMPTY_FIX,
        ],
    ),
    (
        "no positions below",
        lambda: resolve(["body[1:]"], WIDE),
        [
            "'body[1:]' matches none of the 5 parameters.",
            "'body' has no positions: an index is for lists, and for one name with numbers as in layers_0.",
            "Its children:",
            "  body.weight",
            "  body.bias",
            EMPTY_FIX,
        ],
    ),
    (
        "no positions in several",
        lambda: resolve(["{body,neck}[0]"], WIDE),
        [
            "'{body,neck}[0]' matches none of the 5 parameters.",
            "None of the 2 modules has positions: an index is for lists, and for one name with numbers.",
            EMPTY_FIX,
        ],
    ),
    (
        "a child that is not there",
        lambda: resolve(["stem.qqqqqqqqqqqqqqqqqqqqqqqqqqq"], MODEL),
        [
            "'stem.qqqqqqqqqqqqqqqqqqqqqqqqqqq' matches none of the 26 parameters.",
            "Children of 'stem':",
            "  stem.conv",
            "  stem.norm",
            "  stem.out",
            EMPTY_FIX,
        ],
    ),
    (
        "leading !",
        lambda: resolve(["!head", "!body"], SMALL),
        [
            "'!head' takes back, and there is nothing before it to take back from.",
            "Begin with the whole model: freeze(model, \"**\", '!head', '!body').",
        ],
    ),
    (
        "no selector",
        lambda: resolve([3], SMALL),  # type: ignore[list-item]
        [
            "3 is neither a string nor a selector.",
            'Write a string, "encoder.layers[:-2]", or a value, glob("encoder") - glob("**.bias").',
        ],
    ),
    ("empty", lambda: glob(""), ["'' is empty.", 'Write "**" for the whole model.']),
    (
        "empty segment",
        lambda: glob("encoder..weight"),
        ["'encoder..weight' has an empty segment at position 8.", 'Write one dot between two names: "encoder.weight".'],
    ),
    (
        "dot at the end",
        lambda: glob("encoder."),
        ["'encoder.' has an empty segment at position 8.", 'Write one dot between two names: "encoder.weight".'],
    ),
    (
        "dot before an index",
        lambda: glob("layers.[0]"),
        ["'layers.[0]' has an empty segment at position 7.", 'Write one dot between two names: "encoder.weight".'],
    ),
    ("no dot", lambda: glob("layers[0]attn"), ["'layers[0]attn' has no dot at position 9.", "Write 'layers[0].attn'."]),
    (
        "space",
        lambda: glob("my key"),
        [
            "'my key' has ' ' at position 2, which no name holds unquoted.",
            "Write a key that is not an identifier as ['my key'], and a regular expression as regex(r\"...\").",
        ],
    ),
    (
        "! within",
        lambda: glob("!head"),
        [
            "'!head' has '!' at position 0, which no name holds unquoted.",
            'Take back with freeze(model, "**", "!head"), or between selectors with everything - glob("head").',
        ],
    ),
    (
        "** within a segment",
        lambda: glob("enc**.weight"),
        [
            "'enc**.weight' has '**' inside of the segment 'enc**' at position 0.",
            'Write "*" within a segment and "**" between dots: "**.norm*".',
        ],
    ),
    (
        "open brace",
        lambda: glob("head.{q,v"),
        [
            "'head.{q,v' has a '{' without '}' in the segment '{q,v' at position 5.",
            'Alternatives are written within one segment: "{q,v}_proj".',
        ],
    ),
    (
        "comma",
        lambda: glob("q,v"),
        [
            "'q,v' has ',' at position 1, which no name holds unquoted.",
            "Write a key that is not an identifier as ['my key'], and a regular expression as regex(r\"...\").",
        ],
    ),
    ("no index", lambda: glob("a[b]"), ["'a[b]' has no index in the brackets at position 1.", INDEX_FIX]),
    ("open bracket", lambda: glob("a[1"), ["'a[1' has a '[' at position 1 that is not closed.", "Close it: 'a[1]'."]),
    (
        "empty open bracket",
        lambda: glob("a["),
        ["'a[' has a '[' at position 1 that is not closed.", "Close it: 'a[0]'."],
    ),
    ("bad index", lambda: glob("a[1-2]"), ["'a[1-2]' has no index in the brackets at position 1: [1-2].", INDEX_FIX]),
    (
        "step 0",
        lambda: glob("a[::0]"),
        ["'a[::0]' has a slice with step 0 at position 1: [::0].", "Write a step that is not 0, as in Python."],
    ),
    (
        "bad key",
        lambda: glob(r"a['\x']"),
        [
            BAD_KEY,
            "Write the key as a string of Python, ['key'].",
        ],
    ),
    ("no string", lambda: glob(3), ["glob(3) is not made from a string.", 'Write glob("encoder.*").']),  # type: ignore[arg-type]
    (
        "bad expression",
        lambda: regex("("),
        [
            "regex('(') is not a regular expression: missing ), unterminated subpattern at position 0.",
            'Write a regular expression of Python, or a pattern as glob("encoder.*").',
        ],
    ),
    ("no class", lambda: of_type(), ["of_type() names no class.", "Write the class itself: of_type(LayerNorm)."]),
    (
        "an instance",
        lambda: of_type(Linear, 3),  # type: ignore[arg-type]
        ["of_type(Linear, 3) holds 1 things that are not classes.", "Write the class itself: of_type(LayerNorm)."],
    ),
    (
        "no predicate",
        lambda: where("size > 3"),  # type: ignore[arg-type]
        [
            "where('size > 3') is made neither from something to call nor from the name of a function.",
            'Write where(lambda p: p.size > 1e6), or where("my.module:function").',
        ],
    ),
    (
        "both",
        lambda: Plan(frozenset("ab"), frozenset("bc")),
        ["'b' is both frozen and trainable.", "Give each path once."],
    ),
    (
        "both ways",
        lambda: Change(frozenset("ab"), frozenset("ab")),
        ["'a' is both to freeze and to thaw, and 1 more.", "Give each path once."],
    ),
    (
        "no plan",
        lambda: Plan.from_json("frozen: all"),
        [
            "This is not a plan: it is not JSON (Expecting value: line 1 column 1 (char 0)).",
            "Write it with plan.to_json().",
        ],
    ),
    (
        "no change",
        lambda: Change.from_json("[]"),
        ["This is not a change: it is a list, not an object.", "Write it with change.to_json()."],
    ),
    (
        "mismatch",
        lambda: Plan(frozenset("a"), frozenset("b")).change_to(Plan(frozenset("a"), frozenset("cdefghi"))),
        [
            "The plan and what it is compared with have different paths: 1 missing, 7 unknown.",
            "Missing (only in the plan):",
            "  b",
            "Unknown (not in the plan):",
            "  c",
            "  d",
            "  e",
            "  f",
            "  g",
            "  ... and 2 more",
            "Make both from the same model, for example with plan(model).",
        ],
    ),
    (
        "unknown path",
        lambda: Plan(frozenset("a"), frozenset("b")).freeze(["c"]),
        [
            "The plan and what it is compared with have different paths: 0 missing, 1 unknown.",
            "Unknown (not in the plan):",
            "  c",
            "Make both from the same model, for example with plan(model).",
        ],
    ),
    (
        "report of another model",
        lambda: report(SMALL, Plan(frozenset({"x"}), SMALL.paths)),
        [
            "The plan and what it is compared with have different paths: 1 missing, 0 unknown.",
            "Missing (only in the plan):",
            "  x",
            "Make both from the same model, for example with plan(model).",
        ],
    ),
    (
        "fingerprint",
        lambda: Fingerprint.from_json("{}"),
        [
            "'fingerprint' cannot be read: its format is None, not 'frostline.fingerprint'.",
            "Write it with fingerprint.to_json().",
        ],
    ),
    (
        "fingerprint with a path twice",
        lambda: Fingerprint((("a", "0"), ("a", "1"))),
        ["'fingerprint' cannot be read: a path comes twice.", "Give each path once."],
    ),
]


@pytest.mark.parametrize(("act", "lines"), [row[1:] for row in TEXTS], ids=[row[0] for row in TEXTS])
def test_the_whole_text(act: Callable[[], object], lines: list[str]) -> None:
    with pytest.raises(FrostlineError) as caught:
        act()
    assert str(caught.value) == "\n".join(lines)


def test_the_text_of_a_mode() -> None:
    assert str(ModeError("evil")) == "\n".join(
        [
            "mode='evil' is not one of the 2 modes.",
            "There are:",
            '  mode="eval"    frozen modules compute as in evaluation',
            '  mode="follow"  frozen modules follow train() and eval(), but still nothing in them moves',
            'Pass mode="eval", or leave it out.',
        ]
    )


def test_the_text_of_a_bad_file() -> None:
    error = FileFormatError("model.bin", "it is 3 bytes long", "Save it again.")
    assert str(error) == "\n".join(["'model.bin' cannot be read: it is 3 bytes long.", "Save it again."])


def test_an_error_carries_its_data() -> None:
    with pytest.raises(frostline.NoMatchError) as caught:
        resolve(["boddy.weight"], SMALL)
    assert (caught.value.selector, caught.value.count) == ("'boddy.weight'", 6)
    assert caught.value.closest == ("body.weight", "norm.weight")
    with pytest.raises(frostline.errors.CountError) as counted:
        resolve([everything], TIED, expect=1)
    assert (counted.value.expected, counted.value.found) == (1, 4)
