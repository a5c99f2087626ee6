"""What a line is below, as a digest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from frostline._core.fingerprint import Bytes, digest, digest_of
from frostline.jax._arrays import bytes_of
from frostline.jax._jaxpr.partial_inner import closed_in
from frostline.jax._jaxpr.split import part, variables

# Functions show where they are in memory, which says nothing of what they do.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def identity(below: ClosedJaxpr, names: Sequence[str], arrays: Sequence[Any]) -> str:
    """The digest of a function of the arrays of a tree and of inputs, and of the arrays that it reads.

    Args:
        below: the function.
        names: of the arrays of the tree.
        arrays: the arrays of the tree.
    """
    jaxpr = below.jaxpr
    read = {atom for equation in jaxpr.eqns for atom in variables(equation.invars)}
    leaves = [each for each in zip(jaxpr.invars, names, arrays, strict=False) if each[0] in read]
    # Without what is not read: a tree may have another head.
    inputs = [*(atom for atom, _, _ in leaves), *jaxpr.invars[len(arrays) :]]
    text = str(part(below, inputs, jaxpr.outvars).jaxpr)
    digests = [f"{name} {digest_of(str(leaf.dtype), leaf.shape, (bytes_of(leaf),))}" for _, name, leaf in leaves]
    return digest([_ADDRESS.sub("", text).encode(), *constants(below), "\n".join(digests).encode()])


def constants(closed: ClosedJaxpr) -> Iterator[Bytes]:
    """The bytes of numbers and arrays that a function brings: its text does not show them."""
    yield from map(bytes_of, closed.consts)
    for equation in closed.jaxpr.eqns:
        yield from (bytes_of(np.asarray(atom.val)) for atom in equation.invars if isinstance(atom, Literal))
        for inner in closed_in(equation):
            yield from constants(inner)


def called_outside(closed: ClosedJaxpr) -> Iterator[str]:
    """The names of the steps of a function that are functions of Python, of which nothing is known."""
    for equation in closed.jaxpr.eqns:
        if equation.primitive.name == "pure_callback":
            yield equation.primitive.name
        for inner in closed_in(equation):
            yield from called_outside(inner)
