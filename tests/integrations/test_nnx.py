"""Flax NNX: frozen uses, freezing in place, and the one filter."""

from __future__ import annotations

import copy
import pickle
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from frostline import MovedError, NoMatchError, NothingTrainableError, UnsupportedError, of_type
from frostline.errors import LayerError, PinnedError, PlanMismatchError, TiedError
from frostline.integrations.nnx import Frozen, follow, freeze, guard, plan, thaw, trainable
from only_jax.programs import longest_constant, recorded

X = jnp.array([[1.0, 2.0]])
FREE = {"l1.kernel", "l1.bias", "l3.kernel", "l3.bias"}
ALL = FREE | {"l2.kernel", "l2.bias"}
# The gradient of the sum of the output.
GRADIENT = {
    "l1.kernel": [[2.0, 3.0], [4.0, 6.0]],
    "l1.bias": [2.0, 3.0],
    "l2.kernel": [[8.0, 16.0], [11.0, 22.0]],
    "l2.bias": [1.0, 2.0],
    "l3.kernel": [[27.0], [12.0]],
    "l3.bias": [1.0],
}


def linear(kernel: list[list[float]], bias: list[float]) -> nnx.Linear:
    layer = nnx.Linear(len(kernel), len(bias), rngs=nnx.Rngs(0))
    layer.kernel[...], layer.bias[...] = jnp.array(kernel), jnp.array(bias)
    return layer


class Chain(nnx.Module):
    def __init__(self, l1: Any, l2: Any, l3: Any) -> None:
        self.l1, self.l2, self.l3 = l1, l2, l3

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.l3(self.l2(self.l1(x)))


class Trunk(nnx.Module):
    """Keeps statistics and counts random numbers."""

    def __init__(self) -> None:
        self.linear = linear([[1.0, 2.0], [3.0, 4.0]], [1.0, 1.0])
        self.norm = nnx.BatchNorm(2, rngs=nnx.Rngs(0))
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(1))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.dropout(self.encode(x))

    def encode(self, x: jax.Array) -> jax.Array:
        return self.norm(self.linear(x))


class Net(nnx.Module):
    def __init__(self, trunk: Any) -> None:
        self.trunk, self.head = trunk, linear([[1.0], [2.0]], [3.0])

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.trunk(x))


HEAD = {"head.kernel", "head.bias"}
PARAMS = HEAD | {"trunk.linear.kernel", "trunk.linear.bias", "trunk.norm.scale", "trunk.norm.bias"}
STATE = {"trunk.norm.mean", "trunk.norm.var", "trunk.dropout.rngs.count"}
BATCH = jnp.array([[1.0, 2.0], [0.0, 1.0], [-1.0, 3.0], [2.0, 2.0]])


def layers() -> tuple[nnx.Linear, nnx.Linear, nnx.Linear]:
    return (
        linear([[1.0, 2.0], [3.0, 4.0]], [1.0, 1.0]),
        linear([[2.0, 0.0], [1.0, 1.0]], [0.0, 1.0]),
        linear([[1.0], [2.0]], [3.0]),
    )


def named(state: Any) -> dict[str, Any]:
    return {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}


def numbers(state: Any) -> dict[str, list[Any]]:
    return {path: leaf[...].tolist() for path, leaf in named(state).items()}


def bits(model: Any) -> dict[str, bytes]:
    values = {path: leaf.get_raw_value() for path, leaf in named(nnx.state(model)).items()}
    plain = {
        p: jax.random.key_data(v) if jnp.issubdtype(v.dtype, jax.dtypes.extended) else v for p, v in values.items()
    }
    return {path: np.asarray(value).tobytes() for path, value in plain.items()}


def moved(model: Any, before: dict[str, bytes]) -> set[str]:
    after = bits(model)
    assert after.keys() == before.keys()
    return {path for path in before if before[path] != after[path]}


def total(model: Any) -> jax.Array:
    return model(X).sum()


def gradient(loss: Callable[[Any], jax.Array], models: Any) -> dict[str, list[Any]]:
    return numbers(nnx.grad(loss, argnums=nnx.DiffState(0, trainable(models)))(models))


