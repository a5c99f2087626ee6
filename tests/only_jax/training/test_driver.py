"""A driver gives each tree the marks of a schedule, and the factors of the learning rates as a value."""

from __future__ import annotations

import json
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import frostline.jax as fj
from frostline import NoMatchError
from frostline.errors import ConstantError, PlanMismatchError, ScheduleError, StructureError, TiedError
from frostline.schedules import FreezeOut, HiFT, LinearProbe, Phase, Phases, Plateau, Span, ULMFiT
from only_jax.bits import bits, moved
from only_jax.freezing.test_traces import Traced

RATED = Phases([Span(0, 2, Phase(rates=[("a", 0.5)])), Span(2, None, Phase(["a"], rates=[("b", 0.25)]))])


def net() -> dict[str, Any]:
    return {"a": jnp.ones(2), "b": jnp.ones((1, 2)), "c": jnp.ones(1)}


def loss(params: Any) -> Any:
    return sum(leaf.sum() for leaf in jax.tree.leaves(params))


def trained(driver: fj.Driver, tx: Any, params: Any, state: Any) -> tuple[Any, Any]:
    """A step in which each gradient is 1."""
    updates, state = tx.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, driver.factors.scaled(updates)), state


class TestFollowing:
    def test_start_applies_step_0_and_each_step_applies_the_next(self) -> None:
        driver = fj.Driver(ULMFiT(["a", "b", "c"], period=2, decay=1))
        params, seen = driver.start(net()), []
        for _ in range(6):
            seen.append((driver.steps, sorted(fj.trainable(params)), driver.phase.name))
            params = driver.step(params)
        assert seen == [
            (0, ["c"], "1 of 3 blocks"),
            (1, ["c"], "1 of 3 blocks"),
            (2, ["b", "c"], "2 of 3 blocks"),
            (3, ["b", "c"], "2 of 3 blocks"),
            (4, ["a", "b", "c"], "3 of 3 blocks"),
            (5, ["a", "b", "c"], "3 of 3 blocks"),
        ]

    def test_each_step_moves_the_trainable_parameters_of_its_phase(self) -> None:
        driver, tx = fj.Driver(HiFT(["a", "b", "c"])), fj.optimizer(optax.adamw(0.1, weight_decay=0.1))
        params, found = driver.start(net()), []
        state = tx.init(params)
        for _ in range(4):
            after, state = trained(driver, tx, params, state)
            found.append(moved(params, after))
            params = driver.step(after)
        assert found == [{"a"}, {"b"}, {"c"}, {"a"}]

    def test_the_given_tree_does_not_change(self) -> None:
        tree = net()
        driver = fj.Driver(LinearProbe(["c"], steps=1))
        params = driver.start(tree)
        assert sorted(fj.trainable(tree)) == ["a", "b", "c"]
        driver.step(params)
        assert sorted(fj.trainable(params)) == ["c"]
        assert all(leaf is tree[name] for name, leaf in fj.strip(params).items())

    def test_a_step_without_a_change_gives_the_same_tree(self) -> None:
        driver = fj.Driver(LinearProbe(["c"], steps=3))
        params = driver.start(net())
        assert driver.step(params) is params
        assert driver.step(params) is params
        assert driver.step(params) is not params

    def test_a_policy_uses_only_steps_with_an_observation(self) -> None:
        driver = fj.Driver(Plateau([Phase(["**", "!c"]), Phase()], patience=2))
        params, seen = driver.start(net()), []
        for observation in ({"loss": 1.0}, {}, {"loss": 1.0}, {}, {"loss": 1.0, "accuracy": 0.1}, {"loss": 9.0}):
            params = driver.step(params, **observation)
            seen.append(len(fj.trainable(params)))
        assert (driver.steps, seen) == (6, [1, 1, 1, 1, 3, 3])

    def test_a_started_driver_starts_again(self) -> None:
        driver = fj.Driver(LinearProbe(["c"], steps=1))
        driver.step(driver.start(net()))
        assert sorted(fj.trainable(driver.start(net()))) == ["c"]
        assert driver.steps == 0

    def test_a_frozen_use_stays_frozen(self) -> None:
        driver = fj.Driver(LinearProbe(["c"], steps=1))
        params = driver.step(driver.start(net() | {"use": fj.Frozen({"w": jnp.ones(1)})}))
        assert sorted(fj.trainable(params)) == ["a", "b", "c"]


