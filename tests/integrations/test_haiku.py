"""Haiku: frozen uses, and frozen modules of a model that is there."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

import frostline.jax as fj
from frostline import NoMatchError
from frostline._core.errors import LayerError
from frostline.errors import PlanMismatchError
from frostline.integrations.haiku import Frozen, held
from only_jax.bits import bits, moved
from only_jax.programs import longest_constant, recorded

EXAMPLE = Path(__file__).parents[2] / "examples" / "haiku_finetuning.py"
X = jnp.array([[1.0, 2.0]])
L2 = {"l2.w", "l2.b"}
FREE = {"l1.w", "l1.b", "l3.w", "l3.b"}


def plain(layer: Any) -> Any:
    return layer


def layers() -> tuple[hk.Linear, hk.Linear, hk.Linear]:
    return hk.Linear(2, name="l1"), hk.Linear(2, name="l2"), hk.Linear(1, name="l3")


def chain(of: Callable[[Any], Any]) -> hk.Transformed:
    def net(x: jax.Array) -> jax.Array:
        l1, l2, l3 = layers()
        return l3(of(l2)(l1(x)))

    return hk.without_apply_rng(hk.transform(net))


@hk.without_apply_rng
@hk.transform
def both(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    l1, l2, l3 = layers()
    return hk.Sequential([l1, l2, l3])(x), hk.Sequential([l1, Frozen(l2), l3])(x)


def params() -> dict[str, Any]:
    return {
        "l1": {"w": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "b": jnp.array([1.0, 1.0])},
        "l2": {"w": jnp.array([[2.0, 0.0], [1.0, 1.0]]), "b": jnp.array([0.0, 1.0])},
        "l3": {"w": jnp.array([[1.0], [2.0]]), "b": jnp.array([3.0])},
    }


FREE_GRADIENT = {"l1.w": [[2.0, 3.0], [4.0, 6.0]], "l1.b": [2.0, 3.0], "l3.w": [[27.0], [12.0]], "l3.b": [1.0]}
L2_GRADIENT = {"l2.w": [[8.0, 16.0], [11.0, 22.0]], "l2.b": [1.0, 2.0]}
L2_ZERO = {"l2.w": [[0.0, 0.0], [0.0, 0.0]], "l2.b": [0.0, 0.0]}
ZERO = {"l1.w": [[0.0, 0.0], [0.0, 0.0]], "l1.b": [0.0, 0.0], "l3.w": [[0.0], [0.0]], "l3.b": [0.0]}


def from_one_dict(params: Any) -> tuple[jax.Array, jax.Array]:
    return chain(plain).apply(params, X).sum(), chain(Frozen).apply(params, X).sum()


def from_shared_layers(params: Any) -> tuple[jax.Array, jax.Array]:
    one, other = both.apply(params, X)
    return one.sum(), other.sum()


def entries(gradient: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(fj.strip(gradient))
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf.tolist() for path, leaf in leaves}


@pytest.mark.parametrize("models", [from_one_dict, from_shared_layers])
class TestTheSeed:
    def test_what_the_frozen_use_holds_is_not_among_what_trains(self, models: Any) -> None:
        planned = fj.follow(params(), fj.audit(lambda p: models(p)[1], params()).plan)
        assert fj.trainable(planned).keys() == FREE
        assert fj.trainable(params()).keys() == FREE | L2

    def test_no_gradient_reaches_it_and_the_others_have_theirs(self, models: Any) -> None:
        planned = fj.follow(params(), fj.audit(lambda p: models(p)[1], params()).plan)
        gradient = fj.grad(lambda p: models(p)[1])(planned)
        assert fj.strip(gradient)["l2"] == {"w": None, "b": None}
        assert entries(gradient) == FREE_GRADIENT

    def test_jax_alone_gives_zeros(self, models: Any) -> None:
        assert entries(jax.grad(lambda p: models(p)[1])(params())) == FREE_GRADIENT | L2_ZERO
        assert entries(jax.grad(lambda p: models(p)[0])(params())) == FREE_GRADIENT | L2_GRADIENT

    def test_the_difference_is_seen_through_the_use_that_trains_alone(self, models: Any) -> None:
        def difference(p: Any) -> jax.Array:
            one, other = models(p)
            return one - other

        assert entries(fj.grad(difference)(params())) == ZERO | L2_GRADIENT
        assert fj.audit(difference, params()).reached >= L2
        # Over the parameters of the model with the frozen use.
        planned = fj.follow(params(), fj.audit(lambda p: models(p)[1], params()).plan)
        assert entries(fj.grad(difference)(planned)) == ZERO


class Block(hk.Module):
    """Makes a layer when it is made, and others when it is called."""

    def __init__(self, of: Any) -> None:
        super().__init__()
        self.of = of
        self.first = of(hk.Linear(2))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.of(hk.Linear)(2, name="named")(hk.Linear(3)(self.first(x)))


STYLES: dict[str, Callable[[Any], Callable[[jax.Array], jax.Array]]] = {
    "module": lambda of: lambda x: of(hk.Linear(2))(x),
    "class": lambda of: lambda x: hk.Linear(1)(of(hk.Linear)(2)(x)),
    "inside": lambda of: lambda x: Block(of)(x),
    "whole": lambda of: lambda x: hk.Linear(1)(of(Block(plain))(x)),
    "function": lambda of: lambda x: hk.Linear(1)(of(lambda x: jnp.tanh(hk.Linear(2)(x)))(x)),
    "sequence": lambda of: lambda x: hk.Sequential([hk.Linear(2), of(hk.Linear(2)), jax.nn.relu])(x),
    "nested": lambda of: lambda x: of(hk.Sequential([of(hk.Linear(2)), hk.nets.MLP([2, 2])]))(x),
    "remat": lambda of: lambda x: hk.remat(of(hk.remat(hk.Linear(2))))(hk.Linear(2)(x)),
    "by hand": lambda of: lambda x: of(lambda x: x * hk.get_parameter("scale", (), init=jnp.ones))(hk.Linear(2)(x)),
}


@pytest.mark.parametrize("style", STYLES)
class TestParametersAreThoseOfTheModelWithoutIt:
    def nets(self, style: str) -> tuple[hk.Transformed, hk.Transformed]:
        one, other = (hk.without_apply_rng(hk.transform(STYLES[style](of))) for of in (plain, Frozen))
        return one, other

    def test_names_and_first_values(self, style: str) -> None:
        one, other = (net.init(jax.random.key(0), X) for net in self.nets(style))
        assert jax.tree.structure(one) == jax.tree.structure(other)
        assert bits(one) == bits(other)

    def test_outputs_and_input_gradients_are_the_same_bytes(self, style: str) -> None:
        one, other = self.nets(style)
        params = one.init(jax.random.key(0), X)
        assert bits(other.apply(params, X)) == bits(one.apply(params, X))
        over_input = (jax.grad(lambda x, net=net: (net.apply(params, x) ** 2).sum())(X) for net in (one, other))
        assert len({value.tobytes() for value in map(np.asarray, over_input)}) == 1

    def test_something_in_it_is_frozen(self, style: str) -> None:
        """The negative control of the two above: a use that did nothing would pass them."""
        one, other = self.nets(style)
        params = one.init(jax.random.key(0), X)
        reached = [fj.audit(lambda p, net=net: net.apply(p, X).sum(), params).reached for net in (one, other)]
        assert reached[0] > reached[1]


ROWS = jnp.array([[1.0, 2.0], [3.0, 5.0], [0.0, 1.0]])
EMA = ("counter", "hidden", "average")


def stats_of(norm: str) -> set[str]:
    return {f"{norm}/~/{of}_ema.{name}" for of in ("mean", "var") for name in EMA}


class Net(hk.Module):
    """What has a mode, and what has state."""

    def __call__(self, x: jax.Array, *, is_training: bool) -> jax.Array:
        x = hk.BatchNorm(True, True, 0.9, name="norm")(x, is_training=is_training)
        x = hk.nets.MLP([2, 2])(x, dropout_rate=0.5 if is_training else None, rng=rng_of(is_training))
        return hk.dropout(hk.next_rng_key(), 0.5, x) if is_training else x


def rng_of(is_training: bool) -> Any:
    return hk.next_rng_key() if is_training else None


def model(of: Any) -> hk.TransformedWithState:
    def net(x: jax.Array, is_training: bool = True) -> jax.Array:
        x = of(Net(name="still"))(x, is_training=is_training)
        return hk.BatchNorm(True, True, 0.9, name="free")(x, is_training)

    return hk.transform_with_state(net)


KEY = jax.random.key(1)
STILL_STATS, FREE_STATS = stats_of("still/norm"), stats_of("free")


def after_training(net: hk.TransformedWithState) -> set[str]:
    params, state = model(plain).init(jax.random.key(0), 2 * ROWS)
    _, new = net.apply(params, state, KEY, ROWS)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    return moved(state, new)


class TestStill:
    def test_statistics_of_a_frozen_use_stay(self) -> None:
        assert after_training(model(Frozen)) == FREE_STATS

    def test_without_it_they_move(self) -> None:
        """The negative control."""
        assert after_training(model(plain)) == FREE_STATS | STILL_STATS

    def test_parameters_and_state_begin_as_without_it(self) -> None:
        one, other = (model(of).init(jax.random.key(0), ROWS) for of in (plain, Frozen))
        assert jax.tree.structure(one) == jax.tree.structure(other)
        assert bits(one) == bits(other)

    def test_they_stay_under_jit_and_grad(self) -> None:
        params, state = model(plain).init(jax.random.key(0), ROWS)

        def loss(params: Any) -> Any:
            out, new = model(Frozen).apply(params, state, KEY, ROWS)
            return (out**2).sum(), new

        gradient, new = jax.jit(jax.grad(loss, has_aux=True))(params)
        assert moved(state, new) == FREE_STATS
        assert {name.split("/")[0] for name, below in gradient.items() if any(v.any() for v in below.values())} == {
            "free"
        }

    def test_a_frozen_use_computes_what_the_model_computes_in_evaluation_mode(self) -> None:
        def net(of: Any) -> hk.TransformedWithState:
            return hk.transform_with_state(lambda x, **mode: of(Net())(x, **mode))

        params, state = net(plain).init(jax.random.key(0), ROWS, is_training=True)
        expected, _ = net(plain).apply(params, state, None, ROWS, is_training=False)
        assert bits(net(Frozen).apply(params, state, None, ROWS, is_training=True)[0]) == bits(expected)
        assert bits(net(Frozen).apply(params, state, None, ROWS)[0]) == bits(expected)
        assert bits(net(plain).apply(params, state, KEY, ROWS, is_training=True)[0]) != bits(expected)

    def test_the_rate_of_a_dropout_that_is_an_argument_is_zero(self) -> None:
        def net(x: jax.Array) -> jax.Array:
            return Frozen(hk.nets.MLP([2, 2]))(x, dropout_rate=0.5, rng=hk.next_rng_key())

        mlp = hk.transform(net)
        params = mlp.init(jax.random.key(0), X)
        evaluated = hk.transform(lambda x: hk.nets.MLP([2, 2])(x)).apply(params, None, X)
        assert bits(mlp.apply(params, KEY, X)) == bits(evaluated)

    def test_the_mode_of_a_function(self) -> None:
        def noisy(x: jax.Array, is_training: bool = True) -> jax.Array:
            return hk.dropout(hk.next_rng_key(), 0.5, x) if is_training else x

        for layer in (noisy, lambda x: hk.to_module(noisy)()(x, is_training=True)):
            net = hk.transform(lambda x, layer=layer: Frozen(layer)(x))
            assert net.apply({}, None, X).tolist() == X.tolist()

    def test_a_dropout_by_other_rules_is_left_to_its_author(self) -> None:
        """What is not promised: Haiku has no mode that could be set here."""
        net = hk.transform(lambda x: Frozen(lambda x: hk.dropout(hk.next_rng_key(), 0.5, x))(x))
        assert 0.0 in net.apply({}, KEY, jnp.ones(64)).tolist()

    def test_what_a_function_writes_by_its_own_rules_is_thrown_away(self) -> None:
        def count(x: jax.Array) -> jax.Array:
            calls = hk.get_state("calls", (), init=jnp.zeros) + 1
            hk.set_state("calls", calls)
            return x * calls

        @hk.transform_with_state
        def net(x: jax.Array) -> jax.Array:
            return Frozen(hk.to_module(count)("still"))(hk.to_module(count)("free")(x))

        state = {"still": {"calls": jnp.array(5.0)}, "free": {"calls": jnp.array(5.0)}}
        out, new = net.apply({}, state, None, jnp.ones(1))
        assert out.tolist() == [36.0]
        assert {name: calls["calls"].item() for name, calls in new.items()} == {"still": 5.0, "free": 6.0}

    def test_spectral_norm_stays(self) -> None:
        def net(of: Any) -> hk.TransformedWithState:
            return hk.transform_with_state(lambda x: of(hk.SpectralNorm())(x))

        matrix = jnp.array([[1.0, 2.0], [3.0, 5.0]])
        params, state = net(plain).init(jax.random.key(0), 2 * matrix)
        assert moved(state, net(Frozen).apply(params, state, None, matrix)[1]) == set()
        assert moved(state, net(plain).apply(params, state, None, matrix)[1]) == {
            "spectral_norm.u0",
            "spectral_norm.sigma",
        }


class TestWhatPassesThrough:
    def test_other_methods_and_state_of_the_module(self) -> None:
        class Coder(hk.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = hk.Linear(2)
                self.size = 3

            def encode(self, x: jax.Array) -> jax.Array:
                return hk.Linear(2, name="encoder")(x)

        @hk.without_apply_rng
        @hk.transform
        def net(x: jax.Array) -> jax.Array:
            use = Frozen(Coder())
            return use.inner(use.encode(hk.Linear(2)(x))).sum() * use.size

        found = fj.audit(net.apply, net.init(jax.random.key(0), X), X)
        assert found.reached == {"linear.w", "linear.b"}
        assert len(found.stopped) == 4

    def test_a_frozen_use_of_a_frozen_use_is_that_use(self) -> None:
        use = Frozen(jnp.tanh)
        assert Frozen(use) is use
        made = Frozen(hk.Linear)
        assert Frozen(made) is made

    def test_a_function_without_a_signature(self) -> None:
        assert hk.transform(lambda x: Frozen(max)(x, 3)).apply({}, None, 2) == 3

    def test_second_derivatives_and_vmap(self) -> None:
        def out(x: jax.Array) -> jax.Array:
            return (chain(Frozen).apply(params(), x) ** 2).sum()

        # The square of 8 x + 18 y + 10.
        assert jax.jit(jax.hessian(out))(X[0]).tolist() == [[128.0, 288.0], [288.0, 648.0]]
        assert jax.vmap(out)(jnp.stack([X, X])).tolist() == [2916.0, 2916.0]

    def test_layers_repeated_by_a_scan(self) -> None:
        def net(of: Any) -> hk.Transformed:
            return hk.without_apply_rng(
                hk.transform(lambda x: of(hk.experimental.layer_stack(3)(lambda x: hk.Linear(2)(x)))(x).sum())
            )

        params = net(plain).init(jax.random.key(0), X)
        assert fj.audit(net(Frozen).apply, params, X).reached == set()
        assert len(fj.audit(net(plain).apply, params, X).reached) == 2


class TestWhatIsNoModule:
    @pytest.mark.parametrize(("thing", "described"), [(None, "None"), ({"w": 1}, "a dict"), (X, None)])
    def test_the_whole_text(self, thing: Any, described: str | None) -> None:
        with pytest.raises(LayerError) as caught:
            Frozen(thing)
        assert str(caught.value) == (
            f"Frozen(layer) holds {described or 'a float32 array of shape (1, 2)'}, "
            "but a frozen use takes a module of Haiku or a function.\n"
            'Freeze parameters in place: params = frostline.jax.freeze(params, "encoder").'
        )


class TestInPlace:
    """Parameters are a dict, before and after."""

    def test_a_marked_dict_is_handed_to_apply(self) -> None:
        marked = fj.freeze(params(), "l2")
        assert chain(plain).apply(marked, X).tolist() == [[54.0]]
        gradient = jax.grad(lambda p: chain(plain).apply(p, X).sum())(marked)
        assert entries(gradient) == FREE_GRADIENT | L2_ZERO

    def test_the_gradient_is_absent_where_it_is_frozen(self) -> None:
        value, gradient = fj.value_and_grad(lambda p: chain(plain).apply(p, X).sum())(fj.freeze(params(), "l2"))
        assert value.item() == 54.0
        assert fj.strip(gradient)["l2"] == {"w": None, "b": None}
        assert entries(gradient) == FREE_GRADIENT

    def test_split_and_join(self) -> None:
        trained, rest = fj.split(fj.freeze(params(), "**", "!l3.b"))
        assert entries(trained) == {"l3.b": [3.0]}
        gradient = jax.grad(lambda t: chain(plain).apply(fj.join(t, rest), X).sum())(trained)
        assert entries(gradient) == {"l3.b": [1.0]}

    def test_a_checkpoint_of_the_stripped_tree_has_the_same_bytes(self) -> None:
        stripped = fj.strip(fj.freeze(params(), "l2"))
        assert type(stripped) is dict
        assert jax.tree.structure(stripped) == jax.tree.structure(params())
        assert serialization.to_bytes(stripped) == serialization.to_bytes(params())

    @pytest.mark.parametrize("selector", ["['mlp/~/linear_0'].w", "['mlp/~/linear_0']['w']", "mlp/~/linear_0.w"])
    def test_names_of_haiku_in_selectors(self, selector: str) -> None:
        mlp = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([2, 2])(x)))
        params = mlp.init(jax.random.key(0), X)
        assert fj.plan(fj.freeze(params, selector)).frozen == {"mlp/~/linear_0.w"}

    def test_a_name_that_is_none_is_an_error(self) -> None:
        with pytest.raises(NoMatchError, match=r"l2\.ww"):
            fj.freeze(params(), "l2.ww")


class TestHeld:
    def plan(self, *selectors: str) -> Any:
        return fj.plan(fj.freeze(model(plain).init(jax.random.key(0), ROWS)[0], *selectors))

    def test_state_of_modules_that_are_frozen_whole_stays(self) -> None:
        assert after_training(held(model(plain), self.plan("*still*"))) == FREE_STATS
        assert after_training(held(model(plain), self.plan())) == set()
        assert after_training(held(model(plain), self.plan("['still/norm']"))) == FREE_STATS

    def test_without_it_it_moves(self) -> None:
        """The negative control."""
        assert after_training(model(plain)) == FREE_STATS | STILL_STATS

    def test_that_of_modules_that_are_frozen_in_part_moves(self) -> None:
        plan = self.plan("['still/norm'].scale", "free.offset")
        assert after_training(held(model(plain), plan)) == FREE_STATS | STILL_STATS

    def test_they_are_in_evaluation_mode(self) -> None:
        params, state = model(plain).init(jax.random.key(0), ROWS)
        expected, _ = model(plain).apply(params, state, None, ROWS, is_training=False)
        out, _ = held(model(plain), self.plan()).apply(params, state, None, ROWS, is_training=True)
        assert bits(out) == bits(expected)

    def test_a_net_without_state(self) -> None:
        net = held(chain(plain), fj.plan(fj.freeze(params(), "l2")))
        assert net.apply(params(), X).tolist() == [[54.0]]
        assert jax.tree.structure(net.init(jax.random.key(0), X)) == jax.tree.structure(params())

    def test_what_is_written_by_other_rules_is_put_back(self) -> None:
        @hk.transform_with_state
        def net(x: jax.Array) -> jax.Array:
            hk.set_state("calls", hk.get_state("calls", (), init=jnp.zeros) + 1)
            return x * hk.get_parameter("scale", (), init=jnp.ones)

        params, state = net.init(None, X)
        assert held(net, fj.plan(fj.freeze(params))).apply(params, state, None, X)[1]["~"]["calls"].item() == 0.0
        assert net.apply(params, state, None, X)[1]["~"]["calls"].item() == 1.0

    def test_under_value_and_grad_and_jit(self) -> None:
        params, state = model(plain).init(jax.random.key(0), ROWS)

        @jax.jit
        def step(params: Any, state: Any) -> Any:
            net = held(model(plain), fj.plan(params))

            def loss(params: Any) -> Any:
                out, new = net.apply(params, state, KEY, ROWS)
                return (out**2).sum(), new

            (_, new), gradient = fj.value_and_grad(loss, has_aux=True)(params)
            return new, gradient

        new, gradient = step(fj.freeze(params, "*still*"), state)
        assert moved(state, new) == FREE_STATS
        assert entries(gradient).keys() == {"free.scale", "free.offset"}

    def test_a_plan_of_something_else_is_an_error(self) -> None:
        net = held(chain(plain), fj.plan({"l1": params()["l1"], "l9": params()["l2"]}))
        with pytest.raises(PlanMismatchError, match="2 missing, 4 unknown"):
            net.apply(params(), X)


def test_the_example_tunes_the_head_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = recorded(monkeypatch)
    assert EXAMPLE.read_text(encoding="utf-8").count("\n") <= 80
    found = runpy.run_path(str(EXAMPLE))["main"]()
    # Neither weights nor data are constants of a program.
    assert max(map(longest_constant, programs)) < 20
    assert found["accuracy after"] > 0.8 > found["accuracy before"]
    params, state = found["still"]
    assert params == {
        "encoder/linear": {"w": True, "b": True},
        "encoder/batch_norm": {"scale": True, "offset": True},
        "head": {"w": False, "b": False},
    }
    ema = {"counter": True, "hidden": True, "average": True}
    assert state == {"encoder/batch_norm/~/mean_ema": ema, "encoder/batch_norm/~/var_ema": ema}
