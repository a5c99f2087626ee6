"""frostline for PyTorch: hold part of a network still while the rest learns.

Example:
    >>> import frostline.torch as ft
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    >>> handle = ft.freeze(model, "0")
    >>> sorted(ft.trainable(model))
    ['1.bias', '1.weight']
"""

import importlib
import typing

from frostline._core.names import no_such_name as _no_such_name
from frostline.torch._freezing.freezing import follow, freeze, frozen, plan, thaw, trainable
from frostline.torch._freezing.handle import Handle
from frostline.torch._uses.use import Frozen, frozen_call

if typing.TYPE_CHECKING:
    from frostline.torch._cache.cache import FeatureCache
    from frostline.torch._cache.dataset import CachedDataset
    from frostline.torch._cost.cost import cost
    from frostline.torch._freezing.preview import blocks, select
    from frostline.torch._freezing.rewrap import rewrap
    from frostline.torch._inspection.audit import audit
    from frostline.torch._inspection.check import check
    from frostline.torch._inspection.guard import guard
    from frostline.torch._inspection.report import report
    from frostline.torch._lean.lean import Lean, lean
    from frostline.torch._line.line import FrostLine, frostline
    from frostline.torch._training.bind import bind
    from frostline.torch._training.binding import Binding
    from frostline.torch._training.delta import load_delta, save_delta
    from frostline.torch._training.driver import Driver
    from frostline.torch._training.run import load_run, save_run

__all__ = [
    "Binding",
    "CachedDataset",
    "Driver",
    "FeatureCache",
    "FrostLine",
    "Frozen",
    "Handle",
    "Lean",
    "audit",
    "bind",
    "blocks",
    "check",
    "cost",
    "follow",
    "freeze",
    "frostline",
    "frozen",
    "frozen_call",
    "guard",
    "lean",
    "load_delta",
    "load_run",
    "plan",
    "report",
    "rewrap",
    "save_delta",
    "save_run",
    "select",
    "thaw",
    "trainable",
]


_LATER = {
    "Binding": "_training.binding",
    "CachedDataset": "_cache.dataset",
    "Driver": "_training.driver",
    "FeatureCache": "_cache.cache",
    "FrostLine": "_line.line",
    "Lean": "_lean.lean",
    "audit": "_inspection.audit",
    "bind": "_training.bind",
    "blocks": "_freezing.preview",
    "check": "_inspection.check",
    "cost": "_cost.cost",
    "frostline": "_line.line",
    "guard": "_inspection.guard",
    "lean": "_lean.lean",
    "load_delta": "_training.delta",
    "load_run": "_training.run",
    "report": "_inspection.report",
    "rewrap": "_freezing.rewrap",
    "save_delta": "_training.delta",
    "save_run": "_training.run",
    "select": "_freezing.preview",
}
"""What is imported when it is asked for: most programs use a few of these names, and pay for no other."""


if not typing.TYPE_CHECKING:  # a type checker would take each name for one that there is

    def __getattr__(name: str) -> typing.Any:
        if name in _LATER:
            return getattr(importlib.import_module(f"frostline.torch.{_LATER[name]}"), name)
        raise _no_such_name(__name__, name, __all__)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
