"""Every error that needs nothing else of the core; the public module is `frostline.errors`."""

from frostline._core.errors.base import FrostlineError
from frostline._core.errors.cache import (
    CacheBudgetError,
    CacheError,
    CacheSpaceError,
    DamagedCacheError,
    StaleCacheError,
)
from frostline._core.errors.cost import BudgetError, BudgetValueError, CostError, NothingFrozenError
from frostline._core.errors.line import LineError, RuntimeChoiceError, UntraceableError
from frostline._core.errors.models import (
    ConstantError,
    FileFormatError,
    ModeError,
    PinnedError,
    PlanError,
    PlanMismatchError,
    RankError,
    WrappedError,
)
from frostline._core.errors.selectors import CountError, NoMatchError, SelectorError, TiedError, UnsupportedError
from frostline._core.errors.training import BindError, DeltaError, RunError, ScheduleError
from frostline._core.errors.trees import (
    LayerError,
    NothingTrainableError,
    SamePathError,
    StructureError,
    UnprovenError,
)

__all__ = [
    "BindError",
    "BudgetError",
    "BudgetValueError",
    "CacheBudgetError",
    "CacheError",
    "CacheSpaceError",
    "ConstantError",
    "CostError",
    "CountError",
    "DamagedCacheError",
    "DeltaError",
    "FileFormatError",
    "FrostlineError",
    "LayerError",
    "LineError",
    "ModeError",
    "NoMatchError",
    "NothingFrozenError",
    "NothingTrainableError",
    "PinnedError",
    "PlanError",
    "PlanMismatchError",
    "RankError",
    "RunError",
    "RuntimeChoiceError",
    "SamePathError",
    "ScheduleError",
    "SelectorError",
    "StaleCacheError",
    "StructureError",
    "TiedError",
    "UnprovenError",
    "UnsupportedError",
    "UntraceableError",
    "WrappedError",
]
