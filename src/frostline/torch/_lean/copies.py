"""Fake copies of a lean model, with and without lean."""

from __future__ import annotations

from torch import nn

from frostline.torch._autograd.fake_copy import FakeTensors, fake_copy
from frostline.torch._holding.patch import patches, remove_all
from frostline.torch._lean import slimming as _slimming


def plain_copy(
    root: nn.Module, tensors: FakeTensors, *, with_uses: bool = True, expression: str = "cost(model)"
) -> nn.Module:
    """Returns a fake copy of the model without lean.

    Args:
        root: the model.
        tensors: the maker of the fake tensors.
        with_uses: whether frozen uses stay frozen.
        expression: the call that an error names.
    """
    made = fake_copy(root, tensors, with_uses=with_uses, expression=expression)
    _slimming.taken_from(made)
    remove_all(patches(made))
    return made


def lean_copy(root: nn.Module, tensors: FakeTensors, *, expression: str = "cost(model)") -> nn.Module:
    """Returns a fake copy that saves as little as the model."""
    made = fake_copy(root, tensors, expression=expression)
    for slimmed in _slimming.taken_from(made):
        _slimming.look(slimmed)
    return made
