"""The counterparts of what is in a layer: its modules, tensors, hooks and plain attributes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import chain
from operator import is_
from typing import Any, Literal

import torch
from torch import nn

from frostline._core.errors import UnsupportedError
from frostline.torch._holding import mode as _mode
from frostline.torch._holding.calls import checkpoints_activations
from frostline.torch._holding.classes import original_class
from frostline.torch._holding.writable import parts
from frostline.torch._tensors import addresses
from frostline.torch._uses.attributes import Attributes
from frostline.torch._uses.hooks import HOOKS, HookSlot
from frostline.torch._uses.own_train import OwnTrain
from frostline.torch._uses.rebinding import Rebinding, reachable
from frostline.torch._uses.slots import TensorSlot
from frostline.torch._uses.structure import REGISTRIES, alias, refuse

Mode = Literal["eval", "follow"]
_REGISTRIES = ("_modules", "_parameters", "_buffers")


class Counterparts:
    """Gives each module of a layer a counterpart of its own class, with the same tensors as constants.

    No code of the layer runs. What stays in the layer keeps its counterpart when the layer changes.

    Attributes:
        pairs: each module of the layer, and its counterpart.
        opaque: counterparts that follow their originals by themselves: other frozen uses, and scripts.
        of: ``id`` of each module, and of each object that leads to a tensor -> its counterpart.
        slots: the registered tensors.
        hooks: the registries of hooks.
        attributes: ``id`` of a module or object -> its plain attributes.
        own_trains: the topmost parts with a ``train`` of their own.
        checkpoints: whether a call computes activations again during backward if the layer's flag says so.
    """

    def __init__(self, layer: nn.Module, top: nn.Module, mode: Mode) -> None:
        self.layer, self.top, self.mode = layer, top, mode
        self.pairs: list[tuple[nn.Module, nn.Module]] = []
        self.of: dict[int, Any] = {}
        self.slots: list[TensorSlot] = []
        self.hooks: list[HookSlot] = []
        self.attributes: dict[int, Attributes] = {}
        self.own_trains: list[OwnTrain] = []
        self._objects: list[tuple[Any, Any]] = []
        self._constants: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.loose: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.build()

    def build(self) -> None:
        """Gives the view the structure that the layer has now, in place; what stays in it stays the same object.

        Raises:
            UnsupportedError: a parameter has no shape yet, or an attribute cannot be copied.
        """
        expression = f"Frozen({type(self.layer).__name__})"
        found = list(reachable(self.layer, through_uses=False))
        refuse(expression, found)
        known = {id(module): view for module, view in self.pairs}
        try:
            modules = [item for item in found if isinstance(item, nn.Module)]
            made = {id(module): self._counterpart(module, known.get(id(module))) for module in modules}
            self.of = {**made, **{id(thing): copied for thing, copied in self._objects}}
            self.pairs = [(m, made[id(m)]) for m in modules if not _is_opaque(m)]
            self.opaque = [made[id(m)] for m in modules if _is_opaque(m)]
            self._fill()
        except UnsupportedError:
            raise
        except (TypeError, RuntimeError) as error:
            raise UnsupportedError(
                expression,
                f"cannot copy the structure of this layer: {error}.",
                "Move the attribute that cannot be copied out of the layer, or freeze the layer itself: freeze(layer).",
            ) from error
        self.checkpoints = self.mode == "eval" and checkpoints_activations(self.layer)
        self._registries = [vars(module)[name] for module, _ in self.pairs for name in _REGISTRIES]
        self._sizes = list(map(len, self._registries))
        self._containers = [module._modules for module, _ in self.pairs]
        self._children = list(chain.from_iterable(map(dict.values, self._containers)))

    @property
    def is_current(self) -> bool:
        """Whether the layer has the modules that it had, and as many tensors."""
        return list(map(len, self._registries)) == self._sizes and all(
            map(is_, chain.from_iterable(map(dict.values, self._containers)), self._children)
        )

    def _counterpart(self, module: nn.Module, known: nn.Module | None) -> nn.Module:
        if module is self.layer:
            return self.top
        if known is not None:
            if not _is_opaque(module) and original_class(known) is not original_class(module):
                _mode.forget(known)
                known.__class__ = original_class(module)  # a parametrization has given the module a new class
            return known
        if "_view" in vars(module):  # another frozen use: of its layer there is one more
            return copy.copy(module)
        if _is_opaque(module):
            return copy.deepcopy(module)
        return object.__new__(original_class(module))

    def _fill(self) -> None:
        for module, view in self.pairs:
            if "_parameters" not in vars(view):
                vars(view).update(_empty(module, self._hook_rebinding()))
            vars(view)["_non_persistent_buffers_set"] = set(module._non_persistent_buffers_set)
            view._modules.clear()
            view._modules.update((n, None if c is None else self.of[id(c)]) for n, c in module._modules.items())
        slots = {(id(slot.layer), slot.name): slot for slot in self.slots}
        self.slots = [slot for pair in self.pairs for slot in self._tensor_slots(*pair, slots)]
        hooks = {(id(slot.layer)): slot for slot in self.hooks}
        self.hooks = [
            hooks.get(id(vars(module)[name])) or HookSlot(module, view, name, self._hook_rebinding)
            for module, view in self.pairs
            for name in HOOKS
            if name in vars(module)
        ]
        attributes = {id(m): self.attributes.get(id(m)) or Attributes(m, v) for m, v in self.pairs}
        attributes |= {id(t): self.attributes[id(t)] for t, _ in self._objects if id(t) in self.attributes}
        self.attributes = attributes
        self.follow_attributes(moved=True)
        for _, view in self.pairs:
            if view is not self.top and _mode.held_mode(view) is None:
                _mode.hold_calls(view, self.mode, wanted=self.layer.training)
        own = [pair for pair in self.pairs if _mode.has_own_train(pair[0])]
        inside = {id(inner) for module, _ in own for inner in parts(module) if inner is not module}
        earlier = {id(part.module): part for part in self.own_trains}
        self.own_trains = [
            earlier.get(id(m)) or OwnTrain(m, v, [attributes[id(i)] for i in parts(m) if id(i) in attributes])
            for m, v in own
            if id(m) not in inside
        ]

    def _tensor_slots(
        self, module: nn.Module, view: nn.Module, known: dict[tuple[int, str], TensorSlot]
    ) -> Iterator[TensorSlot]:
        for registry in ("_parameters", "_buffers"):
            layers: dict[str, Any] = vars(module)[registry]
            views: dict[str, Any] = vars(view)[registry]
            for name in [name for name in views if name not in layers]:
                del views[name]
            for name, tensor in layers.items():
                slot = known.get((id(layers), name))
                if slot is None:
                    views[name] = None if tensor is None else self._constant(tensor)
                    slot = TensorSlot(module, view, registry, name)
                yield slot

    def _hook_rebinding(self) -> Rebinding:
        # Without a maker of constants: an object whose method records calls is not copied.
        return Rebinding(self.of)

    def _rebinding(self) -> Rebinding:
        return Rebinding(self.of, self._constant)

    def _constant(self, tensor: torch.Tensor) -> torch.Tensor:
        known, constant = self._constants.get(id(tensor), (None, None))
        if known is not tensor or constant is None or not _same_place(tensor, constant):
            constant = alias(tensor)
            self._constants[id(tensor)] = tensor, constant
        return constant

    def follow_attributes(self, *, moved: bool = False) -> None:
        """Gives the counterparts the plain attributes that the layer has now.

        Args:
            moved: whether a registered tensor has another constant now.
        """
        moved = moved or not all(_same_place(tensor, constant) for tensor, constant in self.loose)
        stale = [a for a in self.attributes.values() if (moved and a.has_tensors) or not a.is_current]
        if not stale:
            return
        # A tensor that was met before keeps its constant: making one inside a trace would
        # leave a tensor of the trace behind.
        known = dict(self._constants)
        self._constants = {id(s.seen): (s.seen, s.constant) for s in self.slots if s.constant is not None}  # type: ignore[misc]
        now, self._constants = self._constants, {**known, **self._constants}
        rebinding = self._rebinding()
        for attributes in stale:
            attributes.follow(rebinding.of)
        for thing, copied in rebinding.objects:
            self._objects.append((thing, copied))
            if hasattr(thing, "__dict__"):
                self.attributes[id(thing)] = Attributes(thing, copied, given=dict(vars(copied)))
                self.attributes[id(thing)].follow(rebinding.of)
        tensors = {id(t) for attributes in self.attributes.values() for t in attributes.tensors}
        self._constants = now | {key: pair for key, pair in self._constants.items() if key in tensors}
        self.loose = [pair for key, pair in self._constants.items() if key not in now]


def _is_opaque(module: nn.Module) -> bool:
    return "_view" in vars(module) or isinstance(module, torch.jit.ScriptModule)


def _empty(module: nn.Module, rebinding: Rebinding) -> dict[str, Any]:
    """Returns the attributes that PyTorch gives a module, with empty registries of what is followed."""
    made: dict[str, Any] = {}
    for name, value in vars(module).items():
        if name in REGISTRIES:
            made[name] = type(value)()
        elif name.endswith("_hooks"):
            made[name] = copy.copy(rebinding.of(value)) if value or value is None else type(value)()
        elif name in ("training", "_is_full_backward_hook"):
            made[name] = value
    return made


def _same_place(tensor: torch.Tensor, constant: torch.Tensor) -> bool:
    try:
        return addresses(tensor) == addresses(constant) and tensor.shape == constant.shape
    except RuntimeError:  # inside a torch.func transform a tensor has no address
        return True
