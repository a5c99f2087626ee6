"""The laws L1 to L12 of the design, each a section, for every front end."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from conformance.benches import Bench
from frostline import MovedError, NoMatchError, everything, glob
from frostline.errors import PlanMismatchError, TiedError


def moved(bench: Bench, model: Any, before: Any) -> set[str]:
    after = bench.values(model)
    assert after.keys() == before.keys()
    return {path for path in before if before[path] != after[path]}


class TestL1SameOutput:
    def test_a_frozen_use_computes_the_same_as_the_layer(self, bench: Bench) -> None:
        l1, l2, l3 = bench.layers()
        hand = bench.freeze(bench.chain(*copy.deepcopy([l1, l2, l3])), bench.at("[1]"))

        assert bench.output(bench.chain(l1, bench.frozen(l2), l3)) == bench.output(hand)


class TestL2OpenToTheInput:
    def test_the_input_gets_the_unfrozen_gradient(self, bench: Bench) -> None:
        layers = bench.layers()
        free = bench.chain(*layers)

        frozen = bench.chain(*map(bench.frozen, layers))

        assert bench.input_gradient(frozen) == bench.input_gradient(free)
        assert any(bench.input_gradient(frozen))


class TestL3Absent:
    def test_frozen_in_place(self, bench: Bench) -> None:
        model = bench.freeze(bench.chain(*bench.layers()), bench.at("[:2]"))

        gradient = bench.gradient([(1, model)], of=model)

        assert gradient.keys() == {bench.path(2, "weight"), bench.path(2, "bias")}


class TestL4PerUse:
    def test_of_two_uses_only_the_trainable_one_counts(self, bench: Bench) -> None:
        l1, l2, l3 = bench.layers()
        once = bench.gradient_of_layer([(1, bench.chain(l1, l2, l3))], l2)

        both = [(1, bench.chain(l1, l2, l3)), (1, bench.chain(l1, bench.frozen(l2), l3))]

        assert bench.gradient_of_layer(both, l2) == once


class TestL5NotListedStillKept:
    def test_names_and_values_equal_those_of_the_unfrozen_model(self, bench: Bench) -> None:
        l1, l2, l3 = bench.layers()
        plain = bench.chain(l1, l2, l3)

        frozen = bench.chain(l1, bench.frozen(l2), l3)

        assert bench.values(frozen) == bench.values(plain)

    def test_trainable_leaves_the_frozen_ones_out(self, bench: Bench) -> None:
        model = bench.freeze(bench.chain(*bench.layers()), "**", "!" + bench.at("[2]"))

        assert bench.trainable(model) == {bench.path(2, "weight"), bench.path(2, "bias")}


class TestL6Live:
    def test_a_frozen_use_sees_writes_to_the_layer(self, bench: Bench) -> None:
        l1, l2, l3 = bench.layers()
        frozen, plain = bench.chain(l1, bench.frozen(l2), l3), bench.chain(l1, l2, l3)
        before = bench.output(frozen)

        frozen, plain = bench.write(l2, 0.5, frozen, plain)

        assert bench.output(frozen) != before
        assert bench.output(frozen) == bench.output(plain)


class TestL7Still:
    def test_training_around_a_frozen_use_moves_nothing_in_it(self, bench: Bench) -> None:
        model = bench.freeze(bench.with_statistics(), bench.at("[0]"))
        before = bench.values(model)

        model = bench.train(model, steps=3)

        assert moved(bench, model, before) == {bench.path(1, "weight"), bench.path(1, "bias")}

    def test_a_frozen_use_is_deterministic_in_training(self, bench: Bench) -> None:
        model = bench.freeze(bench.with_statistics(), bench.at("[0]"))
        model = bench.train(model, steps=1)

        assert bench.output(model) == bench.output(model)

    def test_without_freezing_statistics_move(self, bench: Bench) -> None:
        """The negative control: the same training moves everything."""
        model = bench.with_statistics()
        before = bench.values(model)

        model = bench.train(model, steps=3)

        assert moved(bench, model, before) == set(before)


class TestL8BlindTrainingRoutine:
    def test_adamw_with_decay_over_everything(self, bench: Bench) -> None:
        model = bench.freeze(bench.chain(*bench.layers()), bench.at("[:2]"))
        before = bench.values(model)

        model = bench.train(model, steps=5, momentum_from=2)

        assert moved(bench, model, before) == {bench.path(2, "weight"), bench.path(2, "bias")}

    def test_per_use(self, bench: Bench) -> None:
        l1, l2, l3 = bench.layers()
        model = bench.chain(l1, bench.frozen(l2), l3)
        before = bench.values(model)

        model = bench.train(model, steps=5, momentum_from=2)

        frozen = {bench.path(1, "weight"), bench.path(1, "bias")}
        assert moved(bench, model, before) == set(before) - frozen


class TestL9Nests:
    def test_freezing_twice_equals_freezing_once(self, bench: Bench) -> None:
        l1, l2, l3 = bench.layers()
        once = bench.chain(l1, bench.frozen(l2), l3)

        twice = bench.chain(l1, bench.frozen(bench.frozen(l2)), l3)

        assert bench.values(twice) == bench.values(once)
        assert bench.output(twice) == bench.output(once)
        assert bench.trainable(twice) == bench.trainable(once)

    def test_frozen_in_frozen_in_trainable(self, bench: Bench) -> None:
        l1, l2, l3 = bench.layers()
        inner = bench.chain(l2, bench.frozen(l2))

        model = bench.chain(l1, bench.frozen(inner), l3)

        assert bench.gradient([(1, model)], of=model).keys() == {
            bench.path(i, part) for i in (0, 2) for part in ("weight", "bias")
        }
        assert bench.gradient_of_layer([(1, model)], l2) == [None, None]


class TestL10Reversible:
    def test_a_thawed_layer_trains_again(self, bench: Bench) -> None:
        untouched = bench.train(bench.chain(*bench.layers()), steps=3)

        model = bench.freeze(bench.chain(*bench.layers()), bench.at("[:2]"))
        model = bench.train(bench.thaw(model), steps=3)

        assert bench.values(model) == bench.values(untouched)

    def test_a_plan_can_be_applied_after_any_other(self, bench: Bench) -> None:
        model = bench.chain(*bench.layers())
        plans = [bench.plan(bench.freeze(model, bench.at(f"[{i}]"))) for i in range(3)]

        for there, back in itertools.permutations(plans, 2):
            model = bench.follow(bench.follow(model, there), back)
            assert bench.plan(model) == back


class TestL11Composes:
    """Copies are tested here; the features of each framework are tested in its own folder."""

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
    def test_a_copy_has_the_frozen_set_of_the_original(self, bench: Bench, copied: Callable[[Any], Any]) -> None:
        l1, l2, l3 = bench.layers()
        model = bench.freeze(bench.chain(l1, bench.frozen(l2), l3), bench.at("[0]"))

        other = copied(model)

        assert bench.plan(other) == bench.plan(model)
        assert bench.output(other) == bench.output(model)
        before = bench.values(other)
        assert moved(bench, bench.train(other, steps=2), before) == {bench.path(2, "weight"), bench.path(2, "bias")}
        assert bench.values(model) == before


class TestL12Loud:
    def test_a_typo(self, bench: Bench) -> None:
        model = bench.chain(*bench.layers())
        before = bench.plan(model)

        with pytest.raises(NoMatchError):
            bench.freeze(model, bench.at("[0]"), "boddy")

        assert bench.plan(model) == before

    def test_one_leaf_of_an_expression(self, bench: Bench) -> None:
        with pytest.raises(NoMatchError):
            bench.freeze(bench.chain(*bench.layers()), everything - glob("typo"))

    def test_one_tensor_chosen_and_refused(self, bench: Bench) -> None:
        with pytest.raises(TiedError):
            bench.freeze(bench.tied(), "**", "!" + bench.at("[1]"))

    def test_either_name_freezes_a_tied_tensor(self, bench: Bench) -> None:
        by_first = bench.plan(bench.freeze(bench.tied(), bench.path(0, "weight")))
        by_second = bench.plan(bench.freeze(bench.tied(), bench.path(1, "weight")))

        assert by_first == by_second

    def test_the_plan_of_another_model(self, bench: Bench) -> None:
        other = bench.plan(bench.chain(*bench.layers()[:2]))

        with pytest.raises(PlanMismatchError):
            bench.follow(bench.chain(*bench.layers()), other)

    def test_the_guard_passes_if_nothing_frozen_moves(self, bench: Bench) -> None:
        model = bench.freeze(bench.with_statistics(), bench.at("[0]"))

        bench.guarded(model, lambda: bench.train(model, steps=2))

    def test_the_guard_finds_broken_freezing(self, bench: Bench) -> None:
        """Negative control: other code writes without notice."""
        layers = bench.layers()
        model = bench.freeze(bench.chain(*layers), bench.at("[0]"))

        with pytest.raises(MovedError) as caught:
            bench.guarded(model, lambda: bench.write(layers[0], 1.5, model)[0])

        assert {m.path for m in caught.value.moved} == {
            bench.path(0, "weight"),
            bench.path(0, "bias"),
        }
