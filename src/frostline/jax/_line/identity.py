"""The digest of the part below a line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from frostline._core.errors import LineError
from frostline._core.errors.base import counted
from frostline._core.fingerprint import Bytes, digest, digest_of
from frostline.jax._arrays import bytes_of
from frostline.jax._jaxpr.equations import functions_in, nested, part, variables

# The text of a function shows its address in memory, which differs between processes.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def identity(below: ClosedJaxpr, names: Sequence[str], arrays: Sequence[Any]) -> str:
    """The digest of a function of the arrays of a tree and of inputs, and of the arrays that it reads.

    Raises:
        LineError: it calls a Python function, about which a trace says nothing.
    """
    steps = (each.primitive.name for equation in below.jaxpr.eqns for each in nested(equation))
    if outside := tuple(name for name in steps if name == "pure_callback"):
        problem = f"cannot cover {counted(len(outside), 'Python function')} below the line, whose work may change."
        fix = 'Call it in the dataset, and give it a name: FeatureCache(..., preprocessing="name").'
        raise LineError("line.fingerprint()", problem, outside, fix)
    jaxpr = below.jaxpr
    read = {atom for equation in jaxpr.eqns for atom in variables(equation.invars)}
    leaves = [each for each in zip(jaxpr.invars, names, arrays, strict=False) if each[0] in read]
    # Without the arrays that are not read: a tree may have another head.
    inputs = [*(atom for atom, _, _ in leaves), *jaxpr.invars[len(arrays) :]]
    text = str(part(below, inputs, jaxpr.outvars).jaxpr)
    digests = [f"{name} {digest_of(str(leaf.dtype), leaf.shape, (bytes_of(leaf),))}" for _, name, leaf in leaves]
    return digest([_ADDRESS.sub("", text).encode(), *constants(below), "\n".join(digests).encode()])


def constants(closed: ClosedJaxpr) -> Iterator[Bytes]:
    """The bytes of the constants in a function, which its text does not show."""
    yield from map(bytes_of, closed.consts)
    for equation in closed.jaxpr.eqns:
        yield from (bytes_of(np.asarray(atom.val)) for atom in equation.invars if isinstance(atom, Literal))
        for inner in functions_in(equation):
            yield from constants(inner)
