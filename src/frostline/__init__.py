"""Hold part of a neural network still while the rest learns."""

import typing

from frostline._core.names import no_such_name as _no_such_name
from frostline._core.plan import Change, Plan
from frostline._core.rules import Rule, layerwise
from frostline._core.selecting.selectors import everything, glob, of_type, own, regex, where
from frostline.errors import (
    CheckError,
    FrostlineError,
    MovedError,
    NoMatchError,
    NothingTrainableError,
    UnsupportedError,
)

__version__ = "0.1.0"

__all__ = [
    "Change",
    "CheckError",
    "FrostlineError",
    "MovedError",
    "NoMatchError",
    "NothingTrainableError",
    "Plan",
    "Rule",
    "UnsupportedError",
    "__version__",
    "everything",
    "glob",
    "layerwise",
    "of_type",
    "own",
    "regex",
    "where",
]


if not typing.TYPE_CHECKING:  # a type checker would take each name for one that there is

    def __getattr__(name: str) -> object:
        raise _no_such_name(__name__, name, __all__)
