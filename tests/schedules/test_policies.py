"""The phases of policies, observation by observation, computed by hand."""

import pytest

from frostline.schedules import AutoFreeze, Egeria, Phase, Plateau, Policy

ONE, TWO, THREE = Phase(["**", "!head"], name="one"), Phase(["body"], name="two"), Phase(name="three")


def names(policy: Policy, observations: list[dict[str, float]]) -> list[str]:
    state, found = policy.init(), [policy.phase(policy.init()).name]
    for observation in observations:
        state, phase = policy.update(state, observation)
        found.append(phase.name)
    return found


# --- Plateau


def losses(*values: float) -> list[dict[str, float]]:
    return [{"loss": value} for value in values]


def test_plateau_starts_the_next_phase_after_its_patience() -> None:
    policy = Plateau([ONE, TWO, THREE], patience=2)
    assert names(policy, losses(1.0, 0.9, 0.9, 0.8, 0.8, 0.85)) == ["one"] * 6 + ["two"]


def test_each_phase_of_plateau_has_its_own_best_number() -> None:
    policy = Plateau([ONE, TWO, THREE], patience=1)
    # 5 begins the second phase and is its best, though worse than 1.
    assert names(policy, losses(1, 1, 5, 4, 4, 0, 9)) == ["one", "one", "two", "two", "two", "three", "three", "three"]


def test_plateau_requires_an_improvement_of_more_than_delta() -> None:
    policy = Plateau([ONE, TWO], patience=1, delta=0.125)
    assert names(policy, losses(1.0, 0.875)) == ["one", "one", "two"]
    assert names(policy, losses(1.0, 0.8125, 0.75)) == ["one", "one", "one", "two"]


def test_plateau_watches_the_number_with_the_given_name() -> None:
    policy = Plateau([ONE, TWO], patience=1, watch="error")
    assert names(policy, [{"error": 1, "loss": 1}, {"error": 0.5, "loss": 9}]) == ["one"] * 3


def test_plateau_takes_a_higher_number_for_the_better_one_in_mode_max() -> None:
    policy = Plateau([ONE, TWO], patience=2, delta=0.125, watch="accuracy", mode="max")
    rising = [{"accuracy": value} for value in (0.25, 0.5, 0.75, 0.875, 0.5)]
    assert names(policy, rising) == ["one"] * 5 + ["two"]


def test_a_phase_of_plateau_ends_at_its_longest_although_the_number_still_improves() -> None:
    policy = Plateau([ONE, TWO, THREE], patience=2, longest=3)
    assert names(policy, losses(5, 4, 3, 2, 2, 2, 1)) == ["one"] * 3 + ["two"] * 3 + ["three"] * 2
    state, _ = policy.update(policy.init(), {"loss": 5})
    assert state == {"place": 0, "best": 5.0, "waited": 0, "seen": 1}


# --- AutoFreeze


def norms(**values: float) -> dict[str, float]:
    return values


def test_autofreeze_freezes_the_blocks_before_the_first_large_change() -> None:
    policy = AutoFreeze(["a", "b", "c", "d"])
    state, phase = policy.update(policy.init(), norms(a=1, b=1, c=1, d=1))
    assert (phase.frozen, state) == ((), {"frozen": 0, "norms": {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0}})
    # Changes 0.125, 0.25, 0.5, 0.125: the median is 0.1875, and b is the first that is not below it.
    state, phase = policy.update(state, norms(a=0.875, b=1.25, c=0.5, d=1.125))
    assert (phase.frozen, state) == (("a",), {"frozen": 1, "norms": {"b": 1.25, "c": 0.5, "d": 1.125}})
    # Changes 0.2, 0.5, 2/3 of what still trains: the median is 0.5; a is no longer observed.
    state, phase = policy.update(state, norms(b=1.0, c=0.25, d=0.375))
    assert (phase.frozen, state) == (("a", "b"), {"frozen": 2, "norms": {"c": 0.25, "d": 0.375}})


def test_autofreeze_does_not_freeze_above_a_block_that_still_changes() -> None:
    policy = AutoFreeze(["a", "b", "c"])
    state, _ = policy.update(policy.init(), norms(a=1, b=1, c=1))
    assert policy.update(state, norms(a=2, b=1, c=1))[1].frozen == ()


