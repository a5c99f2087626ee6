"""The likely cause of a movement, read from the bytes of the array."""

from __future__ import annotations

from typing import Any

import numpy as np

Numbers = np.ndarray[Any, Any]


def likely_cause(kind: str, before: bytes | None, now: Numbers) -> tuple[str, str]:
    """The likely cause, and the fix.

    Args:
        kind: "parameter" or "buffer".
        before: the bytes of the array when it was frozen, if they are known.
        now: the present array, of the same dtype and shape.
    """
    if kind == "buffer":
        return (
            "a layer in training mode returned new state, and the step put it into the tree",
            "Give the layer a bool leaf called inference, which freezing sets, or keep the old state of frozen layers.",
        )
    if before is not None and _is_scaled(np.frombuffer(before, now.dtype), now.reshape(-1)):
        cause = "weight decay: all values were scaled by one factor, as by an optimizer over all leaves"
    else:
        cause = "an update of all leaves, as by an optimizer over all of them, or new state of a layer"
    return cause, "Give the optimizer the trainable part alone: tx = optimizer(tx), or tx.init(split(tree)[0])."


def _is_scaled(before: Numbers, now: Numbers) -> bool:
    """Whether all values were multiplied by one number, up to rounding."""
    old, new = before.astype(np.complex128), now.astype(np.complex128)
    ratios = new[old != 0] / old[old != 0]
    return bool(ratios.size > 1 and np.ptp(np.abs(ratios)) <= 0.01 * np.abs(1 - ratios[0]))
