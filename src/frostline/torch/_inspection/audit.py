"""The audit of a loss: which parameters of a model it can move, read from a run without data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, final

import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.utils._python_dispatch import TorchDispatchMode

from frostline._core.audit import Audit
from frostline._core.errors import UnsupportedError
from frostline.torch._autograd.fake_copy import FakeTensors, fake_copy
from frostline.torch._autograd.integers import run
from frostline.torch._freezing.freezing import plan_of
from frostline.torch._freezing.survey import survey
from frostline.torch._tensors import storage_identity, storages, tensors


def audit(model: nn.Module, *example: Any, loss: Callable[[Any], torch.Tensor] | None = None, **keywords: Any) -> Audit:
    """Returns which parameters of a model can receive a gradient of a loss at all.

    The model runs on tensors with a shape and without data, so nothing is computed, and nothing in the model, its
    gradients, its modes or the random numbers changes. A gradient that merely happens to be zero counts as one. A
    ``detach`` or a ``no_grad`` on the way stops it, also in code of others.

    Args:
        model: the model, as it will be trained.
        *example: the arguments of a call. Tensors may be real, fake, or on the meta device.
        loss: a function from the output of the model to the value to differentiate; by default the sum of all
            floating outputs.
        **keywords: the keyword arguments of a call.

    Raises:
        UnsupportedError: the model reads values of tensors while it runs, or has an attribute that cannot be copied.

    Example:
        >>> class Probe(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.body, self.head, self.spare = nn.Linear(2, 2), nn.Linear(2, 1), nn.Linear(2, 2)
        ...     def forward(self, x):
        ...         return self.head(self.body(x).detach())
        >>> print(audit(Probe(), torch.ones(3, 2)))
        2 of 6 parameters can receive a gradient.
        reached: 2
          head.bias
          head.weight
        stopped: 2
          body.bias
          body.weight
        unused: 2
          spare.bias
          spare.weight
        No gradient comes to 4 that are trainable: an optimizer would only let them decay.
        Freeze them: follow(model, audit.plan).
    """
    read = survey(model)
    fake = FakeTensors(example, keywords, list(read.root.parameters()))
    made = fake_copy(read.root, fake, expression="audit(model, ...)")
    parts = dict(made.named_modules(remove_duplicate=False))
    places = {path: parts[path.rpartition(".")[0]]._parameters[path.rpartition(".")[2]] for path in read.parameters}
    dependence = _Dependence(places)
    args, kwargs = fake.all_of((example, keywords))
    try:
        with fake.without_data(), dependence, torch.enable_grad():
            output = made(*args, **kwargs)
            value = _sum(output) if loss is None else loss(output)
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise UnsupportedError(
            "audit(model, ...)",
            f"cannot run {type(read.root).__name__} without data, because it reads the values of a tensor: {error}.",
            "Audit the part that does not: audit(model.part, ...).",
        ) from error
    leaves = {id(leaf) for leaf in _leaves(value)}
    reached = frozenset(path for path, parameter in places.items() if id(parameter) in leaves)
    stopped = dependence.of(value) - reached
    frozen = plan_of(read).frozen & places.keys()
    return Audit(reached, stopped, frozenset(places) - reached - stopped, frozen, "follow(model, audit.plan)")


def _sum(output: Any) -> torch.Tensor:
    floating = [t for t in tensors(output) if t.is_floating_point() or t.is_complex()]
    return torch.stack([t.sum().real if t.is_complex() else t.sum() for t in floating]).sum()


def _leaves(value: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yields the tensors to which a backward would add a gradient."""
    seen: set[Any] = set()
    waiting = [value.grad_fn]
    if value.grad_fn is None and value.requires_grad:
        yield value
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting.extend(below for below, _ in node.next_functions)


@final
class _Dependence(TorchDispatchMode):
    """Notes from which parameters each storage was computed."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        super().__init__()
        self._sources: defaultdict[int, frozenset[str]] = defaultdict(frozenset)
        self._alive: list[Any] = []
        for path, parameter in parameters.items():
            self._add(parameter, frozenset({path}))

    def of(self, *values: Any) -> frozenset[str]:
        """Returns the parameters on which values depend."""
        found = (self._sources[storage_identity(s)] for tensor in tensors(values) for s in storages(tensor))
        return frozenset().union(*found)

    def _add(self, value: Any, sources: frozenset[str]) -> None:
        for tensor in tensors(value):
            for storage in storages(tensor):
                self._sources[storage_identity(storage)] |= sources
                self._alive.append(storage)  # so that its identity stays its own

    def __torch_dispatch__(
        self, kernel: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = run(kernel, args, kwargs or {})
        self._add(result, self.of(args, kwargs or {}))
        return result
