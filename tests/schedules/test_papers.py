"""The phases of each paper, step by step, computed by hand."""

import pytest

from frostline.schedules import LISA, BAdam, FreezeOut, HiFT, LinearProbe, Phase, Phases, Span, ULMFiT


def trained(phase: Phase) -> list[str]:
    """The blocks that a phase excludes from freezing."""
    assert phase.frozen[0] == "**"
    return [selector.removeprefix("!") for selector in phase.frozen[1:]]


# --- explicit phases, and the probe


def test_a_span_includes_its_start_and_excludes_its_end() -> None:
    one, other, last = Phase(["a"]), Phase(["b"], name="two"), Phase()
    schedule = Phases([Span(0, 2, one), Span(2, 5, other), Span(5, None, last)])
    assert [schedule.at(step) for step in (0, 1, 2, 4, 5, 1000)] == [one, one, other, other, last, last]
    assert list(schedule.changes(100)) == [(0, one), (2, other), (5, last)]
    assert list(schedule.changes(5)) == [(0, one), (2, other)]
    assert list(schedule.changes(0)) == []
    assert schedule.parts == ("a", "b")


def test_equal_consecutive_phases_are_one_phase() -> None:
    schedule = Phases([Span(0, 2, Phase()), Span(2, 5, Phase()), Span(5, None, Phase(["a"]))])
    assert schedule.next_change(0) == 5
    assert schedule.next_change(5) is None


def test_the_probe_trains_the_head_and_then_everything() -> None:
    schedule = LinearProbe(["head", "norm"], steps=3)
    assert [schedule.at(step).frozen for step in range(5)] == [("**", "!head", "!norm")] * 3 + [()] * 2
    assert (schedule.next_change(0), schedule.next_change(2), schedule.next_change(3)) == (3, 3, None)


# --- ULMFiT and FreezeOut: the rest


def test_what_no_block_names_is_frozen_from_the_first_step_to_the_last_if_it_is_said() -> None:
    schedule = ULMFiT(["a", "b"], period=5, decay=1, rest="frozen")
    assert [phase.frozen for _, phase in schedule.changes(99)] == [("**", "!b"), ("**", "!a", "!b")]
    schedule = FreezeOut(["a", "b"], steps=8, t0=0.5, spacing="linear", rest="frozen")
    assert [schedule.at(step).frozen for step in (0, 4, 8)] == [("**", "!a", "!b"), ("**", "!b"), ("**",)]
    assert ULMFiT(["a", "b"], period=5, rest="train").at(0) == ULMFiT(["a", "b"], period=5).at(0)


# --- ULMFiT


def test_ulmfit_thaws_one_block_a_period_from_the_last_one_down() -> None:
    schedule = ULMFiT(["embed", "lstm0", "lstm1", "head"], period=10)
    assert [(step, phase.frozen) for step, phase in schedule.changes(1000)] == [
        (0, ("embed", "lstm0", "lstm1")),
        (10, ("embed", "lstm0")),
        (20, ("embed",)),
        (30, ()),
    ]


def test_ulmfit_divides_the_rate_by_2_6_from_block_to_block() -> None:
    schedule = ULMFiT(["embed", "lstm0", "lstm1", "head"], period=10)
    assert schedule.at(0).rates == ()
    # 1 / 2.6, 1 / 2.6^2 and 1 / 2.6^3.
    assert [name for name, _ in schedule.at(30).rates] == ["embed", "lstm0", "lstm1"]
    assert [factor for _, factor in schedule.at(30).rates] == pytest.approx([0.056896, 0.147929, 0.384615], abs=1e-6)
    assert ULMFiT(["a", "b"], period=1, decay=1).at(5) == Phase(name="2 of 2 blocks")


# --- LISA


