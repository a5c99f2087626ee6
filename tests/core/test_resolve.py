"""Selectors together: order, expressions, ties, counts."""

import re
from dataclasses import replace

import pytest

from core.models import MODEL, SMALL, TIED, Linear, LowRankLinear, Norm
from frostline import NoMatchError, everything, glob, of_type, regex, where
from frostline._core.inventory import Inventory
from frostline._core.param import Module, Param
from frostline._core.selecting.expressions import Selector
from frostline._core.selecting.resolve import resolve
from frostline._core.selecting.selectors import at
from frostline.errors import CountError, SelectorError, TiedError


def is_vector(param: Param) -> bool:
    return len(param.shape) == 1


CHOICES: list[tuple[list[str | Selector], set[str]]] = [
    (["**", "!head", "!body.bias"], {"embed.table", "body.weight", "norm.weight"}),
    (["body", "!body.bias", "**.bias"], {"body.weight", "body.bias"}),
    (["body", "norm"], {"body.weight", "body.bias", "norm.weight"}),
    ([glob("body") - glob("body.bias")], {"body.weight"}),
    (["body.bias", glob("body") - glob("body.bias")], {"body.weight", "body.bias"}),
    ([glob("body") & glob("**.weight")], {"body.weight"}),
    ([~glob("{body,head}")], {"embed.table", "norm.weight"}),
    ([everything, "!**.weight"], {"embed.table", "body.bias", "head.projection", "head.shift"}),
    ([regex(r".*\.(bias|shift)")], {"body.bias", "head.shift"}),
    ([of_type(Linear)], {"body.weight", "body.bias", "head.projection", "head.shift"}),
    ([of_type(Linear, Norm) - glob("head")], {"embed.table", "body.weight", "body.bias", "norm.weight"}),
    ([where(lambda param: param.path.endswith("weight"))], {"body.weight", "norm.weight"}),
    ([at("body", label="model.body"), at("norm.weight")], {"body.weight", "body.bias", "norm.weight"}),
]


@pytest.mark.parametrize(("selectors", "paths"), CHOICES, ids=[repr(selectors) for selectors, _ in CHOICES])
def test_selectors_choose_these(selectors: list[str | Selector], paths: set[str]) -> None:
    assert resolve(selectors, SMALL) == paths


def test_no_selector_means_everything() -> None:
    assert resolve([], MODEL) == MODEL.paths
    assert resolve([], Inventory(())) == frozenset()


def test_a_subclass_is_of_the_type() -> None:
    assert resolve([of_type(LowRankLinear)], MODEL) == {"stem.conv.weight"}
    assert "stem.conv.weight" in resolve([of_type(Linear)], MODEL)


def test_buffers_alone_are_of_a_type_and_have_a_name_but_no_predicate_sees_them() -> None:
    assert resolve([of_type(Norm)], MODEL) == {"stem.norm.weight", "stem.norm.bias", "stats"}
    assert resolve([regex("stats")], MODEL) == {"stats"}
    assert resolve([where(lambda _: True)], MODEL) == MODEL.paths - {"stats"}


def test_a_regular_expression_matches_the_whole_name() -> None:
    with pytest.raises(NoMatchError):
        resolve([regex("body")], SMALL)
    assert resolve([regex("body.*")], SMALL) == {"body.weight", "body.bias"}


def test_positions_are_numbers_where_members_without_parameters_are_not_listed() -> None:
    sparse = Inventory(tuple(Param(f"seq.{number}.w", (1,), "float32", 4) for number in (0, 2, 5)))
    assert resolve(["seq[2]"], sparse) == {"seq.2.w"}
    assert resolve(["seq[-1]"], sparse) == {"seq.5.w"}
    assert resolve(["seq[:3]"], sparse) == {"seq.0.w", "seq.2.w"}
    with pytest.raises(NoMatchError):
        resolve(["seq[1]"], sparse)


# --- ties


@pytest.mark.parametrize("selector", ["embed", "head.weight", regex("head.weight"), at("embed.weight"), of_type(Norm)])
def test_any_name_selects_a_tied_parameter(selector: str | Selector) -> None:
    assert resolve([selector], TIED, expect=1) == {"embed.weight"}


@pytest.mark.parametrize("selector", [at("embed.weight"), at("head.weight"), of_type(Norm)])
def test_a_tensor_and_a_type_are_all_names_of_a_tied_parameter(selector: Selector) -> None:
    assert resolve([~selector], TIED) == {"body.weight", "body.bias", "head.bias"}


