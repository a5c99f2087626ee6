"""The laws that a lean model could break, in PyTorch and in JAX."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest
import torch
from torch import nn

import frostline.jax as fj
import frostline.torch as ft
from conformance.twins import NETS, Twins
from frostline.errors import NothingFrozenError
from frostline.torch._lean import slim as _slim
from only_torch.lean.slimmed import slimmed

FROZEN = {
    "mlp": ("second", "third"),
    "conv": ("second", "third"),
    "attention": ("one.o", "two.{q,k,v}"),
}
TRAINED = {
    "mlp": {"first.weight", "first.bias", "last.weight", "last.bias"},
    "conv": {"first.weight", "first.bias", "last.weight", "last.bias"},
    "attention": {f"{name}.{part}" for name in ("one.q", "one.k", "one.v", "two.o") for part in ("weight", "bias")},
}
# Of what is kept, what is dropped or smaller: of ReLUs in front of frozen layers, masks; of frozen convolutions, their
# inputs; of the pooling, what it reads and its positions. Products of activations need both of them.
SLIM: dict[str, dict[str, int]] = {
    "mlp": {"ReluBackward0.result": 2},
    "conv": {
        "ReluBackward0.result": 3,
        "ConvolutionBackward0.input": 2,
        "MaxPool2DWithIndicesBackward0.self": 1,
        "MaxPool2DWithIndicesBackward0.result1": 1,
    },
    "attention": {},
}
ADAMW = fj.optimizer(optax.adamw(0.01, weight_decay=0.1))
each = pytest.mark.parametrize("net", NETS)


def bits(values: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {path: value.detach().numpy().tobytes() for path, value in values.items()}


@pytest.fixture(autouse=True)
def _small_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this, lean would not change small tensors."""
    monkeypatch.setattr(_slim, "SMALL", 0)