class TestLog:
    def test_each_change_is_one_line(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, logger="frostline")
        driver = fj.Driver(LinearProbe(["c"], steps=3))
        params = driver.start(net())
        for _ in range(5):
            params = driver.step(params)
        assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
            ("frostline", "INFO", "step 0: freeze 2 (a, b); probe"),
            ("frostline", "INFO", "step 3: thaw 2 (a, b); fine-tune"),
        ]

    def test_a_step_without_a_change_logs_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, logger="frostline")
        driver = fj.Driver(FreezeOut(["a", "b"], steps=100))
        params = driver.start(net())
        assert driver.factors
        driver.step(params)
        assert caplog.messages == []


class TestRates:
    def test_each_parameter_steps_at_its_own_factor(self) -> None:
        driver, tx = fj.Driver(RATED), fj.optimizer(optax.sgd(1.0))
        params, found = driver.start(net()), []
        state = tx.init(params)
        for _ in range(3):
            after, state = trained(driver, tx, params, state)
            before, now = fj.strip(params), fj.strip(after)
            found.append({name: float((before[name] - now[name]).mean()) for name in before})
            params = driver.step(after)
        assert found == [{"a": 0.5, "b": 1.0, "c": 1.0}] * 2 + [{"a": 0.0, "b": 0.25, "c": 1.0}]

    def test_updates_keep_their_types_and_missing_updates_stay_missing(self) -> None:
        driver = fj.Driver(Phases([Span(0, None, Phase(["a"], rates=[("**", 1 / 3)]))]))
        params = driver.start({"a": jnp.ones(1), "b": jnp.ones(1, jnp.bfloat16), "c": jnp.ones(1, jnp.float16)})
        updates = driver.factors.scaled(fj.grad(lambda tree: loss(tree).astype(float))(params))
        assert jax.tree.structure(updates) == jax.tree.structure(fj.split(params)[0])
        found = {name: (leaf and (str(leaf.dtype), float(leaf[0]))) for name, leaf in fj.strip(updates).items()}
        assert found == {"a": None, "b": ("bfloat16", 0.333984375), "c": ("float16", 0.333251953125)}

    def test_a_tied_array_has_the_factor_of_all_its_names(self) -> None:
        shared = jnp.ones(1)
        driver = fj.Driver(Phases([Span(0, None, Phase(rates=[("head", 0.5)]))]))
        params = driver.start(fj.tie({"embed": shared, "head": shared, "rest": jnp.ones(1)}))
        updates = driver.factors.scaled(fj.grad(lambda tree: tree["embed"].sum() + tree["head"].sum())(params))
        assert [float(leaf[0]) for leaf in jax.tree.leaves(updates)] == [1.0, 0.0]
        assert driver.factors.names == ("embed", "head", "rest")

    def test_new_factors_cause_no_trace_of_compiled_code(self) -> None:
        driver = fj.Driver(FreezeOut(["a", "b"], steps=8, t0=1.0, scaled=False))
        params, tx = driver.start(net()), fj.optimizer(optax.sgd(1.0))
        state = tx.init(params)

        def train(params: Any, state: Any, factors: Any) -> Any:
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, factors.scaled(updates)), state

        traced, found = Traced(train), []
        for _ in range(3):
            before = params
            params, state = traced(params, state, driver.factors)
            found.append([round(float(before[name].mean() - params[name].mean()), 4) for name in "ac"])
            params = driver.step(params)
        assert (found, traced.count) == ([[1.0, 1.0], [0.9619, 1.0], [0.8536, 1.0]], 1)

    def test_a_constant_of_compiled_code_is_refused(self) -> None:
        driver = fj.Driver(RATED)
        params = driver.start(net())
        with pytest.raises(StructureError) as caught:
            jax.jit(lambda updates: driver.factors.scaled(updates))(params)
        assert str(caught.value) == (
            "factors.scaled(updates) is called in compiled code with the factors of one step as a constant.\n"
            "Pass them as an argument: train(params, state, batch, driver.factors)."
        )

    def test_updates_of_another_tree(self) -> None:
        driver = fj.Driver(RATED)
        driver.start(net())
        with pytest.raises(StructureError) as caught:
            driver.factors.scaled(net() | {"d": jnp.ones(1)})
        assert str(caught.value) == (
            "factors.scaled(updates) got updates with 1 of 4 names that have no factor:\n"
            "  d\n"
            "Scale the updates of the tree that the driver was started with."
        )

    def test_factors_that_were_not_read(self) -> None:
        driver = fj.Driver(ULMFiT(["a", "b", "c"], period=1, decay=2))
        params = driver.step(driver.start(net()))
        with pytest.raises(ScheduleError) as caught:
            driver.step(params)
        assert str(caught.value) == (
            "driver.step(tree) ends a step in which driver.factors was not read; 1 of 2 trainable parameters "
            "have a factor:\n"
            "  b: 0.5\n"
            "Apply them in each step: updates = factors.scaled(updates), with factors = driver.factors."
        )
        assert driver.steps == 1
        assert len(driver.factors.names) == 3
        assert driver.step(params) is not params