def train(model: Any, *, steps: int = 2) -> None:
    flt = trainable(model)
    optimizer = nnx.Optimizer(model, optax.adamw(0.1, weight_decay=0.1), wrt=flt)

    @nnx.jit
    def step(model: Any, optimizer: Any) -> None:
        def loss(model: Any) -> jax.Array:
            return jnp.square(model(BATCH)).sum()

        optimizer.update(model, nnx.grad(loss, argnums=nnx.DiffState(0, flt))(model))

    for _ in range(steps):
        model.train()
        step(model, optimizer)


class TestSeed:
    """Rows 1 to 9: freezing belongs to a use of a layer."""

    @pytest.fixture
    def pair(self) -> nnx.List[Chain]:
        l1, l2, l3 = layers()
        return nnx.List([Chain(l1, l2, l3), Chain(l1, Frozen(l2), l3)])

    @staticmethod
    def difference(pair: Any) -> jax.Array:
        return total(pair[0]) - total(pair[1])

    @staticmethod
    def over_first(models: Any, loss: Callable[[Any], jax.Array]) -> dict[str, list[Any]]:
        """Over what is trainable in the first of the models; the others share it."""
        paths = nnx.filterlib.PathIn(*((0, *path) for path in trainable(models[0]).paths))
        found = numbers(nnx.grad(loss, argnums=nnx.DiffState(0, paths))(models))
        return {path.removeprefix("0."): values for path, values in found.items()}

    def test_rows_1_and_2(self, pair: Any) -> None:
        assert {".".join(path) for path in trainable(pair[1]).paths} == FREE
        assert plan(pair[1]).trainable == FREE

    def test_row_3_its_gradient_is_absent_when_asked_for(self, pair: Any) -> None:
        found = nnx.grad(total, argnums=nnx.DiffState(0, trainable(pair[1])))(pair[1])

        assert "l2" not in found

    def test_rows_4_and_5(self, pair: Any) -> None:
        assert gradient(total, pair[0]) == GRADIENT
        assert gradient(total, pair[1]) == {path: GRADIENT[path] for path in FREE}

    def test_rows_6_8_and_9(self, pair: Any) -> None:
        over_m1 = self.over_first(nnx.List(pair[::-1]), lambda pair: -self.difference(pair))
        over_m0 = self.over_first(pair, self.difference)

        assert over_m1.keys() == FREE
        assert not any(np.any(values) for values in over_m1.values())
        assert over_m1 == {path: over_m0[path] for path in FREE}

    def test_row_7_the_unfrozen_use_still_counts(self, pair: Any) -> None:
        over_m0 = self.over_first(pair, self.difference)

        assert {path: over_m0[path] for path in ALL - FREE} == {p: GRADIENT[p] for p in ALL - FREE}

    def test_both_models_built_inside_of_the_differentiated_function(self) -> None:
        def difference(layers: Any) -> jax.Array:
            l1, l2, l3 = layers
            return total(Chain(l1, l2, l3)) - total(Chain(l1, Frozen(l2), l3))

        found = gradient(difference, nnx.List(layers()))

        assert {path for path, values in found.items() if np.any(values)} == {"1.kernel", "1.bias"}
        assert found["1.kernel"] == GRADIENT["l2.kernel"]


