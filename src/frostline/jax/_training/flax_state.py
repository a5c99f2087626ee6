"""The state of an optimizer in ``flax.serialization``, as in the bytes of a ``TrainState``."""

from __future__ import annotations

from functools import cache
from typing import Any

from frostline._core.errors import BindError
from frostline.jax._training.cohorts import OptimizerState
from frostline.jax._training.moments import Cohort
from frostline.jax._uses.flax_states import register_waiting, serialized

_DATA = ("inner", "counts", "parked")


def _written(flax: Any, state: OptimizerState) -> dict[str, Any]:
    found: dict[str, Any] = {name: flax.to_state_dict(getattr(state, name)) for name in _DATA}
    return {**found, "trainable": _names(state)}


def _read(flax: Any, state: OptimizerState, saved: dict[str, Any]) -> OptimizerState:
    """The state with the saved arrays.

    Raises:
        BindError: other parameters trained when it was saved, or in other cohorts, so its arrays have other places.
    """
    if (then := saved.get("trainable")) != (here := _names(state)):
        raise BindError(
            "flax.serialization.from_state_dict(state, saved)",
            "got the state of another set of trainable parameters, and Flax restores by place.",
            (f"saved: {then}", f"here:  {here}"),
            "Save and load by name: state = tx.load(saved, params), with saved = tx.save(state, params).",
        )
    found = {name: flax.from_state_dict(getattr(state, name), saved[name]) for name in _DATA}
    return OptimizerState(cohorts=state.cohorts, plan=state.plan, **found)


def _names(state: OptimizerState) -> str:
    return " | ".join(", ".join(names) for names in state.cohorts)


def register_state() -> None:
    """Lets Flax write and read the states, once it has been imported."""
    _offer()
    register_waiting()


@cache
def _offer() -> None:
    serialized(OptimizerState, _written, _read)
    serialized(
        Cohort,
        lambda flax, cohort: flax.to_state_dict(vars(cohort)),
        lambda flax, cohort, saved: Cohort(**flax.from_state_dict(vars(cohort), saved)),
    )
