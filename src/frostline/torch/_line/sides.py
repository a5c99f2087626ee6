"""The two sides of a line, and the model's own tensors in each, under the model's own names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import fx, nn

from frostline._core.errors import LineError
from frostline._core.errors.base import counted
from frostline.features.boundary import Boundary
from frostline.torch._line.inputs import Inputs
from frostline.torch._tensors import storage_identity, storages
from frostline.torch._uses.use import Frozen

BELOW, ABOVE = 0, 1
CUT = 'Say where to cut, by the path of a module: frostline(model, *example, at="layer3").'


class Sides(ABC):
    """Computes both sides of a line.

    Args:
        model: the model.
        inputs: an example of its inputs.
        expression: the user's own call, for errors.

    Attributes:
        boundary: the values that cross the line, of one sample.
        identity: the part below as a text that is equal for every batch size.
        rewritten: the names of functions with a user-defined backward, which a trace loses.
        held: the model's tensors on each side.
        trained: the names of the tensors that were trainable when the line was drawn; a later freeze keeps them above.
    """

    boundary: tuple[Boundary, ...] = ()
    identity: str = ""

    def __init__(self, model: nn.Module, inputs: Inputs, expression: str) -> None:
        self.model, self.inputs, self.expression = model, inputs, expression
        self.rewritten: set[str] = set()
        self.held = HeldTensors(model), HeldTensors(model)
        # A frozen use moves with its layer.
        moved = {place for tensor in model.parameters() if tensor.requires_grad for place in places_of(tensor)}
        named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
        self.trained = {name for name, tensor in named if not moved.isdisjoint(places_of(tensor))}

    @abstractmethod
    def below(self, leaves: Sequence[Any]) -> list[torch.Tensor]:
        """Computes the boundary from the leaves of a call, samples first."""

    @abstractmethod
    def above(self, boundary: Sequence[torch.Tensor]) -> Any:
        """Computes the model's output from the boundary, samples first."""

    def module(self, leaves: Sequence[Any]) -> fx.GraphModule | None:
        """Returns a module that computes the boundary of such leaves, or None if the parts are unknown."""
        return None

    @property
    def tensors_below(self) -> Mapping[str, torch.Tensor]:
        """The current parameters and buffers of the model below the line, by name."""
        return self.held[BELOW].now()

    def refuse_thawed(self) -> None:
        """Checks that nothing below the line has been thawed.

        Raises:
            LineError: a parameter has been thawed.
        """
        if trained := [path for path, tensor in self.tensors_below.items() if tensor.requires_grad]:
            problem = f"has {counted(len(trained), 'parameter')} below it that would train without a gradient."
            fix = "Freeze what is below again, or draw the line again: line = frostline(model, *example)."
            raise LineError("line", problem, tuple(trained), fix)


@final
class HeldTensors:
    """A module that holds some of a model's tensors, under the same names.

    Args:
        model: the owner of the tensors.

    Attributes:
        top: the module; an added value that is not a tensor of the model is a plain attribute of it.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self.top = model, nn.Module()
        # Of each tensor the registry here, the registry in the model, and the name in both.
        self._places: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {}
        self._uses = [module for module in model.modules() if isinstance(module, Frozen)]

    def add(self, tensors: Mapping[str, Any]) -> None:
        """Adds missing tensors, in place."""
        for target, tensor in tensors.items():
            if target in self._places:
                continue
            path, _, name = target.rpartition(".")
            holder, owner = self.top, self.model
            for child in path.split(".") if path else ():
                holder = holder._modules.setdefault(child, nn.Module())  # type: ignore[assignment]
                owner = getattr(owner, "_modules", {}).get(child)  # type: ignore[assignment]
            for registry in ("_parameters", "_buffers"):
                theirs = getattr(owner, registry, {})
                if name in theirs:
                    mine = getattr(holder, registry)
                    mine[name] = tensor
                    self._places[target] = mine, theirs, name
                    break
            else:
                object.__setattr__(holder, name, tensor)

    def follow(self) -> None:
        """Replaces the tensors by the current ones of the model, in place."""
        for use in self._uses:
            use._refresh()
        for mine, theirs, name in self._places.values():
            mine[name] = theirs.get(name)

    def now(self) -> dict[str, torch.Tensor]:
        """Follows the model, and returns the tensors by name."""
        self.follow()
        found = {target: mine[name] for target, (mine, _, name) in self._places.items()}
        return {target: tensor for target, tensor in found.items() if tensor is not None}


def places_of(tensor: torch.Tensor) -> set[int]:
    """Returns the identities of the storages behind a tensor; tensors that share values share one of them."""
    return {storage_identity(storage) for storage in storages(tensor)}


def changing_module(model: nn.Module, expression: str, path: str, operator: str = "") -> LineError:
    """Returns the error for a module below the line that is random or has a state."""
    names = path.split(".")
    fix = f'Hold it in evaluation mode: model.get_submodule("{path}").eval().'
    for depth in range(1, len(names) + 1):
        outer = ".".join(names[:depth])
        flags = [parameter.requires_grad for parameter in model.get_submodule(outer).parameters()]
        if flags and not any(flags):
            fix = f'Hold it by freezing it here: ft.freeze(model, "{outer}").'
            break
    problem = f"has {path!r} below its line, whose output changes from call to call."
    found = f"{path}: {type(model.get_submodule(path)).__name__}{operator}"
    return LineError(expression, problem, (found,), fix)


def mixed_samples(expression: str, names: Sequence[str]) -> LineError:
    """Returns the error for values of one sample that depend on the other samples."""
    count = counted(len(names), "value")
    problem = f"mixes samples below its line: {count} cannot be stored for each sample by itself."
    fix = 'Cut where each sample is by itself: frostline(model, *example, at="layer3").'
    return LineError(expression, problem, tuple(names), fix)
