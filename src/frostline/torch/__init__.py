"""frostline for PyTorch: hold part of a network still while the rest learns.

Example:
    >>> import frostline.torch as ft
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    >>> handle = ft.freeze(model, "0")
    >>> sorted(ft.trainable(model))
    ['1.bias', '1.weight']
"""

from frostline.torch._cache.cache import FeatureCache as FeatureCache
from frostline.torch._cache.dataset import CachedDataset as CachedDataset
from frostline.torch._cost.cost import cost as cost
from frostline.torch._freezing.freezing import Handle as Handle
from frostline.torch._freezing.freezing import follow as follow
from frostline.torch._freezing.freezing import freeze as freeze
from frostline.torch._freezing.freezing import frozen as frozen
from frostline.torch._freezing.freezing import plan as plan
from frostline.torch._freezing.freezing import thaw as thaw
from frostline.torch._freezing.freezing import trainable as trainable
from frostline.torch._inspection.check import check as check
from frostline.torch._inspection.guard import guard as guard
from frostline.torch._inspection.report import report as report
from frostline.torch._lean.lean import Lean as Lean
from frostline.torch._lean.lean import lean as lean
from frostline.torch._line.line import Line as Line
from frostline.torch._line.line import frostline as frostline
from frostline.torch._training.binding import Binding as Binding
from frostline.torch._training.binding import bind as bind
from frostline.torch._training.delta import load_delta as load_delta
from frostline.torch._training.delta import save_delta as save_delta
from frostline.torch._training.driver import Driver as Driver
from frostline.torch._uses.use import Frozen as Frozen
from frostline.torch._uses.use import frozen_call as frozen_call

__all__ = [
    "Binding",
    "CachedDataset",
    "Driver",
    "FeatureCache",
    "Frozen",
    "Handle",
    "Lean",
    "Line",
    "bind",
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
    "plan",
    "report",
    "save_delta",
    "thaw",
    "trainable",
]
