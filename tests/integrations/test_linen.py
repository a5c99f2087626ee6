"""Flax linen: frozen uses, and frozen modules of a model that is there."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import frostline.jax as fj
from frostline._core.errors import LayerError
from frostline.integrations.linen import Frozen
from only_jax.bits import bits
from only_jax.programs import longest_constant, recorded

EXAMPLE = Path(__file__).parents[2] / "examples" / "linen_finetuning.py"
Of = Callable[[nn.Module], nn.Module]
X = jnp.array([[1.0, 2.0]])
L2 = {"l2.kernel", "l2.bias"}
FREE = {"l1.kernel", "l1.bias", "l3.kernel", "l3.bias"}


def plain(layer: nn.Module) -> nn.Module:
    return layer


class Chain(nn.Module):
    l1: nn.Module
    l2: nn.Module
    l3: nn.Module

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.l3(self.l2(self.l1(x)))


class Both(nn.Module):
    """The two models in one: they share layers."""

    def setup(self) -> None:
        self.l1, self.l2, self.l3 = nn.Dense(2), nn.Dense(2), nn.Dense(1)
        self.still = Frozen(self.l2)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.l3(self.l2(self.l1(x))), self.l3(self.still(self.l1(x)))


def chain(of: Of) -> Chain:
    return Chain(nn.Dense(2), of(nn.Dense(2)), nn.Dense(1))


def params() -> dict[str, Any]:
    return {
        "l1": {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "bias": jnp.array([1.0, 1.0])},
        "l2": {"kernel": jnp.array([[2.0, 0.0], [1.0, 1.0]]), "bias": jnp.array([0.0, 1.0])},
        "l3": {"kernel": jnp.array([[1.0], [2.0]]), "bias": jnp.array([3.0])},
    }


FREE_GRADIENT = {
    "l1.kernel": [[2.0, 3.0], [4.0, 6.0]],
    "l1.bias": [2.0, 3.0],
    "l3.kernel": [[27.0], [12.0]],
    "l3.bias": [1.0],
}
L2_GRADIENT = {"l2.kernel": [[8.0, 16.0], [11.0, 22.0]], "l2.bias": [1.0, 2.0]}
ZERO = {
    "l1.kernel": [[0.0, 0.0], [0.0, 0.0]],
    "l1.bias": [0.0, 0.0],
    "l3.kernel": [[0.0], [0.0]],
    "l3.bias": [0.0],
}


def from_one_dict(params: Any) -> tuple[jax.Array, jax.Array]:
    one, other = (chain(of).apply({"params": params}, X) for of in (plain, Frozen))
    return one.sum(), other.sum()


def from_shared_layers(params: Any) -> tuple[jax.Array, jax.Array]:
    one, other = Both().apply({"params": params}, X)
    return one.sum(), other.sum()


def from_uses_where_they_are_called(params: Any) -> tuple[jax.Array, jax.Array]:
    def both(model: Chain, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return model(x), model.l3(Frozen(model.l2)(model.l1(x)))

    one, other = nn.apply(both, chain(plain))({"params": params}, X)
    return one.sum(), other.sum()


def entries(gradient: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(fj.strip(gradient))
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf.tolist() for path, leaf in leaves}


@pytest.mark.parametrize("models", [from_one_dict, from_shared_layers, from_uses_where_they_are_called])
class TestTheSeed:
    def test_what_the_frozen_use_holds_is_not_among_what_trains(self, models: Any) -> None:
        planned = fj.follow(params(), fj.audit(lambda p: models(p)[1], params()).plan)
        assert fj.trainable(planned).keys() == FREE
        assert fj.trainable(params()).keys() == FREE | L2

    def test_no_gradient_reaches_it_and_the_others_have_theirs(self, models: Any) -> None:
        planned = fj.follow(params(), fj.audit(lambda p: models(p)[1], params()).plan)
        gradient = fj.grad(lambda p: models(p)[1])(planned)
        assert fj.strip(gradient)["l2"] == {"kernel": None, "bias": None}
        assert entries(gradient) == FREE_GRADIENT

    def test_jax_alone_gives_zeros(self, models: Any) -> None:
        zero = {"l2.kernel": [[0.0, 0.0], [0.0, 0.0]], "l2.bias": [0.0, 0.0]}
        assert entries(jax.grad(lambda p: models(p)[1])(params())) == FREE_GRADIENT | zero
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


class Compact(nn.Module):
    of: Of

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(2)(self.of(nn.Dense(3, name="mid"))(self.of(nn.Dense(2))(nn.Dense(3)(x))))


class Setup(nn.Module):
    of: Of

    def setup(self) -> None:
        self.encoder = self.of(nn.Dense(3))
        self.layers = [self.of(nn.Dense(2)), nn.Dense(2)]
        self.named = {"a": self.of(Compact(plain))}

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.named["a"](self.layers[1](self.layers[0](self.encoder(x))))


class OfClasses(nn.Module):
    of: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(2)(self.of(partial(nn.Dense, use_bias=False))(3, name="y")(self.of(nn.Dense)(2)(x)))


class Twice(nn.Module):
    """One layer used in two lists, and which is called first."""

    one: Any
    other: Any

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in (*self.one, *self.other):
            x = layer(x)
        return x


def twice(of: Of, *, frozen_first: bool) -> Twice:
    layer = nn.Dense(2)
    uses = ([nn.Dense(2), layer], [of(layer), nn.Dense(2)])
    return Twice(*reversed(uses)) if frozen_first else Twice(*uses)


class Rematerialised(nn.Module):
    of: Of

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.remat(nn.Sequential)([nn.Dense(2), self.of(nn.Dense(2)), self.of(nn.remat(nn.Dense)(2))])(x)


class Scanned(nn.Module):
    of: Of

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scan = nn.scan(Step, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        return scan(self.of, name="steps")(x, None)[0]


class Step(nn.Module):
    of: Of

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return nn.Dense(2)(self.of(nn.Dense(2))(x)), None


class Recurrent(nn.Module):
    of: Of

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(2)(nn.RNN(self.of(nn.SimpleCell(2)))(x[None]))


STYLES: dict[str, Callable[[Any], nn.Module]] = {
    "root": lambda of: of(nn.Dense(2)),
    "field": chain,
    "list": lambda of: nn.Sequential([nn.Dense(2), of(nn.Dense(2)), nn.relu, of(nn.Sequential([nn.Dense(1)]))]),
    "compact": Compact,
    "setup": Setup,
    "classes": OfClasses,
    "shared": partial(twice, frozen_first=False),
    "shared, frozen first": partial(twice, frozen_first=True),
    "remat": Rematerialised,
    "scan": Scanned,
    "cell": Recurrent,
    "nested": lambda of: of(nn.Sequential([of(nn.Dense(2)), nn.Dense(2)])),
}


@pytest.mark.parametrize("style", STYLES)
class TestVariablesAreThoseOfTheModelWithoutIt:
    def test_names_and_first_values(self, style: str) -> None:
        one, other = (STYLES[style](of).init(jax.random.key(0), X) for of in (plain, Frozen))
        assert jax.tree.structure(one) == jax.tree.structure(other)
        assert bits(one) == bits(other)

    def test_outputs_and_input_gradients_are_the_same_bytes(self, style: str) -> None:
        one, other = (STYLES[style](of) for of in (plain, Frozen))
        variables = one.init(jax.random.key(0), X)
        assert bits(other.apply(variables, X)) == bits(one.apply(variables, X))
        over_input = (jax.grad(lambda x, m=m: (m.apply(variables, x) ** 2).sum())(X) for m in (one, other))
        assert len({value.tobytes() for value in map(np.asarray, over_input)}) == 1

    def test_something_in_it_is_frozen(self, style: str) -> None:
        """The negative control of the two above: a use that did nothing would pass them."""
        variables = STYLES[style](plain).init(jax.random.key(0), X)

        def reached(of: Of) -> frozenset[str]:
            return fj.audit(lambda v: (STYLES[style](of).apply(v, X) ** 2).sum(), variables).reached

        if style.startswith("shared"):
            assert reached(plain) == reached(Frozen)
        else:
            assert reached(plain) > reached(Frozen)


class TestWhatPassesThrough:
    def test_other_methods_of_the_layer_are_frozen_too(self) -> None:
        class Tied(nn.Module):
            def setup(self) -> None:
                self.embed = Frozen(nn.Embed(3, 2))
                self.head = nn.Dense(2)

            def __call__(self, tokens: jax.Array) -> jax.Array:
                x = self.head(self.embed(tokens))
                by_hand = self.embed.variables["params"]["embedding"].sum()
                by_hand += self.embed.get_variable("params", "embedding").sum()
                return self.embed.attend(x) + by_hand * self.embed.features

        variables = Tied().init(jax.random.key(0), jnp.arange(3))
        assert jax.tree.structure(variables["params"]["embed"]) == jax.tree.structure({"embedding": 0})
        found = fj.audit(lambda p: Tied().apply({"params": p}, jnp.arange(3)).sum(), variables["params"])
        assert found.reached == {"head.kernel", "head.bias"}
        assert found.stopped == {"embed.embedding"}

    def test_layers_below_a_use_are_frozen_uses(self) -> None:
        def below(model: nn.Module, x: jax.Array) -> jax.Array:
            use = Frozen(model)
            return use.l2(use.l1(x)) + model.l3(x)

        def loss(params: Any) -> jax.Array:
            return nn.apply(below, chain(plain))({"params": params}, X).sum()

        assert fj.audit(loss, params()).stopped == {"l1.kernel", "l1.bias", "l2.kernel", "l2.bias"}

    def test_a_frozen_use_of_a_frozen_use_is_that_use(self) -> None:
        use = Frozen(nn.Dense(2))
        assert Frozen(use) is use
        assert Frozen(Frozen(nn.Dense))(2) == use

    def test_what_is_sown_is_kept(self) -> None:
        class Sows(nn.Module):
            @nn.compact
            def __call__(self, x: jax.Array) -> jax.Array:
                self.sow("losses", "square", (x**2).sum())
                return nn.Dense(2)(x)

        class Model(nn.Module):
            @nn.compact
            def __call__(self, x: jax.Array) -> jax.Array:
                return Frozen(Sows())(nn.Dense(2)(x))

        variables = Model().init(jax.random.key(0), X)

        def loss(params: Any) -> jax.Array:
            return Model().apply({"params": params}, X, mutable=["losses"])[1]["losses"]["Sows_0"]["square"][0]

        assert fj.audit(loss, variables["params"]).reached == {"Dense_0.kernel", "Dense_0.bias"}

    def test_a_cache_moves_on(self) -> None:
        model = Frozen(nn.MultiHeadDotProductAttention(1, decode=True))
        variables = model.init(jax.random.key(0), jnp.ones((1, 3, 2)))
        _, new = model.apply(variables, jnp.ones((1, 1, 2)), mutable=["cache"])
        assert new["cache"]["cache_index"].item() == 1

    def test_what_captures_calls_sees_those_of_the_layer(self) -> None:
        one, other = (chain(of).apply({"params": params()}, X, capture_intermediates=True)[1] for of in (plain, Frozen))
        assert jax.tree.structure(one) == jax.tree.structure(other)
        assert bits(one) == bits(other)

    def test_gradients_of_perturbations_are_there(self) -> None:
        class Perturbed(nn.Module):
            @nn.compact
            def __call__(self, x: jax.Array) -> jax.Array:
                return self.perturb("out", nn.Dense(2)(x)).sum()

        model = Frozen(Perturbed())
        variables = model.init(jax.random.key(0), X)
        gradient = jax.grad(lambda variables: model.apply(variables, X))(variables)
        assert gradient["perturbations"]["out"].tolist() == [[1.0, 1.0]]
        assert gradient["params"]["Dense_0"]["bias"].tolist() == [0.0, 0.0]

    def test_second_derivatives_and_vmap(self) -> None:
        def out(x: jax.Array) -> jax.Array:
            return (chain(Frozen).apply({"params": params()}, x) ** 2).sum()

        # The square of 8 x + 18 y + 10.
        assert jax.jit(jax.hessian(out))(X[0]).tolist() == [[128.0, 288.0], [288.0, 648.0]]
        assert jax.vmap(out)(jnp.stack([X, X])).tolist() == [2916.0, 2916.0]


class TestWhatIsNoModule:
    @pytest.mark.parametrize(
        ("thing", "described"), [(None, "None"), ({"w": 1}, "a dict"), (jnp.tanh, "a PjitFunction"), (int, "a type")]
    )
    def test_the_whole_text(self, thing: Any, described: str) -> None:
        with pytest.raises(LayerError) as caught:
            Frozen(thing)
        assert str(caught.value) == (
            f"Frozen(layer) holds {described}, but a frozen use takes a module of linen.\n"
            'Freeze parameters in place: params = frostline.jax.freeze(params, "encoder").'
        )


def test_the_example_tunes_the_head_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = recorded(monkeypatch)
    assert EXAMPLE.read_text(encoding="utf-8").count("\n") <= 80
    found = runpy.run_path(str(EXAMPLE))["main"]()
    # Neither weights nor data are constants of a program.
    assert max(map(longest_constant, programs)) < 20
    assert found["accuracy after"] > 0.8 > found["accuracy before"]
    assert found["still"] == {
        "params": {
            "encoder": {"Dense_0": {"kernel": True, "bias": True}, "BatchNorm_0": {"scale": True, "bias": True}},
            "head": {"kernel": False, "bias": False},
        },
        "batch_stats": {"encoder": {"BatchNorm_0": {"mean": True, "var": True}}},
    }