@pytest.mark.parametrize(
    ("percentile", "frozen"), [(0, ""), (25, "a"), (26, "ab"), (50, "ab"), (51, "abc"), (75, "abc"), (100, "abcd")]
)
def test_autofreeze_takes_any_percentile(percentile: float, frozen: str) -> None:
    """The changes 0.25, 0.5, 0.75, 1 and 2 are their own percentiles 0, 25, 50, 75 and 100."""
    policy = AutoFreeze(["a", "b", "c", "d", "e"], percentile=percentile)
    state, _ = policy.update(policy.init(), norms(a=1, b=1, c=1, d=1, e=1))
    assert policy.update(state, norms(a=0.75, b=0.5, c=0.25, d=0, e=3))[1].frozen == tuple(frozen)


def test_autofreeze_never_freezes_the_last_block_and_accepts_a_norm_of_zero() -> None:
    policy = AutoFreeze(["a", "b"])
    state, _ = policy.update(policy.init(), norms(a=0, b=0))
    state, phase = policy.update(state, norms(a=0, b=1))
    assert (phase.frozen, state) == (("a",), {"frozen": 1, "norms": {"b": 1.0}})
    for norm in (1, 1, 0, 0, 5):
        state, phase = policy.update(state, norms(b=norm))
        assert phase.frozen == ("a",)


# --- Egeria


def plasticities(block: str, *values: float, rate: float | None = None) -> list[dict[str, float]]:
    return [{block: value} | ({} if rate is None else {"learning_rate": rate}) for value in values]


def test_egeria_freezes_the_first_block_when_its_slope_is_flat() -> None:
    policy = Egeria(["a", "b", "c"], window=2, patience=2, tolerance=0.25)
    # Averages 8, 6, 3, 1.75, 1.5, 1.5: slopes 2, 3, 1.25, 0.25, 0, of which the last two are at most 0.75.
    found = names(policy, plasticities("a", 8, 4, 2, 1.5, 1.5, 1.5))
    assert found == ["0 of 3 blocks frozen"] * 6 + ["1 of 3 blocks frozen"]


def test_egeria_counts_again_after_a_steep_slope() -> None:
    policy = Egeria(["a", "b"], window=2, patience=2, tolerance=0.25)
    # Slopes 2, 3, 1, 0, 4, 4, 0, 0: the single flat one in the middle is forgotten.
    found = names(policy, plasticities("a", 8, 4, 2, 2, 2, 10, 10, 10, 10))
    assert found == ["0 of 2 blocks frozen"] * 9 + ["1 of 2 blocks frozen"]


def test_the_slope_of_egeria_is_a_least_squares_fit() -> None:
    policy = Egeria(["a", "b"], window=3)
    state = policy.init()
    for value in (1.0, 2.0, 6.0):
        state, _ = policy.update(state, {"a": value})
    # Averages 1, 1.5 and 3 have the slope (3 - 1) / 2.
    assert state == {
        "frozen": 0, "rate": None, "recent": [1.0, 2.0, 6.0], "averages": [1.0, 1.5, 3.0], "steepest": 1.0, "flat": 0,
    }  # fmt: skip


def test_egeria_reads_only_the_first_trainable_block_and_never_freezes_the_last_one() -> None:
    policy = Egeria(["a", "b", "c"], window=2, patience=1, tolerance=1.0)
    observations = [*plasticities("a", 1, 1), *plasticities("b", 1, 1), *plasticities("c", 1, 1, 1, 1), {}]
    found = names(policy, observations)
    assert [name[0] for name in found] == ["0", "0", "1", "1", "2", "2", "2", "2", "2", "2"]


def test_egeria_thaws_all_blocks_when_the_learning_rate_has_fallen_to_a_tenth() -> None:
    policy = Egeria(["a", "b", "c"], window=2, patience=1, tolerance=1.0)
    observations = [
        *plasticities("a", 1, 1, rate=0.1),
        *plasticities("b", 1, 1, rate=0.05),
        *plasticities("c", 1, rate=0.0101),
        *plasticities("c", 1, rate=0.1 * 0.1),
        *plasticities("a", 1, 1, rate=0.01),
        *plasticities("b", 1, rate=0.0011),
        *plasticities("b", 1, rate=0.001),
    ]
    assert [name[0] for name in names(policy, observations)] == list("00112200110")


def test_egeria_never_thaws_without_a_learning_rate() -> None:
    policy = Egeria(["a", "b"], window=2, patience=1, tolerance=1.0)
    found = names(policy, [*plasticities("a", 1, 1), *plasticities("b", 1, 1, rate=1e-9)])
    assert [name[0] for name in found] == list("00111")
