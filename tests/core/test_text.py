"""Selectors as text."""

import pytest

from core.models import MODEL, SMALL, Linear, Norm
from frostline import NoMatchError, everything, glob, of_type, own, regex, where
from frostline._core.param import Param
from frostline._core.selecting.expressions import Selector
from frostline._core.selecting.resolve import resolve
from frostline._core.selecting.selectors import at
from frostline._core.selecting.text import selector_of, text_of
from frostline.errors import SelectorError


def is_vector(param: Param) -> bool:
    return len(param.shape) == 1


HERE = __name__
TEXTS: list[tuple[Selector, str]] = [
    (glob("encoder.layers[:-2]"), "encoder.layers[:-2]"),
    (everything, "**"),
    (everything - glob("head"), "everything - glob('head')"),
    (~everything, "~everything"),
    (regex(r".*\.bias"), r"regex('.*\\.bias')"),
    (of_type("LayerNorm", "Linear"), "of_type('LayerNorm', 'Linear')"),
    (of_type(Norm), "of_type('core.models.Norm')"),
    (where(f"{HERE}:is_vector"), f"where('{HERE}:is_vector')"),
    (where(is_vector), f"where('{HERE}:is_vector')"),
    (own("encoder"), "own('encoder')"),
    ((regex("a") | glob("b")) & ~own("c") - glob("d"), "(regex('a') | glob('b')) & ~own('c') - glob('d')"),
]


@pytest.mark.parametrize(("selector", "text"), TEXTS, ids=[text for _, text in TEXTS])
def test_a_selector_has_a_text_that_reads_back(selector: Selector, text: str) -> None:
    assert text_of(selector) == text
    assert text_of(selector_of(text)) == text


@pytest.mark.parametrize(
    "pattern", ["everything", "~", "table['a (b)']", "where", "regex.weight", "glob[0]", "own-proj"]
)
def test_a_pattern_stays_a_pattern(pattern: str) -> None:
    assert selector_of(pattern) == glob(pattern)


@pytest.mark.parametrize(
    ("selectors", "paths"),
    [
        (["of_type('Linear')"], {"body.weight", "body.bias", "head.projection", "head.shift"}),
        (["**", "!of_type('core.models.Linear') | glob('norm')"], {"embed.table"}),
        (["own('body') - regex('.*bias')"], {"body.weight"}),
        ([f"where('{HERE}:is_vector')", "!head"], {"embed.table", "body.weight", "body.bias", "norm.weight"}),
    ],
    ids=["type", "short type", "own", "where"],
)
def test_a_text_is_a_selector_wherever_a_string_is(selectors: list[str], paths: set[str]) -> None:
    assert resolve(selectors, SMALL) == paths


def test_own_is_what_a_module_has_itself() -> None:
    assert resolve([own("**")], MODEL) == resolve(["**", "!stats"], MODEL)
    assert resolve([own("head.**")], MODEL) == resolve(["head"], MODEL)
    assert resolve([own("stem"), own("scale")], MODEL, allow_empty=True) == {"scale"}
    assert resolve([own("gains")], MODEL) == {"gains.0", "gains.1"}
    assert resolve([own("head.q_proj") | own("embed")], MODEL) == {
        "head.q_proj.weight",
        "head.q_proj.bias",
        "embed.weight",
    }
    with pytest.raises(NoMatchError):
        resolve([own("stem")], MODEL)


@pytest.mark.parametrize("name", ["Norm", "models.Norm", "core.Norm", "core.models.Norm"])
def test_names_of_classes(name: str) -> None:
    fits = name != "models.Norm"  # A name that is cut short at its beginning is another module's.
    assert bool(resolve([of_type(name)], SMALL, allow_empty=True)) is fits


def test_a_subclass_is_of_the_named_type() -> None:
    assert resolve([of_type("Linear")], MODEL) == resolve([of_type(Linear)], MODEL)
    assert resolve([of_type("inear")], MODEL, allow_empty=True) == frozenset()


WRONG = [
    (
        lambda: selector_of("regex('a') +"),
        [
            "\"regex('a') +\" begins as the source of a selector and cannot be read.",
            "Write it as in Python: \"of_type('LayerNorm') - glob('head')\", or \"regex('.*bias') | own('encoder')\".",
        ],
    ),
    (
        lambda: selector_of("glob('a') | print(1)"),
        [
            "\"glob('a') | print(1)\" holds print(1), which is no selector in a text.",
            "Write it as in Python: \"of_type('LayerNorm') - glob('head')\", or \"regex('.*bias') | own('encoder')\".",
        ],
    ),
    (
        lambda: text_of(where(lambda param: True)),
        [
            "where(<lambda>) has no name by which it can be imported.",
            'Define it with def at the top of a module, and write where("my.module:name").',
        ],
    ),
    (
        lambda: text_of(at("body", label="model.body")),
        ["model.body is an object of a model, and has no text.", "Write its path instead."],
    ),
    (
        lambda: resolve([where("no_such_module:name")], SMALL),
        [
            "where('no_such_module:name') cannot be imported: No module named 'no_such_module'.",
            'Write the module and the name of a function in it: where("my.module:function").',
        ],
    ),
    (
        lambda: resolve([where("core.models:MODEL")], SMALL),
        ["where('core.models:MODEL') is no function.", 'Name a function: where("my.module:function").'],
    ),
    (lambda: own(1), ["own(1) is not made from a string.", 'Write own("encoder").']),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("act", "lines"), WRONG, ids=[lines[0] for _, lines in WRONG])
def test_the_whole_text_of_errors(act: object, lines: list[str]) -> None:
    with pytest.raises(SelectorError) as caught:
        act()  # type: ignore[operator]
    assert str(caught.value) == "\n".join(lines)
