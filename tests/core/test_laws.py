"""Laws that hold for all selectors, plans and fingerprints."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.models import MODEL, TIED, Linear, Norm
from frostline import Change, FrostlineError, Plan, everything, glob, of_type, regex, where
from frostline._core.fingerprint import Fingerprint, fingerprint
from frostline._core.inventory import Inventory
from frostline._core.param import Param
from frostline._core.selecting.expressions import Selector
from frostline._core.selecting.resolve import resolve
from frostline._core.selecting.selectors import at
from frostline.errors import SelectorError, TiedError


def is_vector(param: Param) -> bool:
    return len(param.shape) == 1


# Of TIED, whose embed.weight is also head.weight: what the two names are told may disagree.
leaves = st.sampled_from(
    [
        everything,
        glob("embed"),
        glob("head.*"),
        glob("**.weight"),
        glob("nothing"),
        regex(r"head\.weight"),
        of_type(Linear),
        of_type(Norm),
        where(is_vector),
        at("body.bias"),
        at("embed"),
    ]
)
selectors = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda one, other: one | other, inner, inner),
        st.builds(lambda one, other: one & other, inner, inner),
        st.builds(lambda one, other: one - other, inner, inner),
        st.builds(lambda one: ~one, inner),
    ),
    max_leaves=6,
)
paths = st.frozensets(st.text(max_size=8), max_size=6)


def effect(selector: Selector) -> object:
    """What a selector chooses, or how its verdicts disagree."""
    try:
        return resolve([selector], TIED, allow_empty=True)
    except TiedError as error:
        return error.names


@given(selectors)
def test_not_not_is_nothing(one: Selector) -> None:
    assert ~~one == one
    assert effect(~~one) == effect(one)


@given(selectors, selectors)
def test_de_morgan(one: Selector, other: Selector) -> None:
    assert effect(~(one | other)) == effect(~one & ~other)
    assert effect(~(one & other)) == effect(~one | ~other)


@given(selectors, selectors)
def test_minus_is_and_not(one: Selector, other: Selector) -> None:
    assert effect(one - other) == effect(one & ~other)
    assert effect(~(one - other)) == effect(~one | other)


@given(selectors, selectors, selectors)
def test_or_and_and_commute_and_associate(one: Selector, other: Selector, third: Selector) -> None:
    assert effect(one | other) == effect(other | one)
    assert effect(one & other) == effect(other & one)
    assert effect((one | other) | third) == effect(one | (other | third))
    assert effect((one & other) & third) == effect(one & (other & third))


def test_effects_are_told_apart() -> None:
    """The twin of the laws above: `effect` tells things apart."""
    assert effect(everything) != effect(glob("body"))
    assert effect(everything - glob("head")) == ("embed.weight", "head.weight")


@given(selectors)
def test_the_source_of_a_selector_makes_it_again(selector: Selector) -> None:
    names = {"everything": everything, "glob": glob, "regex": regex, "of_type": of_type, "where": where, "at": at}
    again = eval(repr(selector), names | {"Linear": Linear, "Norm": Norm, "is_vector": is_vector})
    assert again == selector
    assert hash(again) == hash(selector)


@given(selectors)
def test_a_selector_survives_pickling(selector: Selector) -> None:
    assert pickle.loads(pickle.dumps(selector)) == selector


# --- patterns

segments = st.sampled_from(["*", "**", "layers", "stem", "1", "10", "norm", "weight", "bias", "s*", "*1", "head"])


def takes(steps: list[str], keys: list[str]) -> bool:
    """Slow and plain: whether a pattern of names, * and ** names a path or something above it."""
    if not steps:
        return True
    first, *rest = steps
    if first == "**":
        return any(takes(rest, keys[i:]) for i in range(len(keys) + 1))
    if not keys:
        return False
    start, star, end = first.partition("*")
    fits = keys[0] == first or (star and len(keys[0]) >= len(start + end) and keys[0].startswith(start))
    return bool(fits and keys[0].endswith(end)) and takes(rest, keys[1:])


@given(st.lists(segments, min_size=1, max_size=5))
def test_a_fast_match_is_a_plain_match(steps: list[str]) -> None:
    plain = {node.canonical for node in MODEL.tree.names if takes(steps, list(node.keys))}
    assert resolve([".".join(steps)], MODEL, allow_empty=True) == plain


@given(st.text(alphabet="ablwey10st.*[]{},:-!' \"\\", max_size=14))
def test_any_text_is_an_answer_or_an_error_of_ours(text: str) -> None:
    try:
        found = resolve(["**", text], MODEL)
    except FrostlineError:
        return
    assert found <= MODEL.paths


# Python warns of expressions that may mean something else one day.
@pytest.mark.filterwarnings("ignore::FutureWarning")
@given(st.text(max_size=10))
def test_any_text_as_a_selector_value(text: str) -> None:
    for kind in (glob, regex):
        try:
            selector: Selector = kind(text)
        except SelectorError:
            continue
        assert resolve([selector], MODEL, allow_empty=True) <= MODEL.paths


@given(selectors)
def test_resolve_returns_known_paths_only(selector: Selector) -> None:
    assert resolve([selector], MODEL, allow_empty=True) <= MODEL.paths


@given(st.permutations(range(len(TIED.params))))
def test_the_order_of_a_model_does_not_matter(order: list[int]) -> None:
    shuffled = Inventory(tuple(TIED.params[i] for i in order))
    assert resolve(["**.weight", "head.bias"], shuffled) == {"embed.weight", "body.weight", "head.bias"}


# --- plans

plans = st.builds(lambda one, other: Plan(one, other - one), paths, paths)


@given(plans)
def test_a_plan_does_not_differ_from_itself(plan: Plan) -> None:
    assert plan.change_to(plan) == Change()
    assert not plan.change_to(plan)


@given(plans, st.data())
def test_a_change_leads_there_and_back(plan: Plan, data: st.DataObject) -> None:
    moved = data.draw(st.frozensets(st.sampled_from(sorted(plan.paths)))) if plan.paths else frozenset()
    other = plan.freeze(moved & plan.trainable).thaw(moved & plan.frozen)
    change = plan.change_to(other)
    assert change.freeze | change.thaw == moved
    assert change.apply_to(plan) == other
    assert change.inverse().apply_to(other) == plan
    assert change.inverse().inverse() == change


@given(plans)
def test_a_plan_survives_json(plan: Plan) -> None:
    assert Plan.from_json(plan.to_json()) == plan
    assert Plan.from_dict(plan.to_dict()) == plan
    assert Plan.from_json(plan.to_json()).to_json() == plan.to_json()


@given(paths, paths)
def test_a_change_survives_json(one: frozenset[str], other: frozenset[str]) -> None:
    change = Change(freeze=one, thaw=other - one)
    assert Change.from_json(change.to_json()) == change


# --- fingerprints

entries = st.dictionaries(st.text(max_size=6), st.binary(max_size=6), max_size=5).map(
    lambda found: [(path, "uint8", (len(data),), data) for path, data in found.items()]
)


@given(entries, st.randoms(use_true_random=False))
def test_the_order_of_entries_does_not_matter(found: list[tuple[str, str, tuple[int, ...], bytes]], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(found)
    random.shuffle(shuffled)
    assert fingerprint(shuffled) == fingerprint(found)
    assert fingerprint(shuffled).total == fingerprint(found).total


@given(entries)
def test_a_fingerprint_survives_json(found: list[tuple[str, str, tuple[int, ...], bytes]]) -> None:
    print_ = fingerprint(found)
    assert Fingerprint.from_json(print_.to_json()) == print_


@given(entries, entries)
def test_a_difference_is_empty_only_for_equals(one: list[object], other: list[object]) -> None:
    before, after = fingerprint(one), fingerprint(other)  # type: ignore[arg-type]
    assert bool(before.diff(after)) == (before != after) == (before.total != after.total)