class TestFrozenUse:
    def test_it_computes_what_the_layer_computes_and_is_open_to_the_input(self) -> None:
        model = Chain(*map(Frozen, layers()))

        assert model(X).tolist() == [[54.0]]
        assert jax.grad(lambda x: model(x).sum())(X).tolist() == [[8.0, 18.0]]

    def test_paths_types_and_values_are_those_of_the_unfrozen_model(self) -> None:
        l1, l2, l3 = layers()
        plain, model = nnx.state(Chain(l1, l2, l3)), nnx.state(Chain(l1, Frozen(l2), l3))

        assert named(model).keys() == named(plain).keys() == ALL
        assert {type(leaf) for leaf in named(model).values()} == {nnx.Param}
        assert all(named(model)[path] is leaf for path, leaf in named(plain).items())

    def test_it_is_an_instance_of_the_class_of_the_layer(self) -> None:
        use = Frozen(layers()[0])

        assert isinstance(use, nnx.Linear)
        assert isinstance(use, Frozen)
        assert repr(use).startswith("Frozen[Linear](")
        assert use.in_features == 2

    def test_twice_is_once(self) -> None:
        use = Frozen(layers()[0])

        assert Frozen(use) is use

    def test_it_sees_what_is_written_and_what_is_replaced(self) -> None:
        l1, l2, l3 = layers()
        model = Chain(l1, Frozen(l2), l3)
        l2.bias[...] = jnp.array([1.0, 1.0])
        l3.bias = nnx.Param(jnp.array([4.0]))
        l2.kernel = nnx.Param(jnp.array([[2.0, 0.0], [1.0, 0.0]]))

        # l1 gives [8, 11]
        assert model(X).tolist() == [[28.0 + 2.0 + 4.0]]

    def test_methods_and_what_is_below_are_frozen_too(self) -> None:
        trunk = Trunk()
        before = bits(trunk)

        def loss(trunk: Any) -> jax.Array:
            use = Frozen(trunk)
            below = use.linear(BATCH).sum() + jnp.square(use.norm.scale[...]).sum()
            return use.encode(BATCH).sum() + below

        found = nnx.grad(loss)(trunk)

        assert not any(np.any(values) for values in numbers(found).values())
        assert moved(trunk, before) == set()

    def test_data_of_a_use_can_be_written_outside_of_a_trace(self) -> None:
        layer = layers()[1]
        Frozen(layer).bias[...] = jnp.array([5.0, 6.0])

        assert layer.bias[...].tolist() == [5.0, 6.0]

    @pytest.mark.parametrize("call", [lambda use, x: use(x), nnx.jit(lambda use, x: use(x))])
    def test_nothing_in_it_moves_and_it_is_in_evaluation_mode(self, call: Callable[..., Any]) -> None:
        trunk = Trunk()
        use, before = Frozen(trunk), bits(trunk)
        trunk.eval()
        expected = trunk(BATCH)
        trunk.train()

        outputs = [call(use, BATCH) for _ in range(2)]

        assert [output.tolist() for output in outputs] == [expected.tolist()] * 2
        assert moved(trunk, before) == set()
        assert (trunk.norm.use_running_average, trunk.dropout.deterministic) == (False, False)

    @pytest.mark.parametrize("call", [lambda use, x: use(x), nnx.jit(lambda use, x: use(x))])
    def test_without_freezing_statistics_and_counts_move(self, call: Callable[..., Any]) -> None:
        """The negative control."""
        trunk = Trunk()
        before = bits(trunk)

        call(trunk, BATCH)

        assert moved(trunk, before) == {path.removeprefix("trunk.") for path in STATE}

    def test_the_same_module_trains_elsewhere(self) -> None:
        trunk = Trunk()
        model, other = Net(Frozen(trunk)), Net(trunk)
        before = bits(other)

        train(other)

        assert moved(other, before) == PARAMS | STATE
        assert bits(model.trunk) == bits(trunk)
        assert not trunk.norm.use_running_average

    @pytest.mark.parametrize("is_first", [True, False])
    def test_a_transformation_of_both_leaves_the_mode_as_it_says(self, is_first: bool) -> None:
        norm = Trunk().norm
        norm.eval()

        @nnx.jit
        def step(one: Any, other: Any) -> None:
            (other if is_first else one).train()

        step(*((Frozen(norm), norm) if is_first else (norm, Frozen(norm))))

        assert not norm.use_running_average
        assert Frozen(norm).scale is norm.scale

    def test_training_around_it(self) -> None:
        model = Net(Frozen(Trunk()))
        before = bits(model)

        train(model)

        assert moved(model, before) == HEAD

    def test_frozen_in_frozen_in_trainable(self) -> None:
        l1, l2, l3 = layers()
        inner = Chain(l2, Frozen(l2), l2)

        found = gradient(total, Chain(l1, Frozen(inner), l3))

        assert found.keys() == FREE

    def test_intermediates_are_handed_on(self) -> None:
        class Sowing(nnx.Module):
            def __init__(self) -> None:
                self.linear = layers()[0]

            def __call__(self, x: jax.Array) -> jax.Array:
                x = self.linear(x)
                self.sow(nnx.Intermediate, "features", x)
                return x

        _, found = nnx.capture(Frozen(Sowing()), nnx.Intermediate)(X)

        assert found["features"].get_value()[0].tolist() == [[8.0, 11.0]]

    def test_ensembles(self) -> None:
        layer = layers()[0]
        layer.kernel.set_value(jnp.stack([layer.kernel[...], 2 * layer.kernel[...]]))
        layer.bias.set_value(jnp.stack([layer.bias[...], layer.bias[...]]))

        outputs = nnx.vmap(lambda use, x: use(x), in_axes=(0, None))(Frozen(layer), X)

        assert outputs.tolist() == [[[8.0, 11.0]], [[15.0, 21.0]]]

    def test_containers(self) -> None:
        blocks, named_blocks = nnx.List(layers()), nnx.Dict(one=layers()[0])

        def loss(models: Any) -> jax.Array:
            uses, named_uses = Frozen(models[0]), Frozen(models[1])
            return sum(use(X).sum() for use in (*uses[:2], uses[0], named_uses["one"], *named_uses.values()))

        found = nnx.grad(loss)(nnx.List([blocks, named_blocks]))

        assert not any(np.any(values) for values in numbers(found).values())
        Frozen(blocks).append(layers()[0])
        assert len(blocks) == 4

    def test_split_and_merge_with_plain_jax(self) -> None:
        l1, l2, l3 = layers()
        model = Chain(l1, Frozen(l2), l3)
        structure, trained, rest = nnx.split(model, trainable(model), ...)

        found = jax.jit(jax.grad(lambda trained: total(nnx.merge(structure, trained, rest))))(trained)

        assert numbers(found) == {path: GRADIENT[path] for path in FREE}

    @pytest.mark.parametrize("copied", [copy.deepcopy, nnx.clone, lambda model: pickle.loads(pickle.dumps(model))])
    def test_copies_are_as_frozen(self, copied: Callable[[Any], Any]) -> None:
        model = copied(freeze(Net(Frozen(Trunk())), "head.bias"))
        before = bits(model)

        assert isinstance(model.trunk, Frozen)
        train(model)
        assert moved(model, before) == {"head.kernel"}

    def test_models_that_share_are_pickled_together(self) -> None:
        l1, l2, l3 = layers()

        m0, m1 = pickle.loads(pickle.dumps((Chain(l1, l2, l3), Chain(l1, Frozen(l2), l3))))

        assert m0.l2.kernel is m1.l2.kernel

    def test_what_is_no_module(self) -> None:
        with pytest.raises(LayerError) as caught:
            Frozen(list(layers()))
        assert str(caught.value) == (
            "Frozen(layer) holds a list, but a frozen use takes an nnx.Module.\n"
            "Freeze the modules of a container one by one: [Frozen(block) for block in blocks]."
        )

    def test_what_cannot_be_called(self) -> None:
        class Holder(nnx.Module):
            pass

        with pytest.raises(LayerError) as caught:
            Frozen(Holder())(X)
        assert str(caught.value) == (
            "Frozen(layer)(...) calls a Holder, which cannot be called.\n"
            "Call a method of it, such as use.encode(x), or define __call__ in its class."
        )


