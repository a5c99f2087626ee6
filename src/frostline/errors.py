"""The errors of frostline; each is also the builtin that a caller would expect.

The tree::

    FrostlineError
    ├── SelectorError (ValueError)              a selector that cannot be read
    ├── NoMatchError (LookupError)              a selector that matches nothing
    ├── CountError (ValueError)                 another number of parameters than expect= says
    ├── TiedError (ValueError)                  two verdicts on one tensor
    ├── UnsupportedError (NotImplementedError)  something that frostline cannot do, and says so
    ├── PlanError (ValueError)                  a text or a value that is not a plan
    │   └── PlanMismatchError                   plans, or a plan and a model, with different paths
    ├── ModeError (ValueError)                  a mode that is neither "eval" nor "follow"
    ├── PinnedError (ValueError)                thawing parameters that a frozen use holds
    ├── ConstantError (ValueError)              thawing nothing but constants, or what can never train
    ├── WrappedError (RuntimeError)             a change that the wrapper around the model would ignore
    ├── RankError (RuntimeError)                processes that would do different things where all must do the same
    ├── FileFormatError (ValueError)            a file that is not what it should be
    ├── MovedError (RuntimeError)               a frozen tensor that moved
    ├── CheckError (RuntimeError)               findings that should stop the program
    ├── LayerError (TypeError)                  something that is not a layer, held or called as one
    ├── NothingTrainableError (ValueError)      training with nothing left to train
    ├── SamePathError (ValueError)              two leaves of a tree with one name
    ├── StructureError (ValueError)             a tree of another structure than the one it goes with
    ├── UnprovenError (RuntimeError)            a guard that was never shown the tree after the steps
    ├── BindError (ValueError)                  an optimizer and a model that do not go together
    ├── DeltaError (ValueError)                 a delta checkpoint that does not go with a model
    ├── RunError (ValueError)                   a saved run that does not go with a model, optimizers and driver
    ├── ScheduleError (ValueError)              a schedule or policy that cannot be made, read or walked
    ├── CostError (ValueError)                  a model whose cost cannot be computed with this example
    ├── NothingFrozenError (ValueError)         making frozen parts cheap where nothing is frozen
    ├── BudgetError (ValueError)                a memory budget that cannot be kept
    ├── BudgetValueError (ValueError)           a memory budget that is neither bytes nor a fraction
    ├── LineError (ValueError)                  a model without a frost line, or a line that does not fit
    │   └── UntraceableError                    a model that a trace cannot follow
    ├── RuntimeChoiceError (ValueError)         a runtime that does not exist, does not run, or is too far off
    ├── CacheError (ValueError)                 a feature cache that does not go with a model, dataset or folder
    │   ├── StaleCacheError (RuntimeError)      a cache below whose line something changed after it was opened
    │   └── DamagedCacheError (RuntimeError)    features that are not what was stored
    ├── CacheBudgetError (ValueError)           a feature cache larger than its budget
    └── CacheSpaceError (OSError)               a disk without room for a feature cache

A message has four parts: the user's own expression, the problem with its numbers, what was there instead, and the fix
as code. The arguments of an error are its attributes, so that it can be pickled and copied.

Example:
    >>> print(NoMatchError("'boddy.weight'", 6, ("body.weight",)))
    'boddy.weight' matches none of the 6 parameters.
    Closest paths:
      body.weight
    Fix the pattern, or pass allow_empty=True if matching nothing is what you want.
"""

from frostline._core import errors as _core_errors
from frostline._core.errors import *  # noqa: F403  that package lists the names
from frostline._core.findings import CheckError
from frostline._core.movement import MovedError

__all__ = ["CheckError", "MovedError"]
__all__ += _core_errors.__all__
__all__.sort()

# A traceback shows where an error can be imported from, not where it happens to be written.
for _name in __all__:
    globals()[_name].__module__ = __name__
del _name
