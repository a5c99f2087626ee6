"""Fake copies: the structure of a model on tensors with a shape, a dtype and a device, and without data."""

from __future__ import annotations

import copy
import logging
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map_only

from frostline._core.errors import UnsupportedError
from frostline.torch._autograd.integers import is_exact
from frostline.torch._tensors import is_distributed
from frostline.torch._uses.hooks import HOOKS, copied_hooks, is_of_sharding
from frostline.torch._uses.rebinding import Rebinding, reachable
from frostline.torch._uses.structure import alias, rebind_attributes
from frostline.torch._uses.use import Frozen
from frostline.torch._wrappers import (
    class_when_whole,
    is_compiled,
    is_fully_sharded,
    is_tensor_parallel,
    take_to_rest,
)


@final
class FakeTensors:
    """Makes tensors without data.

    A tensor on the meta device counts as being on the device of the example.

    Args:
        values: an example and the tensors of a model; the first one that is on a real device decides.
    """

    def __init__(self, *values: Any) -> None:
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        devices = (each.device for each in tree_leaves(values) if isinstance(each, torch.Tensor))
        self.device = next((device for device in devices if device.type != "meta"), torch.device("cpu"))

    @contextmanager
    def without_data(self) -> Iterator[None]:
        """Makes new tensors have no data in this context, and leaves no trace of them afterwards.

        PyTorch's log of errors is silent; they are raised. Outer hooks on saved tensors are off, because a checkpoint
        counts the tensors that pass its own. The cache of autocast is cleared, because it would mix real and fake
        casts.
        """
        log = logging.getLogger("torch._subclasses.fake_tensor")
        was_disabled, log.disabled = log.disabled, True
        hooks = []
        while (top := torch._C._autograd._top_saved_tensors_default_hooks(True)) is not None:
            hooks.append(top)
            torch._C._autograd._pop_saved_tensors_default_hooks()
        torch.clear_autocast_cache()
        try:
            with self.mode:
                yield
        finally:
            torch.clear_autocast_cache()
            for pack, unpack in reversed(hooks):
                torch._C._autograd._push_saved_tensors_default_hooks(pack, unpack)
            log.disabled = was_disabled

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The fake form of a tensor, with its flag; for integers a copy."""
        if is_distributed(tensor):
            with self.mode:
                made = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
                return nn.Parameter(made, requires_grad=tensor.requires_grad)
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
        """The same structure with a fake tensor in place of each tensor."""
        return tree_map_only(torch.Tensor, self.of, values)


def fake_copy(
    model: nn.Module, tensors: FakeTensors, *, with_uses: bool = True, expression: str = "cost(model)"
) -> nn.Module:
    """Copies the structure of a model, with fake tensors in place of all tensors; the model is not touched.

    A frozen use becomes a plain copy of its layer that needs no gradient.

    Args:
        model: the model.
        tensors: the maker of the fake tensors.
        with_uses: whether frozen uses are frozen; otherwise they train as their layers do.
        expression: the call that an error names.

    Raises:
        UnsupportedError: an attribute cannot be copied.
    """
    take_to_rest(model)
    found = list(reachable(model))
    _refuse_scripts(found, expression)
    _refuse_tensor_parallel(found, expression)
    memo: dict[int, Any] = {}
    for item in found:
        if isinstance(item, torch.Tensor):
            memo[id(item)] = tensors.of(item)
        else:
            memo.update(copied_hooks(item))
    for item in reversed(found):  # inner modules come first
        if isinstance(item, nn.Module) and is_compiled(item):
            memo[id(item)] = _Interpreted(_copied(item.get_submodule("_orig_mod"), memo, expression))
        elif isinstance(item, Frozen):
            memo[id(item)] = (
                _use_of(item, memo, found, expression) if with_uses else _copied(item._view.layer, memo, expression)
            )
        elif isinstance(item, nn.Module) and is_fully_sharded(item):
            memo[id(item)] = _whole(item, memo, expression)
    return _copied(model, memo, expression)


def _whole(module: nn.Module, memo: dict[int, Any], expression: str) -> nn.Module:
    """Copies a module as it was before it was sharded."""
    bare: nn.Module = object.__new__(class_when_whole(module))
    # Without what `fully_shard` has registered with it: the state of the sharding and its hooks.
    registered = ("__composable_api", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks")
    own = {name: value for name, value in vars(module).items() if not name.startswith(registered)}
    bare.__dict__.update(own, _state_dict_pre_hooks=OrderedDict(), _load_state_dict_pre_hooks=OrderedDict())
    return _copied(bare, memo, expression)


@final
class _Interpreted(nn.Module):
    """Replaces a compiled module: it runs the uncompiled module inside it, under the same path."""

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


def _refuse_scripts(found: list[Any], expression: str) -> None:
    for item in found:
        if isinstance(item, torch.jit.ScriptModule):
            name = getattr(item, "original_name", type(item).__name__)
            raise UnsupportedError(
                expression,
                f"cannot be computed: {name} was compiled by TorchScript, and its parameters cannot be exchanged.",
                "Ask for the cost of the module from which it was compiled.",
            )


def _refuse_tensor_parallel(found: list[Any], expression: str) -> None:
    parallel = [item for item in found if isinstance(item, nn.Module) and is_tensor_parallel(item)]
    if any(is_distributed(tensor) for item in parallel for tensor in item.parameters(recurse=False)):
        raise UnsupportedError(
            expression,
            f"cannot be computed: {len(parallel)} of its modules are tensor-parallel, and a copy would exchange values "
            "with other processes.",
            "Ask before parallelize_module(...): a rank's share is that of the model divided by the ranks.",
        )


def _use_of(use: Frozen, memo: dict[int, Any], found: list[Any], expression: str) -> nn.Module:
    constants = {id(item): alias(memo[id(item)]) for item in found if isinstance(item, torch.Tensor)}
    made = _copied(use._view.layer, memo | constants, expression)
    if "forward" in vars(use):  # replaced on the use itself, as a memory budget does
        made.__dict__["forward"] = copy.deepcopy(vars(use)["forward"], {**memo, id(use): made})
    return made.train(use.training and use._view.mode == "follow")


def _copied(module: nn.Module, memo: dict[int, Any], expression: str) -> nn.Module:
    try:
        made: nn.Module = copy.deepcopy(module, memo)
    except (TypeError, RuntimeError) as error:
        raise UnsupportedError(
            expression,
            f"cannot copy the structure of {type(module).__name__}: {error}.",
            "Move the attribute that cannot be copied out of the model while its cost is asked for.",
        ) from error
    rebinding = Rebinding(memo)
    for copied in made.modules():
        rebind_attributes(copied, rebinding)
        for hooks in (vars(copied)[name] for name in HOOKS if name in vars(copied)):
            hooks.update({key: rebinding.of(hook) for key, hook in hooks.items()})
            for key in [key for key, hook in hooks.items() if is_of_sharding(hook)]:
                del hooks[key]
    return made