class TestFilter:
    @pytest.fixture
    def model(self) -> Chain:
        l1, l2, l3 = layers()
        return freeze(Chain(l1, Frozen(l2), l3), "l3.bias")

    def test_it_means_the_same_in_its_three_uses(self, model: Chain) -> None:
        free = {"l1.kernel", "l1.bias", "l3.kernel"}
        flt = trainable(model)

        _, trained, _ = nnx.split(model, flt, ...)
        optimizer = nnx.Optimizer(model, optax.sgd(0.1, momentum=0.9), wrt=flt)
        found = nnx.grad(total, argnums=nnx.DiffState(0, flt))(model)

        assert named(trained).keys() == named(found).keys() == free
        assert named(optimizer.opt_state[0].trace).keys() == free

    def test_state_is_allocated_for_what_trains_alone(self, model: Chain) -> None:
        def nbytes(flt: Any) -> int:
            moments = nnx.Optimizer(model, optax.adam(0.1), wrt=flt).opt_state[0]
            return sum(leaf.nbytes for leaf in jax.tree.leaves((moments.mu, moments.nu)))

        # of 15 parameters: 6 of l1 and 2 of l3; twice, of 4 bytes each
        assert (nbytes(trainable(model)), nbytes(nnx.Param)) == (64, 120)

    def test_it_is_a_value(self, model: Chain) -> None:
        assert trainable(model) == trainable(model)
        assert hash(trainable(model)) == hash(trainable(model))

    def test_a_variable_that_is_met_in_a_frozen_use_first(self) -> None:
        l1, l2, _ = layers()
        both = Chain(Frozen(l2), l1, l2)
        free = {"l1.kernel", "l1.bias", "l2.kernel", "l2.bias"}

        _, trained, rest = nnx.split(both, trainable(both), ...)

        # The layer at l3 is met at l1, in the frozen use.
        assert named(trained).keys() == free
        assert named(rest).keys() == set()
        assert plan(both).trainable == {"l2.kernel", "l2.bias", "l3.kernel", "l3.bias"}

    def test_two_variables_with_one_array_are_two(self) -> None:
        online = layers()[0]
        both = nnx.Dict(online=online, target=Frozen(nnx.clone(online)))

        assert online.kernel.get_raw_value() is both.target.kernel.get_raw_value()
        assert trainable(both).paths == {("online", "kernel"), ("online", "bias")}
        assert plan(both).frozen == {"target.kernel", "target.bias"}

    def test_nothing_left_to_train(self) -> None:
        l1, l2, l3 = layers()
        with pytest.raises(NothingTrainableError) as caught:
            trainable(freeze(Chain(l1, Frozen(l2), l3)))
        assert str(caught.value) == (
            "trainable(model) has nothing to train.\n"
            "All 6 parameters are frozen, 2 of them inside frozen uses.\n"
            'Thaw what is to be trained: tree = thaw(tree, "head").'
        )


