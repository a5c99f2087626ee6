"""What is done with the moments of frozen parameters until they thaw."""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from frostline._core.errors import BindError
from frostline.jax._training.moments import Cohort

Moments = Literal["keep", "cpu", "release"]


def check_moments(moments: object) -> None:
    """Raises where it is none of the three words.

    Raises:
        BindError: it is another one.
    """
    if moments not in get_args(Moments):
        raise BindError(
            f"optimizer(tx, moments={moments!r})",
            "names none of the 3 things that can be done with the moments of what is frozen.",
            (
                '"keep"     they stay as they are',
                '"cpu"      they go to the main memory',
                '"release"  they are gone, and start anew',
            ),
            'Write moments="release", or leave it out.',
        )


def put(cohort: Cohort, moments: Moments) -> Cohort:
    """A cohort that is frozen, where it is to be until it thaws."""
    return _carried(cohort, jax.memory.Space.Host if moments == "cpu" and _is_elsewhere() else None)


def taken(cohort: Cohort, moments: Moments) -> Cohort:
    """A cohort that thaws, where it was before."""
    return _carried(cohort, jax.memory.Space.Device if moments == "cpu" and _is_elsewhere() else None)


def _carried(cohort: Cohort, where: Any) -> Cohort:
    # Those that stay have the same counts: a buffer that is in the state twice could not be donated.
    counts = jax.tree.map(jnp.copy, cohort.counts)
    return Cohort(cohort.moments if where is None else jax.device_put(cohort.moments, where), counts)


def _is_elsewhere() -> bool:
    # On a processor all arrays are in the main memory, and XLA aborts where one of its host kind is donated.
    return jax.default_backend() != "cpu"
