"""The state of an optimizer by name: saving it, loading it, and checks that it fits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from frostline._core.errors import BindError
from frostline._core.errors.base import counted
from frostline.jax._arrays import described
from frostline.jax._training.cohorts import DividedState
from frostline.jax._training.moments import Arrays, Cohort, StateLayout
from frostline.jax._training.state_arrays import StateArray

SAVE, LOAD = "tx.save(state, params)", "tx.load(saved, params)"

_COHORT, _NONE = "cohort", -1
_FIX = "Save it by tx.save(state, params), with the same model and the same transformation."


def saved(parts: DividedState, layout: StateLayout) -> Arrays:
    """The state by name.

    Raises:
        BindError: the state is of other parameters.
    """
    cohorts = dict(enumerate(parts.cohorts)) | {_NONE - number: kept for number, kept in enumerate(parts.parked, 1)}
    cohort_of = {name: number for number, cohort in cohorts.items() for name in cohort.moments}
    if unknown := sorted(cohort_of.keys() - set(layout.names)):
        raise _other_parameters(SAVE, [], unknown, "Pass the parameters that the state belongs to.")
    arrays = _state_arrays(layout)
    found = {_named("", e.label): parts.numbers[e.key] for e in _numbers(layout)}
    for name in layout.names:
        number = cohort_of.get(name, _NONE)
        found[_named(name, _COHORT)] = np.asarray(number, np.int32)
        if number != _NONE:
            cohort = cohorts[number]
            kept = cohort.moments[name] | cohort.counts
            found |= {_named(name, e.label): kept[e.key] for e in arrays[name]}
    return found


def loaded(state: Mapping[str, Any], layout: StateLayout, params: Mapping[str, Any]) -> DividedState:
    """The parts of a saved state, with all of its parameters in trainable cohorts.

    Args:
        state: the result of `saved`.
        layout: the arrays of a state for all parameters.
        params: the parameters by name; moments are put on their devices.

    Raises:
        BindError: it is not such a state, or it is of other parameters, another transformation or other shapes.
    """
    arrays = _state_arrays(layout)
    _check_fits(state, layout, arrays)
    numbers = {e.key: _placed(state[_named("", e.label)], None) for e in _numbers(layout)}
    moments: dict[Any, dict[str, Arrays]] = defaultdict(dict)
    counts: dict[Any, Arrays] = {}
    for name in _with_state(state, layout):
        found = {e: state[_named(name, e.label)] for e in arrays[name]}
        own = {e.key: array for e, array in found.items() if e.beside_moments}
        # The number of a cohort is only a label. Equal counts make parameters one cohort.
        cohort = int(state[_named(name, _COHORT)]), *(np.asarray(array).tobytes() for array in own.values())
        counts.setdefault(cohort, {key: _placed(array, None) for key, array in own.items()})
        moments[cohort][name] = {
            e.key: _placed(array, params[name]) for e, array in found.items() if e.owner is not None
        }
    # Sorted, so that the first cohort is the first again, and those that were parked are last.
    order = sorted(moments, key=lambda cohort: (cohort[0] < 0, abs(cohort[0]), cohort[1:]))
    return DividedState(numbers, tuple(Cohort(moments[cohort], counts[cohort]) for cohort in order), ())


def were_frozen(state: Mapping[str, Any], layout: StateLayout) -> frozenset[str]:
    """The parameters that were frozen when a state was saved."""
    return frozenset(name for name in layout.names if int(state[_named(name, _COHORT)]) < 0)


def _numbers(layout: StateLayout) -> list[StateArray]:
    return [array for array in layout.whole.values() if array.owner is None]


def _state_arrays(layout: StateLayout) -> dict[str, list[StateArray]]:
    """The moments of each parameter, and the counts of its cohort."""
    counts = [array for array in layout.whole.values() if array.beside_moments]
    found: dict[str, list[StateArray]] = {name: [] for name in layout.names}
    for array in layout.whole.values():
        if array.owner is not None:
            found[array.owner].append(array)
    return {name: own + counts for name, own in found.items()}


def _named(name: str, label: str) -> str:
    return f"{name}/{label}"


def _with_state(state: Mapping[str, Any], layout: StateLayout) -> Iterator[str]:
    return (name for name in layout.names if int(state[_named(name, _COHORT)]) != _NONE)


def _placed(array: Any, param: Any) -> Any:
    """A copy of the array on the devices of its parameter."""
    if isinstance(array, jax.Array) and array.sharding.memory_kind == "pinned_host":
        array = np.asarray(array)
    # Uncommitted arrays stay uncommitted.
    if isinstance(param, jax.Array) and param.committed and param.shape == array.shape:
        array = jax.device_put(array, param.sharding)
    return jnp.array(array)


def _check_fits(state: Any, layout: StateLayout, arrays: Mapping[str, Iterable[StateArray]]) -> None:
    if not isinstance(state, Mapping):
        raise BindError(LOAD, f"got {described(state)}, but takes a dict of arrays by name.", (), _FIX)
    names = {key.removesuffix(f"/{_COHORT}") for key in state if key.endswith(f"/{_COHORT}")}
    missing, unknown = sorted(set(layout.names) - names), sorted(names - set(layout.names))
    if missing or unknown:
        raise _other_parameters(LOAD, missing, unknown, _FIX)
    own = {_named(name, _COHORT): jax.ShapeDtypeStruct((), np.int32) for name in layout.names}
    _check_shapes(state, own)
    expected = {_named("", array.label): array.shape for array in _numbers(layout)}
    expected |= {_named(name, e.label): e.shape for name in _with_state(state, layout) for e in arrays[name]}
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys() - own.keys())
    if missing or unknown:
        numbers = f"{counted(len(missing), 'array')} missing, {len(unknown)} unknown"
        problem = f"got the state of another transformation: {numbers}."
        raise BindError(LOAD, problem, _differences(missing, unknown), _FIX)
    _check_shapes(state, expected)


def _check_shapes(state: Mapping[str, Any], expected: Mapping[str, jax.ShapeDtypeStruct]) -> None:
    pairs = ((key, _text(state[key]), _text(shape)) for key, shape in expected.items())
    wrong = [f"{key}: saved {found}, here {wanted}" for key, found, wanted in pairs if found != wanted]
    if wrong:
        raise BindError(LOAD, f"got {counted(len(wrong), 'array')} of another shape or type.", tuple(wrong), _FIX)


def _text(thing: Any) -> str:
    shaped = hasattr(thing, "dtype") and hasattr(thing, "shape")
    return f"{thing.dtype} {tuple(thing.shape)}" if shaped else described(thing)


def _other_parameters(expression: str, missing: list[str], unknown: list[str], fix: str) -> BindError:
    problem = f"got a state of other parameters: {len(missing)} missing, {len(unknown)} unknown."
    return BindError(expression, problem, _differences(missing, unknown), fix)


def _differences(missing: list[str], unknown: list[str]) -> tuple[str, ...]:
    return (*(f"missing: {name}" for name in missing[:3]), *(f"unknown: {name}" for name in unknown[:2]))
