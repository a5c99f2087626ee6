"""Whether what is below a line is computed for each sample by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from frostline.jax._arrays import bytes_of, plain
from frostline.jax._jaxpr.model import Model
from frostline.jax._line import refusals
from frostline.jax._line.identity import constants
from frostline.jax._line.trace import Halves

Samples = list[jax.Array]


def check_apart(model: Model, few: Halves, more: Halves, names: Sequence[str]) -> None:
    """Computes one sample beside itself and beside another one: it must not notice, nor where in a batch it is.

    Args:
        model: the model.
        few: its halves for two samples.
        more: the same for three.
        names: of what crosses.

    Raises:
        LineError: it does.
    """
    one = [_whole(each)[:1] for each in model.inputs.values]
    other = [_another(each) for each in one]

    def found(halves: Halves, *samples: Samples) -> tuple[Any, ...]:
        return halves.compiled(model.tree.values, [jnp.concatenate(each) for each in zip(*samples, strict=True)])

    beside_itself, before, behind = found(few, one, one), found(few, one, other), found(few, other, one)
    pairs = list(zip(names, beside_itself, before, behind, strict=True))
    if changed := [name for name, itself, first, _ in pairs if bytes_of(itself[0]) != bytes_of(first[0])]:
        raise refusals.mixed(changed)
    if changed := [name for name, _, first, second in pairs if not _is_same(first, second[::-1])]:
        raise refusals.placed(changed)
    # Numbers may say how many samples there are. They rarely do, and compiling takes long.
    if list(constants(few.below_jaxpr)) != list(constants(more.below_jaxpr)):
        among_many = found(more, one, other, other)
        pairs = list(zip(names, before, among_many, behind, strict=True))
        if changed := [name for name, first, many, _ in pairs if not _is_same(first, many[:2])]:
            raise refusals.numbered(changed)


def _is_same(one: Any, other: Any) -> bool:
    """Whether rows are the same up to rounding, which may depend on where in a batch they are."""
    if not jnp.issubdtype(one.dtype, jnp.inexact):
        return bytes_of(one) == bytes_of(other)
    wide = np.complex128 if jnp.issubdtype(one.dtype, jnp.complexfloating) else np.float64
    a, b = plain(one).astype(wide), plain(other).astype(wide)
    largest = np.abs(a[np.isfinite(a)]).max(initial=0.0)
    return np.allclose(a, b, rtol=0.0, atol=float(jnp.finfo(one.dtype).eps) ** 0.5 * largest, equal_nan=True)


def _another(sample: jax.Array) -> jax.Array:
    # Zeros and ones are tokens and numbers alike, and each number is another one than in the sample.
    return jnp.where(sample == 0, 1, 0).astype(sample.dtype)


def _whole(array: jax.Array) -> jax.Array:
    """The array on every device of its mesh: a sample of one that is divided need not be anywhere."""
    sharding = getattr(array, "sharding", None)
    if not isinstance(sharding, NamedSharding):
        return array
    return jax.device_put(array, NamedSharding(sharding.mesh, PartitionSpec()))
