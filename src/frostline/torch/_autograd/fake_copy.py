"""Shadows: copies of a model's structure on tensors that have a shape, a type and a device, and no data."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map_only

from frostline._core.errors import UnsupportedError
from frostline.torch._autograd.integers import is_exact
from frostline.torch._uses.hooks import HOOKS, copied_hooks
from frostline.torch._uses.rebinding import Rebinding
from frostline.torch._uses.structure import alias, reachable, rebind_attributes
from frostline.torch._uses.use import Frozen
from frostline.torch._wrappers import is_compiled


@final
class Shades:
    """Makes tensors without data. One tensor has one shade, so that ties stay ties.

    What is on the meta device is on no device that computes; it counts as being where the example is.

    Args:
        values: an example and a model's tensors; the first that is on a device says where those on none are.
    """

    def __init__(self, *values: Any) -> None:
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        devices = (each.device for each in tree_leaves(values) if isinstance(each, torch.Tensor))
        self.device = next((device for device in devices if device.type != "meta"), torch.device("cpu"))

    @contextmanager
    def fallen(self) -> Iterator[None]:
        """Within this context what is made has no data. PyTorch's log of errors in it is silent: they are raised."""
        log = logging.getLogger("torch._subclasses.fake_tensor")
        was_disabled, log.disabled = log.disabled, True
        try:
            with self.mode:
                yield
        finally:
            log.disabled = was_disabled

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The shade of a tensor, with its flag; of integers, a copy."""
        if is_exact(tensor):
            return tensor.detach().clone()
        made = self._blank(tensor.detach())
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(made, requires_grad=tensor.requires_grad)
        return made.requires_grad_(tensor.requires_grad)

    def _blank(self, tensor: torch.Tensor) -> torch.Tensor:
        is_blank = isinstance(tensor, FakeTensor) or tensor.device.type == "meta"
        if not is_blank and not tensor.is_inference():
            return self.mode.from_tensor(tensor, static_shapes=True)
        device = self.device if tensor.device.type == "meta" else tensor.device
        with self.mode:
            return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=device)

    def all_of(self, values: Any) -> Any:
        """The same structure with a shade in place of each tensor."""
        return tree_map_only(torch.Tensor, self.of, values)


def shadow(model: nn.Module, shades: Shades, *, with_uses: bool = True) -> nn.Module:
    """A copy of a model's structure, with shades in place of all tensors. Nothing in the model is touched by it.

    A frozen use becomes a plain copy of its layer that needs no gradient.

    Args:
        model: the model.
        shades: makes the tensors.
        with_uses: whether frozen uses are frozen; otherwise they train as their layers do.

    Raises:
        UnsupportedError: an attribute cannot be copied.
    """
    found = list(reachable(model))
    _refuse_scripts(found)
    memo: dict[int, Any] = {}
    for item in found:
        if isinstance(item, torch.Tensor):
            memo[id(item)] = shades.of(item)
        else:
            memo.update(copied_hooks(item))
    for item in reversed(found):  # what is inside comes first
        if isinstance(item, nn.Module) and is_compiled(item):
            memo[id(item)] = _Interpreted(_copied(item.get_submodule("_orig_mod"), memo))
        elif isinstance(item, Frozen):
            memo[id(item)] = _use_of(item, memo, found) if with_uses else _copied(item._view.layer, memo)
    return _copied(model, memo)


@final
class _Interpreted(nn.Module):
    """Stands for a compiled module: the module in it, under the same path, run as it is written."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._orig_mod = inner

    def forward(self, *args: Any, **keywords: Any) -> Any:
        return self._orig_mod(*args, **keywords)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("_orig_mod"), name)


def _refuse_scripts(found: list[Any]) -> None:
    for item in found:
        if isinstance(item, torch.jit.ScriptModule):
            name = getattr(item, "original_name", type(item).__name__)
            raise UnsupportedError(
                "cost(model)",
                f"cannot be told: {name} was compiled by TorchScript, and its parameters cannot be exchanged.",
                "Ask for the cost of the module that it was made of.",
            )


def _use_of(use: Frozen, memo: dict[int, Any], found: list[Any]) -> nn.Module:
    constants = {id(item): alias(memo[id(item)]) for item in found if isinstance(item, torch.Tensor)}
    made = _copied(use._view.layer, memo | constants)
    return made.train(use.training and use._view.mode == "follow")


def _copied(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    try:
        made: nn.Module = copy.deepcopy(module, memo)
    except (TypeError, RuntimeError) as error:
        raise UnsupportedError(
            "cost(model)",
            f"cannot copy the structure of {type(module).__name__}: {error}.",
            "Move the attribute that cannot be copied out of the model while its cost is asked for.",
        ) from error
    rebinding = Rebinding(memo)
    for copied in made.modules():
        rebind_attributes(copied, rebinding)
        for hooks in (vars(copied)[name] for name in HOOKS if name in vars(copied)):
            hooks.update({key: rebinding.of(hook) for key, hook in hooks.items()})
    return made
