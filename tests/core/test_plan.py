"""Plans and changes as values, and as texts that may come from anywhere."""

import json

import pytest

from frostline import Change, Plan
from frostline.errors import PlanError, PlanMismatchError

PLAN = Plan(frozen=frozenset({"body.weight", "body.bias"}), trainable=frozenset({"head.weight"}))
TEXT = """\
{
  "format": "frostline.plan",
  "frozen": [
    "body.bias",
    "body.weight"
  ],
  "trainable": [
    "head.weight"
  ],
  "version": 1
}
"""
CHANGE = Change(freeze=frozenset({"head.weight"}), thaw=frozenset({"body.bias"}))
CHANGE_TEXT = """\
{
  "format": "frostline.change",
  "freeze": [
    "head.weight"
  ],
  "thaw": [
    "body.bias"
  ],
  "version": 1
}
"""


def test_a_plan_is_a_value() -> None:
    assert Plan(frozenset({"a"}), frozenset({"b"})) == Plan(frozenset({"a"}), frozenset({"b"}))
    assert hash(Plan(frozenset({"a"}), frozenset())) == hash(Plan(frozenset({"a"}), frozenset()))
    assert repr(PLAN) == "Plan(frozen=2, trainable=1)"
    assert PLAN.paths == {"body.weight", "body.bias", "head.weight"}


def test_freezing_and_thawing_make_new_plans() -> None:
    assert PLAN.freeze(["head.weight"]) == Plan(PLAN.paths, frozenset())
    assert PLAN.thaw(["body.bias"]) == Plan(frozenset({"body.weight"}), frozenset({"body.bias", "head.weight"}))
    assert PLAN.freeze(["body.bias"]) == PLAN
    assert len(PLAN.frozen) == 2


def test_a_change_is_what_differs() -> None:
    other = Plan(frozenset({"body.weight", "head.weight"}), frozenset({"body.bias"}))
    assert PLAN.change_to(other) == CHANGE
    assert CHANGE.apply_to(PLAN) == other
    assert CHANGE
    assert not Change()


def test_a_change_in_one_line() -> None:
    assert str(CHANGE) == "freeze 1 (head.weight), thaw 1 (body.bias)"
    assert str(Change(thaw=frozenset("abcd"))) == "thaw 4 (a, b, c, ...)"
    assert str(Change()) == "no change"


@pytest.mark.parametrize("change", [Change(freeze=frozenset({"x"})), Change(thaw=frozenset({"x", "body.bias"}))])
def test_a_change_of_another_model_does_not_apply(change: Change) -> None:
    with pytest.raises(PlanMismatchError) as caught:
        change.apply_to(PLAN)
    assert (caught.value.missing, caught.value.unknown) == ((), ("x",))


def test_the_text_of_a_plan_never_changes_silently() -> None:
    assert PLAN.to_json() == TEXT
    assert Plan.from_json(TEXT) == PLAN
    assert CHANGE.to_json() == CHANGE_TEXT
    assert Change.from_json(CHANGE_TEXT) == CHANGE


def test_other_layouts_of_the_same_data_are_read() -> None:
    assert Plan.from_json(json.dumps(json.loads(TEXT))) == PLAN


# Each text differs from TEXT in one place that makes it no plan.
HOSTILE = {
    "nothing": "",
    "no JSON": TEXT.replace("{", "", 1),
    "more after it": TEXT + "{}",
    "a list": "[]",
    "a number": "1",
    "null": "null",
    "a huge number": TEXT.replace('"version": 1', '"version": ' + "1" * 5000),
    "deep": "[" * 100_000,
    "another format": TEXT.replace("frostline.plan", "frostline.change"),
    "no format": TEXT.replace('"format": "frostline.plan",', ""),
    "a later version": TEXT.replace('"version": 1', '"version": 2'),
    "a version that is a truth": TEXT.replace('"version": 1', '"version": true'),
    "a version that is a fraction": TEXT.replace('"version": 1', '"version": 1.0'),
    "a missing field": TEXT.replace('"trainable"', '"trained"'),
    "one field too many": TEXT.replace('"version": 1', '"version": 1, "x": 0'),
    "a field twice": TEXT.replace('"version": 1', '"version": 1, "version": 1'),
    "a field that is no list": TEXT.replace('[\n    "head.weight"\n  ]', '"head.weight"'),
    "a field that is an object": TEXT.replace('[\n    "head.weight"\n  ]', '{"head.weight": 1}'),
    "a path that is no text": TEXT.replace('"head.weight"', "7"),
    "a path that is null": TEXT.replace('"head.weight"', "null"),
    "a path twice in a list": TEXT.replace('"head.weight"', '"head.weight", "head.weight"'),
    "a path in both lists": TEXT.replace('"head.weight"', '"body.weight"'),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_is_no_plan(text: str) -> None:
    assert text != TEXT, "a replacement found nothing, and the row tests nothing"
    with pytest.raises(PlanError):
        Plan.from_json(text)


@pytest.mark.parametrize("text", [None, 3, b"{}", [], {}])
def test_what_is_no_text_is_no_plan(text: object) -> None:
    with pytest.raises(PlanError):
        Plan.from_json(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [None, 3, [], {}, {"format": []}, {3: 4}])
def test_hostile_data_is_no_plan(data: object) -> None:
    with pytest.raises(PlanError):
        Plan.from_dict(data)


def test_a_key_that_is_no_text_is_named() -> None:
    with pytest.raises(PlanError, match="too much"):
        Plan.from_dict(PLAN.to_dict() | {3: 4})  # type: ignore[operator]


@pytest.mark.parametrize("text", [TEXT, CHANGE_TEXT.replace('"body.bias"', '"head.weight"')])
def test_a_hostile_text_is_no_change(text: str) -> None:
    with pytest.raises(PlanError):
        Change.from_json(text)


def test_a_plan_as_toml() -> None:
    plan = Plan(frozenset({"a.w", 'odd "key"'}), frozenset({"b"}))
    assert plan.to_toml().splitlines() == [
        'format = "frostline.plan"',
        "version = 1",
        "frozen = [",
        '    "a.w",',
        '    "odd \\"key\\"",',
        "]",
        "trainable = [",
        '    "b",',
        "]",
    ]
    assert Plan.from_toml(plan.to_toml()) == plan


def test_a_text_that_is_no_plan_as_toml() -> None:
    with pytest.raises(PlanError) as caught:
        Plan.from_toml("frozen = [")
    assert str(caught.value).startswith("This is not a plan: it is not TOML (")