class TestTraces:
    def test_one_trace_for_each_frozen_set_and_none_for_a_return(self) -> None:
        driver = fj.Driver(HiFT(["a", "b", "c"], period=2))
        params, traced, counts = driver.start(net()), Traced(lambda tree: fj.grad(loss)(tree)), []
        for _ in range(14):
            traced(params)
            counts.append(traced.count)
            params = driver.step(params)
        assert counts == [1, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3]

    def test_with_an_optimizer_whose_state_follows_between_the_steps(self) -> None:
        """Each set has two traces if the state follows within the step."""
        for follows, expected in ((True, [1, 1, 2, 2, 3, 3, 3, 3]), (False, [1, 1, 2, 3, 4, 5, 6, 6])):
            driver, tx = fj.Driver(HiFT(["a", "b", "c"], period=2)), fj.optimizer(optax.adam(0.1))
            params, counts = driver.start(net()), []
            state = tx.init(params)

            def train(params: Any, state: Any, tx: Any = tx) -> Any:
                updates, state = tx.update(jax.grad(loss)(params), state, params)
                return optax.apply_updates(params, updates), state

            traced = Traced(train)
            for _ in range(8):
                params, state = traced(params, state)
                counts.append(traced.count)
                params = driver.step(params)
                state = tx.follow(state, params) if follows else state
            assert counts == expected


class TestRefused:
    @pytest.mark.parametrize(
        "along",
        [
            Phases([Span(0, 40_000, Phase()), Span(40_000, None, Phase(["bb"]))]),
            Phases([Span(0, 40_000, Phase()), Span(40_000, None, Phase(rates=[("bb", 0.5)]))]),
            FreezeOut(["a", "bb"], steps=10**6),
            Plateau([Phase(), Phase(), Phase(["bb"])], patience=9),
        ],
        ids=["late phase", "late rate", "part", "policy"],
    )
    def test_a_typo_in_a_late_phase(self, along: Any) -> None:
        driver = fj.Driver(along)
        with pytest.raises(NoMatchError) as caught:
            driver.start(net())
        assert str(caught.value) == (
            "'bb' matches none of the 3 parameters.\n"
            "Closest paths:\n"
            "  b\n"
            "Fix the pattern, or pass allow_empty=True if matching nothing is what you want."
        )

    def test_two_names_of_one_array_that_disagree(self) -> None:
        shared = jnp.ones(1)
        with pytest.raises(TiedError):
            fj.Driver(LinearProbe(["head"], steps=9)).start(fj.tie({"embed": shared, "head": shared}))

    def test_an_object_that_is_not_a_schedule(self) -> None:
        with pytest.raises(ScheduleError) as caught:
            fj.Driver("lisa.toml")
        assert str(caught.value) == (
            "Driver(str, ...) got 'lisa.toml', which is neither a schedule nor a policy.\n"
            "Pass a schedule: Driver(LinearProbe(['head'], steps=500), ...)."
        )

    @pytest.mark.parametrize(
        ("expression", "call"),
        [
            ("driver.step(tree)", lambda driver: driver.step(net())),
            ("driver.state_dict()", lambda driver: driver.state_dict()),
            ("driver.factors", lambda driver: driver.factors),
        ],
    )
    def test_a_driver_that_was_not_started(self, expression: str, call: Any) -> None:
        with pytest.raises(ScheduleError) as caught:
            call(fj.Driver(RATED))
        assert str(caught.value) == (
            f"{expression} is called before the driver was started with a tree.\n"
            "Start it first: params = driver.start(params)."
        )

    @pytest.mark.parametrize(
        ("expression", "call"),
        [
            ("driver.start(tree)", lambda driver, tree: driver.start(tree)),
            ("driver.step(tree)", lambda driver, tree: driver.step(tree)),
            (
                "driver.load_state_dict(state, tree)",
                lambda driver, tree: driver.load_state_dict(driver.state_dict(), tree),
            ),
        ],
    )
    def test_a_driver_in_compiled_code(self, expression: str, call: Any) -> None:
        driver = fj.Driver(LinearProbe(["c"], steps=1))
        params = driver.start(net())
        with pytest.raises(StructureError) as caught:
            jax.jit(lambda tree: call(driver, tree))(params)
        assert str(caught.value) == (
            f"{expression} is called in compiled code, where it would run only once, while the code is traced.\n"
            "Call it between the steps, outside jit."
        )
        assert driver.steps == 0

    def test_another_tree(self) -> None:
        driver = fj.Driver(LinearProbe(["c"], steps=1))
        driver.start(net())
        with pytest.raises(PlanMismatchError):
            driver.step(net() | {"d": jnp.ones(1)})
        assert driver.steps == 0


