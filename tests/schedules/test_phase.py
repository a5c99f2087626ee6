"""Phases applied to a model."""

import pytest

from core.models import MODEL, SMALL, TIED, Linear, Net, param
from frostline import NoMatchError
from frostline._core.inventory import Inventory
from frostline._core.param import Module
from frostline.errors import TiedError
from frostline.schedules import LISA, Phase, ULMFiT

PINNED = Inventory(
    params=(param("a.w"), param("b.w", pinned=True), param("c.w")),
    modules=(
        Module("", Net),
        Module("a", Linear),
        Module("stats", Linear, buffer_bytes=4, stateful=True, pinned=True),
        Module("more", Linear, buffer_bytes=4, stateful=True),
    ),
)


def test_the_plan_equals_that_of_freeze() -> None:
    plan = Phase(["**", "!head", "!norm"]).plan(SMALL)
    assert plan.frozen == {"embed.table", "body.weight", "body.bias"}
    assert plan.trainable == {"norm.weight", "head.projection", "head.shift"}


def test_no_selector_freezes_nothing() -> None:
    assert Phase().plan(SMALL).frozen == frozenset()
    assert Phase().plan(MODEL).trainable == MODEL.paths


def test_parameters_of_a_frozen_use_stay_frozen() -> None:
    assert Phase().plan(PINNED).frozen == {"b.w", "stats"}
    assert Phase(["a"]).plan(PINNED).frozen == {"a.w", "b.w", "stats"}
    assert Phase(["**", "!b"]).plan(PINNED).trainable == frozenset()


def test_factors_are_those_of_the_last_selector_that_matches() -> None:
    phase = Phase(rates=[("**", 0.5), ("head", 2), ("head.shift", 0.0)])
    assert phase.factors(SMALL) == {
        "embed.table": 0.5,
        "body.weight": 0.5,
        "body.bias": 0.5,
        "norm.weight": 0.5,
        "head.projection": 2.0,
        "head.shift": 0.0,
    }
    assert set(Phase().factors(MODEL).values()) == {1.0}
    # A module with only buffers has nothing to train.
    assert set(Phase(rates=[("**", 0.5)]).factors(PINNED)) == {"a.w", "b.w", "c.w"}


def test_a_phase_must_freeze_both_names_of_a_tied_tensor_or_neither() -> None:
    assert Phase(["embed"]).plan(TIED).frozen == {"embed.weight"}
    with pytest.raises(TiedError, match="two names of one tensor"):
        Phase(["**", "!embed"]).plan(TIED)


def test_a_schedule_freezes_blocks_of_a_model() -> None:
    blocks = [f"layers[{number}]" for number in range(11)]
    schedule = LISA(blocks, sampled=2, period=1, always=["embed", "head"])
    trainable = schedule.at(0).plan(MODEL).trainable
    assert {path for path in trainable if path.startswith("layers")} == {"layers.2.weight", "layers.9.weight"}
    assert {path for path in trainable if not path.startswith("layers")} == {
        path for path in MODEL.paths if path.startswith(("embed", "head"))
    }
    assert ULMFiT(["layers[:5]", "layers[5:]"], period=1).at(0).plan(MODEL).frozen == {
        f"layers.{number}.weight" for number in range(5)
    }


def test_a_block_without_a_match_raises_the_error_of_its_selector() -> None:
    schedule = LISA(["body", "boddy"], sampled=2, period=1)
    with pytest.raises(NoMatchError) as raised:
        schedule.at(0).plan(SMALL)
    assert str(raised.value).splitlines()[:3] == [
        "'!boddy' matches none of the 6 parameters.",
        "Closest paths:",
        "  body",
    ]
    with pytest.raises(NoMatchError, match="'boddy' matches none"):
        Phase(rates=[("boddy", 0.5)]).factors(SMALL)


def test_the_data_of_a_phase_have_no_empty_fields() -> None:
    assert Phase(["a"]).to_dict() == {"frozen": ["a"]}
    full = {"frozen": ["**", "!a"], "name": "x", "rates": [["a", 0.5]]}
    assert Phase.from_dict(full).to_dict() == full
    assert Phase.from_dict(full) == Phase(("**", "!a"), "x", (("a", 0.5),))
