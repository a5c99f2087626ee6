"""The public names, held as literals: adding or removing one is a decision, not an accident."""

import importlib
import inspect
import subprocess
import sys
import types

import pytest

PUBLIC: dict[str, list[str]] = {
    "frostline": [
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
    ],
    "frostline.errors": [
        "BindError",
        "BudgetError",
        "BudgetValueError",
        "CacheBudgetError",
        "CacheError",
        "CacheSpaceError",
        "CheckError",
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
        "MovedError",
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
    ],
    "frostline.jax": [
        "Audit",
        "Driver",
        "FeatureCache",
        "FrostLine",
        "Frozen",
        "audit",
        "blocks",
        "cost",
        "follow",
        "freeze",
        "frostline",
        "grad",
        "guard",
        "join",
        "lean",
        "load_delta",
        "load_run",
        "mask",
        "optimizer",
        "plan",
        "report",
        "save_delta",
        "save_run",
        "select",
        "split",
        "strip",
        "thaw",
        "tie",
        "trainable",
        "value_and_grad",
    ],
    "frostline.schedules": [
        "AutoFreeze",
        "BAdam",
        "Chart",
        "Egeria",
        "FreezeOut",
        "HiFT",
        "LISA",
        "LinearProbe",
        "Phase",
        "Phases",
        "Plateau",
        "Policy",
        "Schedule",
        "Span",
        "ULMFiT",
    ],
    "frostline.torch": [
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
    ],
}
EVERY_NAME = [(module, name) for module, names in PUBLIC.items() for name in names]


@pytest.mark.parametrize("module", PUBLIC)
def test_the_public_names_are_these(module: str) -> None:
    assert sorted(importlib.import_module(module).__all__) == PUBLIC[module]


@pytest.mark.parametrize("module", PUBLIC)
def test_nothing_else_is_visible(module: str) -> None:
    """What `dir` shows without an underscore is public or a part of the package, never a helper that leaked."""
    found = vars(importlib.import_module(module))
    extra = [
        name for name, value in found.items() if not name.startswith("_") and not isinstance(value, types.ModuleType)
    ]
    assert sorted(set(extra) - set(PUBLIC[module]) - {"annotations"}) == []


@pytest.mark.parametrize(("module", "name"), EVERY_NAME)
def test_a_public_name_has_a_docstring(module: str, name: str) -> None:
    value = getattr(importlib.import_module(module), name)
    assert len(inspect.getdoc(value) or "") > 20


def test_the_lists_are_sorted() -> None:
    assert [names for names in PUBLIC.values() if names != sorted(names)] == []


@pytest.mark.parametrize(("frameworks", "name"), [("torch", "frostline.torch"), ("jax, optax", "frostline.jax")])
def test_an_import_loads_little_beside_the_framework(frameworks: str, name: str) -> None:
    code = (
        f"import sys; import {frameworks}; before = set(sys.modules); import {name} as front; "
        "beyond = set(sys.modules) - before; print(len(beyond), set(front.__all__) <= set(dir(front)))"
    )
    count, is_listed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    ).stdout.split()
    assert int(count) <= 80
    assert is_listed == "True"