class TestState:
    def test_the_state_is_json_and_equals_that_of_the_other_front_end(self) -> None:
        driver = fj.Driver(Plateau([Phase(["a"]), Phase()], patience=3))
        params = driver.start(net())
        for observed in (0.5, 0.75):
            params = driver.step(params, loss=observed)
        assert json.loads(json.dumps(driver.state_dict())) == {
            "format": "frostline.driver",
            "version": 1,
            "schedule": {
                "format": "frostline.policy",
                "version": 1,
                "policy": "Plateau",
                "phases": [{"frozen": ["a"]}, {"frozen": []}],
                "patience": 3,
                "delta": 0.0,
                "watch": "loss",
            },
            "step": 2,
            "state": {"place": 0, "best": 0.5, "waited": 1},
            "plan": {"format": "frostline.plan", "version": 1, "frozen": ["a"], "trainable": ["b", "c"]},
        }

    def test_loading_restores_the_frozen_set_of_a_tree(self, caplog: pytest.LogCaptureFixture) -> None:
        driver, other = fj.Driver(LinearProbe(["c"], steps=2)), fj.Driver(LinearProbe(["c"], steps=2))
        params = driver.step(driver.start(net()))
        caplog.set_level(logging.INFO, logger="frostline")
        again = other.load_state_dict(driver.state_dict(), net())
        assert (other.steps, fj.plan(again)) == (1, fj.plan(params))
        assert jax.tree.structure(again) == jax.tree.structure(params)
        assert bits(again) == bits(net())
        assert caplog.messages == ["step 1: freeze 2 (a, b); probe"]

    def test_a_later_driver_can_load_an_earlier_state(self) -> None:
        driver = fj.Driver(LinearProbe(["c"], steps=2))
        params = driver.start(net())
        state = driver.state_dict()
        for _ in range(3):
            params = driver.step(params)
        params = driver.load_state_dict(state, params)
        assert (driver.steps, sorted(fj.trainable(params))) == (0, ["c"])

    def test_the_state_of_another_schedule_or_tree(self) -> None:
        driver = fj.Driver(LinearProbe(["c"], steps=2))
        params = driver.start(net())
        for _ in range(3):
            params = driver.step(params)
        with pytest.raises(ScheduleError) as caught:
            fj.Driver(LinearProbe(["c"], steps=3)).load_state_dict(driver.state_dict(), net())
        assert str(caught.value) == (
            "driver.load_state_dict(state) got the state of another LinearProbe: it differs in 1 field.\n"
            "  steps: saved 2, here 3\n"
            "  at step 2: saved Phase(name='fine-tune'), here Phase(frozen=('**', '!c'), name='probe')\n"
            "Load what driver.state_dict() gave, into a driver with the same schedule."
        )
        with pytest.raises(PlanMismatchError) as mismatch:
            driver.load_state_dict(driver.state_dict(), {"a": jnp.ones(1), "c": jnp.ones(1)})
        assert str(mismatch.value) == (
            "The plan and what it is compared with have different paths: 1 missing, 0 unknown.\n"
            "Missing (only in the plan):\n"
            "  b\n"
            "Make both from the same model, for example with plan(model)."
        )

    def test_numpy_arrays(self) -> None:
        driver = fj.Driver(LinearProbe(["c"], steps=1))
        params = driver.start({name: np.asarray(leaf) for name, leaf in net().items()})
        assert sorted(fj.trainable(params)) == ["c"]