def test_what_is_not_mentioned_is_not_refused() -> None:
    assert resolve([glob("embed") & glob("**.weight"), "body"], TIED, expect=3) == {
        "embed.weight",
        "body.weight",
        "body.bias",
    }


@pytest.mark.parametrize(
    ("selectors", "names", "speakers"),
    [
        (["**", "!head"], ("embed.weight", "head.weight"), ("'**'", "'!head'")),
        (["**", "!embed"], ("head.weight", "embed.weight"), ("'**'", "'!embed'")),
        (["**", "!head", "body"], ("embed.weight", "head.weight"), ("'**'", "'!head'")),
        ([everything - glob("head")], ("embed.weight", "head.weight"), ("everything", "~glob('head')")),
        ([~glob("embed")], ("head.weight", "embed.weight"), ("~glob('embed')", "~glob('embed')")),
        (["embed", glob("body") - regex("head.*")], ("embed.weight", "head.weight"), ("'embed'", "~regex('head.*')")),
    ],
)
def test_verdicts_that_disagree_are_an_error(
    selectors: list[str | Selector], names: tuple[str, str], speakers: tuple[str, str]
) -> None:
    with pytest.raises(TiedError) as caught:
        resolve(selectors, TIED)
    assert (caught.value.names, caught.value.selectors) == (names, speakers)


def test_the_last_selector_settles_a_tie() -> None:
    assert resolve(["**", "!head", "!embed"], TIED) == {"body.weight", "body.bias"}
    assert resolve(["**", "!head", "head.weight"], TIED) == {"embed.weight", "body.weight", "body.bias"}


def test_the_same_selectors_are_fine_where_nothing_is_tied() -> None:
    """The twin of the error above: it is the tie that it is about."""
    params = (replace(TIED.params[0], aliases=()), *TIED.params[1:], Param("head.weight", (50, 4), "float32", 4))
    assert resolve(["**", "!head"], Inventory(params)) == {"embed.weight", "body.weight", "body.bias"}


# --- nothing, and how many


@pytest.mark.parametrize(
    ("selectors", "guilty"),
    [
        (["body", "typo"], "'typo'"),
        (["**", "!typo"], "'!typo'"),
        ([glob("body") | glob("typo")], "glob('typo')"),
        ([glob("body") - (glob("norm") & regex("typo"))], "regex('typo')"),
        ([~of_type(int)], "of_type(int)"),
        ([glob("body") & glob("norm")], "glob('body') & glob('norm')"),
        ([~everything], "~everything"),
        ([at("elsewhere", label="other.layer")], "other.layer"),
    ],
)
def test_each_leaf_must_match_by_itself(selectors: list[str | Selector], guilty: str) -> None:
    with pytest.raises(NoMatchError) as caught:
        resolve(selectors, SMALL)
    assert caught.value.selector == guilty
    assert resolve(selectors, SMALL, allow_empty=True) <= SMALL.paths


@pytest.mark.parametrize("selectors", [["**"], [everything], [glob("**")]])
def test_a_model_without_parameters_has_nothing_to_name(selectors: list[str | Selector]) -> None:
    with pytest.raises(NoMatchError):
        resolve(selectors, Inventory((), (Module("", Norm),)))


def test_expect_counts_parameters_once_and_leaves_buffers_out() -> None:
    assert len(resolve([], MODEL, expect=26)) == 27
    assert resolve(["{embed,head}.weight"], TIED, expect=1) == {"embed.weight"}
    assert resolve(["stats"], MODEL, expect=0) == {"stats"}
    with pytest.raises(CountError):
        resolve(["stats"], MODEL, expect=1)


@pytest.mark.parametrize("selectors", [["!head"], ["!head", "**"]])
def test_the_first_selector_cannot_take_back(selectors: list[str]) -> None:
    with pytest.raises(SelectorError, match="nothing before it"):
        resolve(selectors, SMALL)


def test_an_error_of_a_predicate_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        resolve([where(lambda param: 1 // 0)], SMALL)


def test_re_flags_work_inside_of_the_expression() -> None:
    assert resolve([regex("(?i)BODY.*")], SMALL) == {"body.weight", "body.bias"}
    assert re.compile("(?i)BODY.*").flags & re.IGNORECASE