SIX = ["0", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("seed", "drawn"),
    [
        (0, [["0", "5"], ["0", "3"], ["0", "5"], ["1", "3"]]),
        (1, [["0", "2"], ["0", "1"], ["3", "5"], ["0", "4"]]),
    ],
)
def test_lisa_draws_these_blocks_in_its_first_periods(seed: int, drawn: list[list[str]]) -> None:
    """A change of the random stream would break every resumed run."""
    schedule = LISA(SIX, sampled=2, period=7, always=["embed", "head"], seed=seed)
    for period, names in enumerate(drawn):
        for step in (7 * period, 7 * period + 6):
            assert trained(schedule.at(step)) == ["embed", "head", *names]
            assert schedule.at(step).name == ", ".join(names)


def test_lisa_draws_each_block_about_equally_often() -> None:
    schedule = LISA(SIX, sampled=2, period=1)
    counts = dict.fromkeys(SIX, 0)
    for step in range(3000):
        for name in trained(schedule.at(step)):
            counts[name] += 1
    # 1000 each, with a standard deviation of 26.
    assert all(900 < count < 1100 for count in counts.values()), counts


def test_lisa_never_changes_if_it_draws_all_blocks() -> None:
    assert LISA(SIX, sampled=6, period=1).next_change(0) is None


def test_lisa_reports_no_change_when_it_draws_the_same_blocks() -> None:
    schedule = LISA(["0", "1", "2"], sampled=1, period=20)
    assert [schedule.at(step).name for step in (0, 20, 40, 60, 80)] == ["0", "1", "1", "1", "0"]
    assert [step for step, _ in schedule.changes(100)] == [0, 20, 80]


# --- BAdam


@pytest.mark.parametrize(
    ("order", "seed", "epochs"),
    [
        ("ascending", 0, ["abcd", "abcd"]),
        ("descending", 0, ["dcba", "dcba"]),
        ("random", 0, ["adcb", "acbd", "cbad", "bdac"]),
        ("random", 7, ["dabc", "bcda", "dabc"]),
    ],
)
def test_badam_visits_the_blocks_in_this_order(order: str, seed: int, epochs: list[str]) -> None:
    schedule = BAdam(["a", "b", "c", "d"], period=5, order=order, seed=seed)
    for turn, block in enumerate("".join(epochs)):
        assert trained(schedule.at(5 * turn)) == trained(schedule.at(5 * turn + 4)) == [block]


def test_badam_trains_a_block_in_two_periods_if_it_ends_one_epoch_and_starts_the_next() -> None:
    schedule = BAdam(["a", "b"], period=5)
    names = [schedule.at(5 * turn).name for turn in range(8)]
    assert names == ["b", "a", "a", "b", "a", "b", "a", "b"]
    assert [step for step, _ in schedule.changes(40)] == [0, 5, 15, 20, 25, 30, 35]
    assert BAdam(["a"], period=5).next_change(0) is None


def test_badam_never_freezes_always() -> None:
    assert BAdam(["a", "b"], period=5, order="ascending", always=["head"]).at(5).frozen == ("**", "!head", "!b")


# --- HiFT