class TestKept:
    """A schedule does not thaw parameters that are frozen in its first tree (L13)."""

    TWICE = Phases([Span(0, 1, Phase(["c"])), Span(1, 2, Phase()), Span(2, None, Phase(["c"]))])

    def test_parameters_frozen_before_stay_frozen(self) -> None:
        driver = fj.Driver(self.TWICE)
        params, seen = driver.start(fj.freeze(net(), "a")), []
        for _ in range(3):
            seen.append(sorted(fj.trainable(params)))
            params = driver.step(params)
        assert seen == [["b"], ["b", "c"], ["b"]]

    def test_a_later_thaw_is_followed_at_the_next_change(self) -> None:
        driver = fj.Driver(self.TWICE)
        params = driver.step(fj.thaw(driver.start(fj.freeze(net(), "a")), "a"))
        assert sorted(fj.trainable(params)) == ["a", "b", "c"]

    def test_lost_marks_are_not_a_thaw(self) -> None:
        driver = fj.Driver(self.TWICE)
        params = driver.step(dict(fj.strip(driver.start(fj.freeze(net(), "a")))))
        assert sorted(fj.trainable(params)) == ["b", "c"]

    def test_a_parameter_named_by_its_own_path_is_thawed(self) -> None:
        params = fj.Driver(Phases([Span(0, None, Phase(["**", "!a"]))])).start(fj.freeze(net(), "a"))
        assert sorted(fj.trainable(params)) == ["a"]

    def test_a_phase_that_trains_nothing_else_is_an_error(self) -> None:
        driver = fj.Driver(HiFT(["{a,b}", "c"]))
        with pytest.raises(ConstantError) as caught:
            driver.start(fj.freeze(net(), "a", "b"))
        assert str(caught.value).split("\n")[:3] == [
            "Phase(frozen=('**', '!{a,b}'), name='group 1 of 2') would train 2 parameters, all of which were frozen "
            "before the schedule:",
            "  a",
            "  b",
        ]

    def test_the_log_mentions_it_once(self, caplog: pytest.LogCaptureFixture) -> None:
        driver = fj.Driver(self.TWICE)
        with caplog.at_level(logging.WARNING, "frostline"):
            params = driver.start(fj.freeze(net(), "a"))
            for _ in range(3):
                params = driver.step(params)
        said = [record.message for record in caplog.records]
        assert said == ["step 0: leaves 1 parameter frozen that was frozen before the schedule (a)"]

    def test_the_log_is_silent_where_no_phase_freezes_anything(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "frostline"):
            driver = fj.Driver(Phases([Span(0, None, Phase())]))
            driver.step(driver.start(fj.freeze(net(), "a")))
        assert caplog.records == []

    @pytest.mark.parametrize("marked", [True, False])
    def test_a_resumed_run_keeps_them_frozen(self, marked: bool) -> None:
        driver, other = fj.Driver(self.TWICE), fj.Driver(self.TWICE)
        params = driver.start(fj.freeze(net(), "a"))
        saved = json.loads(json.dumps(driver.state_dict()))
        again = other.load_state_dict(saved, params if marked else net())
        assert sorted(fj.trainable(again)) == ["b"]
        assert sorted(fj.trainable(other.step(again))) == ["b", "c"]
