"""Says that names are Any, which a type checker must refuse in each line: the control of the two other files."""

from typing import Any, assert_type

import jax
from torch import nn

import frostline.jax as fj
import frostline.torch as ft


def use(model: nn.Linear, params: dict[str, jax.Array]) -> None:
    assert_type(ft.freeze(model), Any)
    assert_type(ft.Frozen(model), Any)
    assert_type(ft.trainable(model), Any)
    assert_type(fj.freeze(params), Any)
    assert_type(fj.Frozen(params), Any)
    ft.freeze(model, mode="evil")
    ft.unfreeze(model)
    fj.unfreeze(params)