@pytest.mark.parametrize(
    ("order", "seed", "groups"),
    [
        ("bottom2up", 0, [["0", "1"], ["2", "3"], ["4"]]),
        ("top2down", 0, [["4", "3"], ["2", "1"], ["0"]]),
        ("random", 3, [["1", "0"], ["3", "4"], ["2"]]),
        ("random", 0, [["4", "0"], ["3", "2"], ["1"]]),
    ],
)
def test_hift_trains_one_group_a_step_and_keeps_the_order(order: str, seed: int, groups: list[list[str]]) -> None:
    schedule = HiFT(SIX[:5], size=2, order=order, seed=seed)
    assert [trained(schedule.at(step)) for step in range(9)] == groups * 3
    assert [schedule.cycle(step) for step in range(9)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_the_rate_of_hift_is_constant_within_a_cycle() -> None:
    schedule = HiFT(["a", "b"], cycles=4)
    found = [dict(schedule.at(step).rates).get("**", 1.0) for step in range(12)]
    assert found == [1, 1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0, 0, 0, 0]


def test_hift_may_have_longer_turns() -> None:
    schedule = HiFT(["a", "b"], period=3)
    assert [schedule.at(step).name for step in range(7)] == ["group 1 of 2"] * 3 + ["group 2 of 2"] * 3 + [
        "group 1 of 2"
    ]
    assert [step for step, _ in schedule.changes(9)] == [0, 3, 6]


def test_hift_with_one_group_changes_only_its_rate() -> None:
    assert HiFT(["a", "b"], size=2).next_change(0) is None
    schedule = HiFT(["a", "b"], size=2, period=3, cycles=2)
    assert [(step, dict(phase.rates)) for step, phase in schedule.changes(20)] == [
        (0, {}),
        (3, {"**": 0.5}),
        (6, {"**": 0.0}),
    ]


# --- FreezeOut


@pytest.mark.parametrize(
    ("t0", "spacing", "shares"),
    [
        (0.5, "linear", [0.5, 0.75, 1.0]),
        (0.5, "cubic", [0.125, 0.421875, 1.0]),
        (0.8, "cubic", [0.512, 0.729, 1.0]),
        (1.0, "linear", [1.0, 1.0, 1.0]),
    ],
)
def test_freezeout_spaces_the_ends_of_its_blocks(t0: float, spacing: str, shares: list[float]) -> None:
    schedule = FreezeOut(["a", "b", "c"], steps=1000, t0=t0, spacing=spacing)
    assert schedule.shares == pytest.approx(shares, abs=1e-12)
    for place, share in enumerate(shares):
        block, end = "abc"[place], round(1000 * share)
        last = end if end == 1000 * share else int(1000 * share) + 1
        assert block not in schedule.at(last - 1).frozen
        assert block in schedule.at(last).frozen


def test_freezeout_anneals_each_block_along_half_a_cosine() -> None:
    schedule = FreezeOut(["a", "b", "c"], steps=100, t0=0.5, spacing="linear", scaled=False)
    # A quarter of the run is a half, a third and a quarter of their ways: the cosines are 0, 1/2 and the root of 1/2.
    assert dict(schedule.at(25).rates) == pytest.approx({"a": 0.5, "b": 0.75, "c": 0.8535533905932737}, abs=1e-12)
    assert dict(schedule.at(0).rates) == {"a": 1.0, "b": 1.0, "c": 1.0}


def test_freezeout_divides_rates_by_the_share_in_which_a_block_trains() -> None:
    schedule = FreezeOut(["a", "b", "c"], steps=100, t0=0.5, spacing="cubic")
    assert dict(schedule.at(0).rates) == pytest.approx({"a": 8.0, "b": 2.3703703703703702, "c": 1.0}, abs=1e-12)
    # a is frozen after step 12.5; (1 + cos(pi 0.25 / 0.421875)) / 2 / 0.421875.
    assert dict(schedule.at(25).rates) == pytest.approx({"b": 0.845270242712782, "c": 0.8535533905932737}, abs=1e-12)
    assert schedule.at(25).frozen == ("a",)


def test_scaled_rates_of_freezeout_have_the_same_sum_in_all_blocks() -> None:
    schedule = FreezeOut(["a", "b", "c"], steps=4000, t0=0.5, spacing="linear")
    sums = dict.fromkeys("abc", 0.0)
    for step in range(4000):
        for block, factor in schedule.at(step).rates:
            sums[block] += factor
    assert sums == pytest.approx({"a": 2000.0, "b": 2000.0, "c": 2000.0}, rel=1e-3)


def test_freezeout_rounds_the_step_at_which_a_block_freezes() -> None:
    """0.07 * 100 is 7.000000000000001."""
    schedule = FreezeOut(["a", "b"], steps=100, t0=0.07, spacing="linear")
    assert schedule.at(6).frozen == ()
    assert schedule.at(7).frozen == ("a",)


def test_freezeout_freezes_all_blocks_at_the_end_of_the_run() -> None:
    schedule = FreezeOut(["a"], steps=4)
    assert schedule.shares == (1.0,)
    assert [schedule.at(step).frozen for step in (3, 4, 99)] == [(), ("a",), ("a",)]
    assert (schedule.next_change(3), schedule.next_change(4)) == (4, None)