class TestInPlace:
    def test_it_returns_the_model(self) -> None:
        model = Chain(*layers())

        assert freeze(model, "l1") is model
        assert thaw(model) is model
        assert follow(model, plan(model)) is model

    def test_what_is_frozen_has_no_gradient(self) -> None:
        model = freeze(Chain(*layers()), "**", "!l3")

        assert gradient(total, model) == {path: GRADIENT[path] for path in ("l3.kernel", "l3.bias")}

    @pytest.mark.parametrize("encode", [False, True])
    def test_a_module_that_is_frozen_whole_is_held(self, encode: bool) -> None:
        model = freeze(Net(Trunk()), "trunk")
        before = bits(model)

        train(model)
        if encode:
            model.trunk.encode(BATCH)

        assert moved(model, before) == HEAD
        assert model(BATCH).tolist() == model(BATCH).tolist()

    def test_modules_in_a_list_are_held_too(self) -> None:
        class Listed(nnx.Module):
            def __init__(self) -> None:
                self.blocks = nnx.List([Trunk().linear, Trunk().norm, Trunk().dropout])
                self.head = layers()[2]

            def __call__(self, x: jax.Array) -> jax.Array:
                for block in self.blocks:
                    x = block(x)
                return self.head(x)

        model = freeze(Listed(), "blocks")
        before = bits(model)

        train(model)

        assert moved(model, before) == HEAD

    def test_without_freezing_everything_moves(self) -> None:
        """The negative control."""
        model = Net(Trunk())
        before = bits(model)

        train(model)

        assert moved(model, before) == PARAMS | STATE

    def test_a_module_that_is_frozen_in_part_keeps_its_mode_and_statistics(self) -> None:
        model = freeze(Net(Trunk()), "trunk.linear", "trunk.norm.bias")
        before = bits(model)

        train(model)

        assert moved(model, before) == HEAD | STATE | {"trunk.norm.scale"}

    def test_a_module_without_parameters_that_is_used_elsewhere_is_not_held(self) -> None:
        model = Net(Trunk())
        model.dropout = model.trunk.dropout

        freeze(model, "trunk")

        assert type(model.dropout) is nnx.Dropout

    def test_an_item_that_is_frozen_leaves_the_items_of_a_dict_alone(self) -> None:
        items = nnx.Dict(w=nnx.Param(jnp.ones(2)), b=nnx.Param(jnp.ones(2)))

        assert sorted(freeze(items, "w")) == ["b", "w"]
        assert freeze(items, "b").keys() == {"b", "w"}

    def test_thawing_gives_back_classes_flags_and_structure(self) -> None:
        model = Net(Trunk())
        modules = [(module, type(module)) for _, module in nnx.iter_modules(model)]
        structure = nnx.graphdef(model)

        thaw(freeze(freeze(model, "trunk.linear"), "**.bias", "trunk"))

        assert [(module, type(module)) for _, module in nnx.iter_modules(model)] == modules
        assert nnx.graphdef(model) == structure

    def test_thawing_gives_back_training(self) -> None:
        one, other = Net(Trunk()), thaw(freeze(Net(Trunk()), "trunk"))

        train(one, steps=1)
        train(other, steps=1)

        assert bits(one) == bits(other)

    def test_plans_lead_from_any_to_any(self) -> None:
        model = Net(Trunk())
        before = plan(model)
        after = plan(freeze(model, "trunk"))

        assert after.frozen == PARAMS - HEAD
        assert plan(follow(model, before)) == before
        assert type(model.trunk) is Trunk
        assert plan(follow(model, after)) == after
        assert isinstance(model.trunk, Trunk)
        assert type(model.trunk) is not Trunk

    def test_the_types_and_metadata_of_variables_stay(self) -> None:
        model = Net(Trunk())
        before = {path: (type(leaf), leaf.get_metadata()) for path, leaf in named(nnx.state(model)).items()}

        freeze(model, "trunk", "head.bias")

        assert {path: (type(leaf), leaf.get_metadata()) for path, leaf in named(nnx.state(model)).items()} == before

    def test_an_older_checkpoint_thaws_nothing(self) -> None:
        model = Net(Trunk())
        checkpoint = copy.deepcopy(nnx.state(model))
        frozen = plan(freeze(model, "trunk", "head.bias"))

        nnx.update(model, checkpoint)

        assert plan(model) == frozen

    def test_objects_of_the_model(self) -> None:
        model = Chain(*layers())

        assert plan(freeze(model, model.l1, model.l2.bias)).frozen == {"l1.kernel", "l1.bias", "l2.bias"}
        assert plan(freeze(model, of_type(nnx.Linear))).trainable == set()
        assert plan(thaw(model, model.l1)).trainable == {"l1.kernel", "l1.bias"}

    def test_an_object_of_another_model(self) -> None:
        with pytest.raises(NoMatchError) as caught:
            freeze(Chain(*layers()), layers()[0])
        assert str(caught.value).splitlines()[:2] == [
            "<Linear> matches none of the 6 parameters.",
            "It is not, or no longer, part of this tree. Select it by name.",
        ]

    def test_a_typo_changes_nothing(self) -> None:
        model = Chain(*layers())

        with pytest.raises(NoMatchError) as caught:
            freeze(model, "l1", "l4.kernel")

        assert str(caught.value) == (
            "'l4.kernel' matches none of the 6 parameters.\n"
            "Closest paths:\n"
            "  l3.kernel\n"
            "  l2.kernel\n"
            "  l1.kernel\n"
            "Fix the pattern, or pass allow_empty=True if matching nothing is what you want."
        )
        assert plan(model).trainable == ALL
        assert type(model.l1) is nnx.Linear

    def test_tied(self) -> None:
        model = Chain(*layers())
        model.l2.kernel = model.l1.kernel

        with pytest.raises(TiedError):
            freeze(model, "l1", "!l2.kernel")
        assert plan(freeze(model, "l2.kernel")).frozen == {"l1.kernel"}
        assert gradient(total, model).keys() == ALL - {"l1.kernel", "l2.kernel"}

    def test_a_frozen_use_cannot_be_thawed(self) -> None:
        model = Chain(layers()[0], Frozen(layers()[1]), layers()[2])

        with pytest.raises(PinnedError):
            thaw(model, "l2")
        assert plan(thaw(model)).frozen == {"l2.kernel", "l2.bias"}

    def test_the_plan_of_another_model(self) -> None:
        with pytest.raises(PlanMismatchError):
            follow(Chain(*layers()), plan(layers()[0]))

    def test_a_container(self) -> None:
        with pytest.raises(LayerError) as caught:
            freeze(list(layers()), "[0]")
        assert str(caught.value) == (
            "freeze(model) got a list, but only an nnx.Module can be frozen in place.\n"
            "Call it with each module: freeze(module)."
        )

    def test_a_module_that_is_no_pytree(self) -> None:
        class Opaque(nnx.Module, pytree=False):
            def __init__(self) -> None:
                self.linear = layers()[1]

        with pytest.raises(UnsupportedError) as caught:
            trainable(Chain(layers()[0], Opaque(), layers()[2]))
        assert str(caught.value) == (
            "Opaque(...) is in the model but is not a pytree, so the leaves below it have no names.\n"
            "Define it without pytree=False: class Opaque(nnx.Module)."
        )

    def test_a_traced_model(self) -> None:
        with pytest.raises(UnsupportedError) as caught:
            nnx.jit(lambda model: freeze(model, "l1"))(Chain(*layers()))
        assert str(caught.value) == (
            "freeze(model) is called inside a transformation, where the model is a temporary copy without bytes.\n"
            "Call it outside: freeze(model) before step(model, batch)."
        )

    def test_one_trace_for_each_frozen_set(self) -> None:
        model, traces = Chain(*layers()), []

        @nnx.jit
        def step(model: Any) -> jax.Array:
            traces.append(plan(model).frozen)
            return total(model)

        for selectors in (["l1"], ["l2"], ["l1"], ["l2"]):
            step(freeze(thaw(model), *selectors))

        assert traces == [{"l1.kernel", "l1.bias"}, {"l2.kernel", "l2.bias"}]