class TestInTorch:
    def results(self, model: nn.Module, twins: Twins) -> dict[str, bytes]:
        """The output, and its gradients with respect to the input and to each parameter that has one."""
        model.zero_grad()
        x = twins.tensor.clone().requires_grad_()
        output = model(x)
        output.square().sum().backward()
        found = {path: p.grad for path, p in model.named_parameters() if p.grad is not None}
        return bits({"output": output, "input": x.grad, **found})

    @each
    def test_outputs_and_gradients_have_equal_bytes(self, net: str) -> None:
        twins = Twins.of(net, *FROZEN[net])
        plain = self.results(twins.model, twins)
        with ft.lean(twins.model):
            lean = self.results(twins.model, twins)
        assert lean == plain == self.results(twins.model, twins)
        assert plain.keys() == {"output", "input"} | TRAINED[net]

    def train(self, twins: Twins, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            twins.model.train()
            optimizer.zero_grad(set_to_none=False)
            twins.model(twins.tensor).square().mean().backward()
            optimizer.step()

    @each
    def test_a_blind_routine_moves_only_trainable_parameters(self, net: str) -> None:
        """AdamW over everything, with weight decay and momentum from before the freeze; then the model is thawed."""
        after = []
        for is_lean in (True, False):
            twins = Twins.of(net)
            optimizer = torch.optim.AdamW(twins.model.parameters(), lr=0.01, weight_decay=0.1)
            self.train(twins, optimizer, 2)
            frozen = ft.freeze(twins.model, *FROZEN[net])
            handle = ft.lean(twins.model) if is_lean else None
            before = bits(twins.model.state_dict())
            self.train(twins, optimizer, 3)
            now = bits(twins.model.state_dict())
            assert {path for path in now if now[path] != before[path]} == TRAINED[net]
            frozen.undo()
            self.train(twins, optimizer, 1)
            thawed = bits(twins.model.state_dict())
            assert all(thawed[path] != now[path] for path in now)
            if handle is not None:
                handle.undo()
            self.train(twins, optimizer, 1)
            after.append(bits(twins.model.state_dict()))
        assert after[0] == after[1]

    @pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
    def test_lean_and_freezing_are_undone_in_any_order(self, order: tuple[int, ...]) -> None:
        twins, untouched = Twins.of("conv"), Twins.of("conv")
        handles: list[Any] = [ft.freeze(twins.model, "second"), ft.lean(twins.model), ft.freeze(twins.model, "third")]
        for number in order:
            handles[number].undo()
            assert self.results(twins.model, twins)["output"] == self.results(untouched.model, untouched)["output"]
        assert self.results(twins.model, twins) == self.results(untouched.model, untouched)
        assert slimmed(twins.model(twins.tensor)) == {}

    @each
    def test_the_model_is_lean(self, net: str) -> None:
        """Positive control: lean keeps other tensors, so the tests above test something."""
        twins = Twins.of(net, *FROZEN[net])
        assert slimmed(twins.model(twins.tensor)) == {}
        with ft.lean(twins.model):
            assert slimmed(twins.model(twins.tensor)) == SLIM[net]
        assert slimmed(twins.model(twins.tensor)) == {}


def smooth(tree: Any, x: jax.Array) -> jax.Array:
    """The MLP with an activation for which JAX keeps more than a mask."""
    for name in ("first", "second", "third"):
        x = jax.nn.gelu(x @ tree[name]["weight"].T + tree[name]["bias"])
    return x @ tree["last"]["weight"].T + tree["last"]["bias"]


FNS: dict[str, Callable[..., Any]] = {"mlp": smooth, "attention": NETS["attention"][1]}
# Plain and lean. mlp: five tensors of 512 bytes for a gelu, and one at the limit; what the last layer reads, 512, and
# transposed weights, 576. attention: 16 tensors of 256 bytes, and the sums of two softmaxes, 128 each.
KEPT = {"mlp": [15 * 512 + 512 + 576, 3 * 512 + 512 + 576], "attention": [16 * 256 + 256, 16 * 256]}
in_jax = pytest.mark.parametrize("net", FNS)


class TestInJax:
    def results(self, fn: Callable[..., Any], twins: Twins, tree: Any) -> dict[str, bytes]:
        """As above, but one operation at a time, because a compiled function may round differently."""

        def loss(tree: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            output = fn(tree, x)
            return (output**2).sum(), output

        (_, output), gradient = fj.value_and_grad(loss, has_aux=True)(tree, twins.array)
        of_input = jax.grad(lambda x: loss(fj.strip(tree), x)[0])(twins.array)
        found = {"output": output, "input": of_input, **_named(gradient)}
        return {path: np.asarray(leaf).tobytes() for path, leaf in found.items()}

    @in_jax
    def test_outputs_and_gradients_have_equal_bytes(self, net: str) -> None:
        twins = Twins.of(net, *FROZEN[net])
        plain = self.results(FNS[net], twins, twins.tree)
        lean = self.results(fj.lean(FNS[net]), twins, twins.tree)
        assert lean == plain
        assert plain.keys() == {"output", "input"} | TRAINED[net]

    def train(self, fn: Callable[..., Any], twins: Twins, tree: Any, state: Any, steps: int) -> tuple[Any, Any]:
        for _ in range(steps):
            gradient = fj.grad(lambda tree, x: (fn(tree, x) ** 2).mean())(tree, twins.array)
            updates, state = ADAMW.update(gradient, state, tree)
            trained, rest = fj.split(tree)
            tree = fj.join(optax.apply_updates(trained, updates), rest)
        return tree, state

    @in_jax
    def test_an_optimizer_moves_only_trainable_parameters(self, net: str) -> None:
        """AdamW with weight decay and momentum from before the freeze; then the model is thawed."""
        after = []
        for wrapped in (fj.lean, lambda fn: fn):
            twins = Twins.of(net)
            tree, state = self.train(FNS[net], twins, twins.tree, ADAMW.init(twins.tree), 1)
            tree = fj.freeze(tree, *FROZEN[net])
            before = _bits(tree)
            tree, state = self.train(wrapped(FNS[net]), twins, tree, state, 2)
            now = _bits(tree)
            assert {path for path in now if now[path] != before[path]} == TRAINED[net]
            tree, _ = self.train(FNS[net], twins, fj.thaw(tree), state, 1)
            thawed = _bits(tree)
            assert all(thawed[path] != now[path] for path in now)
            after.append(thawed)
        assert after[0] == after[1]

    def test_a_thawed_model_is_refused(self) -> None:
        twins = Twins.of("mlp", *FROZEN["mlp"])
        with pytest.raises(NothingFrozenError):
            fj.grad(lambda tree, x: fj.lean(twins.fn)(tree, x).sum())(fj.thaw(twins.tree), twins.array)

    @in_jax
    def test_the_model_is_lean(self, net: str) -> None:
        """Positive control: lean keeps fewer bytes."""
        twins = Twins.of(net, *FROZEN[net])
        kept = [fj.cost(fn, twins.tree, twins.array).now.saved_bytes for fn in (FNS[net], fj.lean(FNS[net]))]
        assert kept == KEPT[net]


def _named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator=".").strip("."): leaf for path, leaf in leaves}


def _bits(tree: Any) -> dict[str, bytes]:
    return {path: np.asarray(leaf).tobytes() for path, leaf in _named(fj.strip(tree)).items()}
