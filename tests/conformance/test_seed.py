"""The seed's block, rows 1 to 9: freezing belongs to a use of a layer, not to the layer.

Source: https://github.com/FluxML/Flux.jl/issues/1931
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from conformance.benches import Bench


class Pair(NamedTuple):
    """Two models that share three layers; the second uses the middle one frozen."""

    bench: Bench
    m0: Any
    m1: Any
    middle: Any
    free: set[str]
    held: set[str]


@pytest.fixture
def pair(bench: Bench) -> Pair:
    l1, l2, l3 = bench.layers()
    return Pair(
        bench,
        bench.chain(l1, l2, l3),
        bench.chain(l1, bench.frozen(l2), l3),
        l2,
        {bench.path(i, part) for i in (0, 2) for part in ("weight", "bias")},
        {bench.path(1, part) for part in ("weight", "bias")},
    )


def test_row_1_the_outer_layers_are_trainable(pair: Pair) -> None:
    assert pair.free <= pair.bench.trainable(pair.m1)


def test_row_2_the_frozen_layer_is_not_trainable(pair: Pair) -> None:
    assert not pair.held & pair.bench.trainable(pair.m1)


def test_row_3_its_gradient_is_absent_when_asked_for(pair: Pair) -> None:
    assert pair.bench.gradient_of_layer([(1, pair.m1)], pair.middle) == [None, None]


def test_row_4_only_trainable_parameters_have_an_entry(pair: Pair) -> None:
    assert pair.bench.gradient([(1, pair.m1)], of=pair.m1).keys() == pair.free


def test_row_5_it_is_the_gradient_of_the_unfrozen_model(pair: Pair) -> None:
    unfrozen = pair.bench.gradient([(1, pair.m0)], of=pair.m0)

    frozen = pair.bench.gradient([(1, pair.m1)], of=pair.m1)

    assert frozen == {path: unfrozen[path] for path in pair.free}
    assert all(any(values) for values in frozen.values())


def test_row_6_the_difference_has_no_gradient_for_trainable_parameters(pair: Pair) -> None:
    gradient = pair.bench.gradient([(1, pair.m0), (-1, pair.m1)], of=pair.m1)

    assert gradient.keys() == pair.free
    assert not any(any(values) for values in gradient.values())


def test_row_7_the_unfrozen_use_still_counts(pair: Pair) -> None:
    gradient = pair.bench.gradient([(1, pair.m0), (-1, pair.m1)], of=pair.m0)

    assert all(any(gradient[path]) for path in pair.held)


def test_row_8_over_the_second_model_there_is_no_entry_for_it(pair: Pair) -> None:
    gradient = pair.bench.gradient([(1, pair.m0), (-1, pair.m1)], of=pair.m1)

    assert not pair.held & gradient.keys()


def test_row_9_rows_6_and_8_agree_on_trainable_parameters(pair: Pair) -> None:
    over_m0 = pair.bench.gradient([(1, pair.m0), (-1, pair.m1)], of=pair.m0)
    over_m1 = pair.bench.gradient([(1, pair.m0), (-1, pair.m1)], of=pair.m1)

    assert {path: over_m0[path] for path in pair.free} == over_m1
