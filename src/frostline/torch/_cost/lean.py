"""What makes a model cheap, in a shadow of it: as in the model itself, or not at all."""

from __future__ import annotations

import itertools

from torch import nn

from frostline.torch._autograd.fake_copy import Shades, shadow
from frostline.torch._holding.forward import patches, remove_all
from frostline.torch._lean import slimming as _slimming
from frostline.torch._wrappers import is_compiled, unwrapped


def is_lean(model: nn.Module) -> bool:
    """Whether calls of a model, or of a part of it, are made cheap."""
    hooks = (hook for module in model.modules() for hook in module._forward_pre_hooks.values())
    return any(isinstance(hook, _slimming.Slimming) for hook in hooks) or any(True for _ in patches(model))


def is_left_alone(model: nn.Module) -> bool:
    """Whether a compiler makes of the whole model what it likes."""
    root = unwrapped(model)
    outer = itertools.takewhile(lambda module: module is not root, model.modules())
    return any(is_compiled(module) or module._compiled_call_impl is not None for module in (*outer, root))


def lean_shadow(model: nn.Module, shades: Shades) -> nn.Module:
    """A shadow that saves what the model does."""
    made = shadow(model, shades)
    for root in _slimming.taken_from(made):
        _slimming.look(root)
    return made


def plain_shadow(model: nn.Module, shades: Shades, *, with_uses: bool = True) -> nn.Module:
    """A shadow of the model as it would be without lean."""
    made = shadow(model, shades, with_uses=with_uses)
    _slimming.taken_from(made)
    remove_all(patches(made))
    return made
