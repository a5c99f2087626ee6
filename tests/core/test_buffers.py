"""Buffers that selectors name by themselves, in the core."""

import pytest

from core.models import Linear, Net, Norm
from frostline import Change, NoMatchError, Plan, UnsupportedError, everything, glob, of_type, own, regex, where
from frostline._core.inventory import Inventory
from frostline._core.param import Buffer, Module, Param
from frostline._core.selecting.buffers import deviations
from frostline._core.selecting.expressions import Selector
from frostline._core.selecting.resolve import choose, resolve
from frostline.schedules import Phase

MEAN, VAR, COUNT = "bn.running_mean", "bn.running_var", "bn.num_batches_tracked"
PARAMS = tuple(Param(path, (2,), "float32", 4) for path in ("body.weight", "bn.weight", "bn.bias"))
MODEL = Inventory(
    PARAMS,
    (
        Module("", Net),
        Module("body", Linear),
        Module("bn", Norm, buffer_bytes=24),
        Module("rope", Net, buffer_bytes=8, stateful=True),
    ),
    (
        *(Buffer(path, (2,), "float32", 8) for path in (MEAN, VAR)),
        Buffer(COUNT, (), "int64", 8),
        Buffer("rope.table", (2,), "float32", 8),
    ),
)
BN = {"bn.weight", "bn.bias"}
BOTH = {MEAN: True, VAR: True}
NEITHER = {MEAN: False, VAR: False}

CHOICES: list[tuple[list[str | Selector], set[str], dict[str, bool]]] = [
    (["bn.running_*"], set(), BOTH),
    (["**.running_{mean,var}", "body"], {"body.weight"}, BOTH),
    ([regex(r".*running.*")], set(), BOTH),
    ([regex(r".*running.*") - glob("**.running_var")], set(), {MEAN: True, VAR: False}),
    (["bn", "!bn.running_*"], BN, NEITHER),
    ([glob("bn") - glob("bn.running_*")], BN, NEITHER),
    ([everything - glob("bn.running_*"), "!body"], BN | {"rope"}, NEITHER),
    (["bn", "!bn.running_*", "bn"], BN, {}),
    (["bn.running_*", "**"], MODEL.paths, {}),
    (["bn.running_*", "bn", "!bn"], set(), {}),
    (["bn.running_*", of_type(Norm)], BN, {}),
    (["bn.running_*", own("bn")], BN, BOTH),
    (["bn.running_*", "bn.weight"], {"bn.weight"}, BOTH),
    (["bn.running_*", everything - glob("bn")], {"body.weight", "rope"}, {}),
    # A module without parameters has a name of its own.
    (["rope.table"], {"rope"}, {}),
    (["rope", "!rope.table", "body"], {"body.weight"}, {}),
    ([], MODEL.paths, {}),
]


@pytest.mark.parametrize(("selectors", "paths", "buffers"), CHOICES, ids=[repr(row[0]) for row in CHOICES])
def test_what_selectors_say(selectors: list[str | Selector], paths: set[str], buffers: dict[str, bool]) -> None:
    chosen = choose(selectors, MODEL)
    assert (chosen.paths, dict(chosen.buffers)) == (paths, buffers)


@pytest.mark.parametrize("selector", ["bn.running_*", regex(".*running.*")], ids=repr)
def test_where_buffers_do_not_count_they_are_not_matched(selector: str | Selector) -> None:
    with pytest.raises(NoMatchError):
        resolve([selector], MODEL)


def test_a_predicate_gets_no_buffers() -> None:
    with pytest.raises(NoMatchError):
        choose([where(lambda param: "running" in param.path)], MODEL)


def test_each_leaf_must_match_by_itself() -> None:
    with pytest.raises(NoMatchError) as caught:
        choose([glob("bn.running_*") | glob("bn.walking_*")], MODEL)
    assert caught.value.selector == "glob('bn.walking_*')"


DEVIATIONS: list[tuple[set[str], dict[str, bool], set[str], set[str]]] = [
    (set(), {}, set(), set()),
    (set(), BOTH, {MEAN, VAR, COUNT}, set()),
    ({"bn.weight"}, BOTH, {MEAN, VAR, COUNT}, set()),
    (BN, BOTH, set(), set()),
    (BN, NEITHER, set(), {MEAN, VAR, COUNT}),
    ({"bn.weight"}, NEITHER, set(), set()),
    (BN, {MEAN: True}, set(), set()),
]


@pytest.mark.parametrize(("frozen", "words", "still", "moving"), DEVIATIONS)
def test_what_deviates_from_the_rule(
    frozen: set[str], words: dict[str, bool], still: set[str], moving: set[str]
) -> None:
    assert deviations(MODEL, frozen, words, "call") == (still, moving)


REFUSED: list[tuple[set[str], dict[str, bool]]] = [
    (set(), {MEAN: True}),
    (BN, {VAR: False}),
    (set(), {COUNT: True}),
    (set(), {MEAN: True, VAR: False}),
]


@pytest.mark.parametrize(("frozen", "words"), REFUSED)
def test_some_of_a_module_are_refused(frozen: set[str], words: dict[str, bool]) -> None:
    with pytest.raises(UnsupportedError):
        deviations(MODEL, frozen, words, "call")


def test_a_phase_carries_them() -> None:
    assert Phase(["bn.running_*"]).plan(MODEL).still == {MEAN, VAR, COUNT}
    assert Phase(["bn", "!bn.running_*"]).plan(MODEL).moving == {MEAN, VAR, COUNT}
    with pytest.raises(UnsupportedError, match=r"^Phase\(frozen=\('bn.running_mean',\)\) names 1 of the 3 buffers"):
        Phase([MEAN]).plan(MODEL)


PLANS = [
    Phase().plan(MODEL),
    Phase(["bn.running_*"]).plan(MODEL),
    Phase(["bn"]).plan(MODEL),
    Phase(["bn", "!bn.running_*"]).plan(MODEL),
]


@pytest.mark.parametrize("after", PLANS, ids=repr)
@pytest.mark.parametrize("before", PLANS, ids=repr)
def test_changes_of_plans(before: Plan, after: Plan) -> None:
    change = before.change_to(after)
    assert bool(change) is (before != after)
    assert change.apply_to(before) == after
    assert change.inverse() == after.change_to(before)
    assert Change.from_json(change.to_json()) == change
    assert Plan.from_json(before.to_json()) == before


def test_a_change_prints_them() -> None:
    buffers = f"buffers 3 ({COUNT}, {MEAN}, {VAR})"
    assert str(PLANS[0].change_to(PLANS[1])) == f"freeze {buffers}"
    assert str(PLANS[0].change_to(PLANS[3])) == f"freeze 2 (bn.bias, bn.weight), thaw {buffers}"
    assert str(PLANS[1].change_to(PLANS[3])) == f"freeze 2 (bn.bias, bn.weight), turn {buffers}"