class TestGuard:
    def test_it_watches_what_is_frozen_and_held(self) -> None:
        model = freeze(Net(Trunk()), "trunk")

        with guard(model) as watching:
            train(model)

        assert watching.paths == (PARAMS - HEAD) | STATE | {"trunk.dropout.rngs.key"}

    @pytest.mark.parametrize(("variable", "path"), [("scale", "trunk.norm.scale"), ("mean", "trunk.norm.mean")])
    def test_it_sees_what_is_written(self, variable: str, path: str) -> None:
        model = freeze(Net(Trunk()), "trunk")

        def write() -> None:
            with guard(model):
                getattr(model.trunk.norm, variable)[...] = jnp.array([3.0, 1.0])

        with pytest.raises(MovedError) as caught:
            write()
        assert [movement.path for movement in caught.value.moved] == [path]

    def test_a_frozen_copy_that_begins_with_the_same_arrays(self) -> None:
        online = layers()[0]
        both = Chain(online, Frozen(nnx.clone(online)), layers()[2])

        with guard(both) as watching:
            online.kernel[...] += 1

        assert watching.paths == {"l2.kernel", "l2.bias"}


def test_the_example(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    programs = recorded(monkeypatch)
    example = Path(__file__).parents[2] / "examples" / "nnx_finetuning.py"

    found = runpy.run_path(str(example))["main"]()

    # Neither weights nor data are constants of a program.
    assert max(map(longest_constant, programs)) < 20
    assert found["after"] > 0.8 > 0.5 > found["before"]
    assert found["still"] == {path for path in PARAMS | STATE if path.startswith("trunk.")} | {"trunk.dropout.rngs.key"}
    # two moments, of 4 bytes each
    assert found["optimizer bytes"] == 2 * 4 * (32 * 5 + 5)
    assert len(capsys.readouterr().out.splitlines()) == 2
