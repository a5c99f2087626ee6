"""Hold part of a neural network still while the rest learns."""

from frostline._core.errors import (
    BindError,
    CheckError,
    CountError,
    DeltaError,
    FileFormatError,
    FrostlineError,
    LayerError,
    ModeError,
    MovedError,
    NoMatchError,
    NothingTrainableError,
    PinnedError,
    PlanError,
    PlanMismatchError,
    SamePathError,
    ScheduleError,
    SelectorError,
    StructureError,
    TiedError,
    UnprovenError,
    UnsupportedError,
    WrappedError,
)
from frostline._core.plan import Change, Plan
from frostline._core.rules import Rule, layerwise
from frostline._core.selectors import everything, glob, of_type, regex, where

__version__ = "0.1.0"

__all__ = [
    "BindError",
    "Change",
    "CheckError",
    "CountError",
    "DeltaError",
    "FileFormatError",
    "FrostlineError",
    "LayerError",
    "ModeError",
    "MovedError",
    "NoMatchError",
    "NothingTrainableError",
    "PinnedError",
    "Plan",
    "PlanError",
    "PlanMismatchError",
    "Rule",
    "SamePathError",
    "ScheduleError",
    "SelectorError",
    "StructureError",
    "TiedError",
    "UnprovenError",
    "UnsupportedError",
    "WrappedError",
    "__version__",
    "everything",
    "glob",
    "layerwise",
    "of_type",
    "regex",
    "where",
]

# A traceback shows where an error can be imported from, not where it happens to be written.
for _name in __all__:
    if _name.endswith("Error"):
        globals()[_name].__module__ = __name__
del _name
