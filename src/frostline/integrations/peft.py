"""PEFT: the base of a model with adapters as a selector, and a reference policy that shares its weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from frostline._core.errors import LayerError, UnsupportedError
from frostline._core.errors.base import counted
from frostline._core.param import Param
from frostline._core.selecting.selectors import where
from frostline.torch import Frozen

# Beside the layers of adapters, which have a prefix of their method: copies of modules, and virtual tokens.
_ADDED = ("modules_to_save", "prompt_encoder", "internal_xlora_classifier")

base = where("frostline.integrations.peft:is_base")
"""What was there before the adapters, as a selector: ``freeze(model, base)``; in a phase, ``Phase(["**", "!head"])``.

Example:
    >>> import frostline.torch as ft
    >>> model = nn.Sequential(nn.Linear(2, 2))
    >>> len(ft.freeze(model, base).plan.frozen)
    2
"""


def is_base(param: Param) -> bool:
    """Whether a parameter was there before the adapters: not one of an adapter, and no copy that is trained whole."""
    prefixes = tuple(prefix for prefix in PEFT_TYPE_TO_PREFIX_MAPPING.values() if prefix)
    return not any(key in _ADDED or key.startswith(prefixes) for key in param.path.split("."))


def reference(policy: nn.Module, adapter: str | None = None) -> nn.Module:
    """Returns a reference policy, as DPO and GRPO need one: the policy without its adapter, or with another one.

    It is a frozen use of the policy. It shares all weights and takes no memory of its own, no gradient reaches the
    policy through it, dropout is off, and it changes no flag, which ``policy.disable_adapter()`` does. Whatever adapter
    the policy has, or is given later, the reference computes the same.

    Args:
        policy: a model with adapters, of ``get_peft_model`` or of ``model.add_adapter``.
        adapter: the adapter of the reference; by default none.

    Returns:
        A module without parameters, so that a model or an optimizer that contains it has nothing more. It has the
        methods of the policy, such as ``generate``.

    Raises:
        LayerError: `policy` has no adapters, or not this one.
        UnsupportedError: the adapter is a prompt, or is merged into the base.

    Example:
        >>> import torch
        >>> from peft import LoraConfig, get_peft_model
        >>> net = nn.Sequential(nn.Linear(4, 4))
        >>> before = net(torch.ones(1, 4))
        >>> policy = get_peft_model(net, LoraConfig(target_modules=["0"], init_lora_weights=False))
        >>> torch.equal(reference(policy)(torch.ones(1, 4)), before)
        True
    """
    configs = getattr(policy, "peft_config", {})
    if any(config.is_prompt_learning for config in configs.values()):
        problem = "has an adapter that is a prompt, which no layer can leave out."
        raise UnsupportedError(_written(adapter), problem, "Hold what is below it: Frozen(policy.get_base_model()).")
    if not configs or adapter not in {None, *configs}:
        problem = f"has {counted(len(configs), 'adapter')}, and not this one: {', '.join(configs)}."
        problem = problem if configs else f"is of type {type(policy).__name__}, and has no adapters."
        raise LayerError(_written(adapter), problem, "Add it first: policy = get_peft_model(model, LoraConfig(...)).")
    return Reference(policy, adapter)


@final
class Reference(nn.Module):
    """A reference policy; :func:`reference` makes it."""

    def __init__(self, policy: nn.Module, adapter: str | None) -> None:
        super().__init__()
        # Not a child: its tensors are those of the policy, which moves and saves them.
        self.__dict__["_use"] = Frozen(policy)
        self._active = None if adapter is None else [adapter]
        self._switch()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Computes what the policy computes without its adapter, or with the other one."""
        self._switch()
        return self.__dict__["_use"](*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__") or "_use" not in self.__dict__:  # it is copied as it is
                raise
            self._switch()
            return getattr(self.__dict__["_use"], name)

    def _switch(self) -> None:
        """Sets the adapter of the use, and not of the policy; also in layers that the policy got since."""
        for layer in _layers(self.__dict__["_use"]):
            if getattr(layer, "merged", False):
                fix = "Unmerge it first: policy.unmerge_adapter()."
                problem = "has an adapter that is merged into its base."
                raise UnsupportedError(_written(self._active[0] if self._active else None), problem, fix)
            layer.__dict__["_disable_adapters"] = self._active is None
            if self._active is not None:
                layer.__dict__["_active_adapter"] = self._active


def _layers(model: nn.Module) -> Iterator[Any]:
    return (module for module in model.modules() if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper))


def _written(adapter: str | None) -> str:
    return "reference(policy)" if adapter is None else f"reference(policy, {adapter!r})"
