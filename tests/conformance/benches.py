"""The front ends under test, each a class with a few verbs. A bench may copy models and be slow."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

Numbers = Mapping[str, bytes]
"""Path -> the raw bytes of a tensor."""


class Bench(Protocol):
    """The operations of a front end that the suite needs.

    The standard net is three linear layers, 4 -> 3 -> 3 -> 2, with the names ``path(i, part)``,
    and numbers written out from a formula, the same in each framework. Models are opaque. Where
    something moves, the models are returned as they are then: the same objects, where they can be
    written to, and new ones where they are values.
    """

    name: str

    def layers(self) -> list[Any]:
        """The three linear layers of the standard net, new ones."""

    def chain(self, *layers: Any) -> Any:
        """A model that applies the layers one after the other."""

    def frozen(self, layer: Any) -> Any:
        """A frozen use of a layer."""

    def with_statistics(self) -> Any:
        """A chain of: linear, batch norm with running statistics, dropout, linear."""

    def tied(self) -> Any:
        """A chain of two linear layers 3 -> 3 that share one weight."""

    def path(self, position: int, part: str) -> str:
        """The name that this framework gives to a parameter of a chain."""

    def at(self, index: str) -> str:
        """The selector of layers of a chain; the index is written as in Python, ``[0]`` or ``[:2]``."""

    def freeze(self, model: Any, *selectors: Any, **options: Any) -> Any:
        """Freezes parameters and returns the model, which may be the same object."""

    def thaw(self, model: Any, *selectors: Any, **options: Any) -> Any:
        """Thaws parameters and returns the model, which may be the same object."""

    def plan(self, model: Any) -> Any:
        """The plan of the model."""

    def follow(self, model: Any, plan: Any) -> Any:
        """Applies a plan and returns the model."""

    def trainable(self, model: Any) -> set[str]:
        """The paths of the trainable parameters."""

    def values(self, model: Any) -> Numbers:
        """Every parameter and buffer of the model."""

    def output(self, model: Any) -> bytes:
        """What the model computes for the standard batch."""

    def input_gradient(self, model: Any) -> bytes:
        """The gradient of the sum of the output for the standard batch."""

    def gradient(self, terms: Sequence[tuple[float, Any]], of: Any) -> Mapping[str, list[float]]:
        """The gradient of the weighted sum of models over one model's trainable parameters.

        Only entries that exist: a parameter without a gradient has none.
        """

    def gradient_of_layer(self, terms: Sequence[tuple[float, Any]], layer: Any) -> list[Any]:
        """The same gradient with respect to a layer's own parameters, or ``None`` if it is absent."""

    def train(self, model: Any, *, steps: int, momentum_from: int = 0) -> Any:
        """Trains with an optimizer that moves frozen parameters: AdamW over everything, decay, old momentum."""

    def write(self, layer: Any, factor: float, *models: Any) -> Sequence[Any]:
        """Multiplies a layer's parameters by a factor without notice.

        Returns the models that share the layer.
        """

    def guarded(self, model: Any, act: Callable[[], Any]) -> Any:
        """Does ``act()``, which returns the model as it is then, inside a guard of the model."""


FRAMEWORKS = {"torch": "torch", "jax": "jax", "plan": "jax", "equinox": "equinox", "nnx": "flax"}
"""Bench -> the package that must be installed for it."""


def required() -> list[str]:
    """The required benches: a missing framework is a failure and never a skip."""
    return os.environ.get("FROSTLINE_BENCHES", " ".join(FRAMEWORKS)).split()


def bench_of(name: str) -> Bench:
    """The bench of that name; raises an error if its framework is missing."""
    if importlib.util.find_spec(FRAMEWORKS.get(name, name)) is None:
        raise ModuleNotFoundError(f"FROSTLINE_BENCHES asks for {name!r}, which is not installed")
    module = importlib.import_module(f"conformance.bench_{name}")
    bench: Bench = module.bench
    return bench
