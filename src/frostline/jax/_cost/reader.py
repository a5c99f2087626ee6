"""The work of a traced step: its floating-point operations, with the unit of the model that does them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from typing import Any, final

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from frostline.jax._jaxpr.equations import function_of, variables
from frostline.jax._jaxpr.flops import flops, flops_of
from frostline.jax._jaxpr.saved import backward
from frostline.jax._jaxpr.weights import (
    FLOWS,
    MOVES,
    WeightFlow,
    calls,
    inner_outputs,
    is_weight,
    numbers,
    with_gradient,
)

NOWHERE = -1
_REPEATS = frozenset({"checkpoint", "remat", "remat2"})
_RULES = frozenset({"custom_vjp_call", "custom_vjp_call_jaxpr"})


@final
@dataclass(frozen=True)
class GradientWork:
    """The work for one gradient.

    Attributes:
        unit: the unit that does it.
        flops: its operations.
        is_weights: whether it is a gradient with respect to a weight.
        is_of_frozen: whether the product has no trained weight.
        reach: the last trained weight below it, by the order of their use; `NOWHERE` if there is none.
    """

    unit: str
    flops: int
    is_weights: bool
    is_of_frozen: bool
    reach: int


@final
@dataclass
class StepWork:
    """The work of a step.

    Attributes:
        forward: operations of the forward pass, by unit.
        repeated: operations of the forward pass that are done again during backward, by unit.
        gradients: work for gradients.
    """

    forward: list[tuple[str, int]] = field(default_factory=list)
    repeated: list[tuple[str, int]] = field(default_factory=list)
    gradients: list[GradientWork] = field(default_factory=list)

    @property
    def flops(self) -> int:
        """All operations."""
        forward = sum(count for _, count in [*self.forward, *self.repeated])
        return forward + sum(gradient.flops for gradient in self.gradients)


@final
@dataclass(frozen=True)
class _Reading:
    """An equation with the bits and units of its operands, the bits of its results, and its own unit."""

    jaxpr: Jaxpr
    equation: Any
    bits: list[int]
    units: list[str]
    results: list[int]
    unit: str
    with_gradient: list[bool]
    times: int


@final
class StepReader:
    """Reads a step, and notes the work of each unit.

    An equation that reads weights belongs to the innermost unit that has them all, any other one to the unit that
    computed the latest value that it reads.

    Args:
        names: the path of each weight, by its number.
        moves: for each weight, whether it is trained.

    Attributes:
        work: the work.
        order: the numbers of the trained weights, in the order of their use.
    """

    def __init__(self, names: Sequence[str], moves: Sequence[bool]) -> None:
        self._names, self._moves = names, moves
        self._flow = WeightFlow()
        self.work = StepWork()
        self.order: list[int] = []

    def through(
        self, closed: ClosedJaxpr, bits: Sequence[int], units: Sequence[str], outputs: Sequence[bool], times: int = 1
    ) -> list[str]:
        """Notes the work of a function, and returns the unit of each of its outputs.

        Args:
            closed: the function.
            bits: the bits of its inputs.
            units: the units of its inputs.
            outputs: for each output, whether its gradient matters.
            times: how often it runs.
        """
        jaxpr = closed.jaxpr
        known: dict[Any, int] = dict.fromkeys(jaxpr.constvars, 0) | dict(zip(jaxpr.invars, bits, strict=True))
        places: dict[Any, str] = dict.fromkeys(jaxpr.constvars, "") | dict(zip(jaxpr.invars, units, strict=True))
        ages = dict.fromkeys(places, -1)
        matters = with_gradient(jaxpr, outputs)
        for age, equation in enumerate(jaxpr.eqns):
            operands = [0 if isinstance(atom, Literal) else known[atom] for atom in equation.invars]
            flowing = (atom for atom in variables(equation.invars) if known[atom] & FLOWS)
            latest = max(flowing, key=ages.__getitem__, default=None)
            reading = _Reading(
                jaxpr,
                equation,
                operands,
                ["" if isinstance(atom, Literal) else places[atom] for atom in equation.invars],
                self._flow.results(equation, operands),
                self._unit(operands, "" if latest is None else places[latest]),
                [atom in matters for atom in equation.outvars],
                times,
            )
            places.update(zip(equation.outvars, self._one(reading), strict=True))
            known.update(zip(equation.outvars, reading.results, strict=True))
            ages.update(dict.fromkeys(equation.outvars, age))
        return ["" if isinstance(atom, Literal) else places[atom] for atom in jaxpr.outvars]

    def _unit(self, operands: Iterable[int], default: str) -> str:
        weights = sorted({number for bits in operands if is_weight(bits) for number in numbers(bits)})
        if not weights:
            return default
        keys = (self._names[number].split(".")[:-1] for number in weights)
        common = takewhile(lambda column: len(set(column)) == 1, zip(*keys, strict=False))
        return ".".join(column[0] for column in common)

    def _one(self, reading: _Reading) -> list[str]:
        """Notes the work of an equation, and returns the units of its results."""
        name = reading.equation.primitive.name
        if name in _RULES:
            return self._rule(reading)
        found = list(calls(reading.equation, reading.bits, reading.results))
        if not found:
            return self._product(reading)
        if name == "cond":
            return self._dearest(reading, found)
        units = [reading.unit] * len(reading.results)
        outputs = inner_outputs(reading.equation, reading.with_gradient)
        for call in found:
            returns = len(call.closed.jaxpr.outvars)
            has_all = returns == len(outputs)
            given = reading.units if len(call.bits) == len(reading.units) else [reading.unit] * len(call.bits)
            inside = outputs if has_all else [False] * returns
            run = partial(self.through, call.closed, call.bits, given, inside, reading.times * call.times)
            returned = _on_mesh(reading.equation, run) if name == "shard_map" else run()
            units = returned if has_all else units
        if name in _REPEATS and _has_gradient(reading):
            (call,) = found
            once = flops_of(backward(call.closed, [bool(bits & MOVES) for bits in call.bits])) * reading.times
            self.work.repeated.append((reading.unit, _both_passes(reading) - once))
        return units

    def _product(self, reading: _Reading) -> list[str]:
        trained = {n for bits in reading.bits if is_weight(bits) for n in numbers(bits) if self._moves[n]}
        self.order.extend(sorted(trained.difference(self.order)))
        if count := flops(reading.equation) * reading.times:
            self.work.forward.append((reading.unit, count))
            for own in reading.bits[:2] if any(reading.with_gradient) else ():
                if own & MOVES:
                    self._note(reading, count, own, is_of_frozen=not trained)
        return [reading.unit] * len(reading.results)

    def _rule(self, reading: _Reading) -> list[str]:
        """Notes the work of a function with a rule for its gradients, which is that of the rule."""
        ((closed, *_),) = calls(reading.equation, reading.bits, reading.results)
        forward = flops_of(closed) * reading.times
        self.work.forward.append((reading.unit, forward))
        if _has_gradient(reading) and (more := _both_passes(reading) - forward):
            self._note(reading, more, max(reading.bits, key=self._reach), is_of_frozen=False)
        return [reading.unit] * len(reading.results)

    def _dearest(self, reading: _Reading, branches: Iterable[Any]) -> list[str]:
        work, tried = self.work, []
        for call in branches:
            self.work = StepWork()
            units = self.through(call.closed, call.bits, reading.units[1:], reading.with_gradient, reading.times)
            tried.append((self.work, units))
        dearest, units = max(tried, key=lambda one: one[0].flops)
        work.forward += dearest.forward
        work.repeated += dearest.repeated
        work.gradients += dearest.gradients
        self.work = work
        return units

    def _note(self, reading: _Reading, count: int, own: int, *, is_of_frozen: bool) -> None:
        self.work.gradients.append(GradientWork(reading.unit, count, is_weight(own), is_of_frozen, self._reach(own)))

    def _reach(self, bits: int) -> int:
        below = set(numbers(bits))
        return max((place for place, number in enumerate(self.order) if number in below), default=NOWHERE)


def _has_gradient(reading: _Reading) -> bool:
    return any(reading.with_gradient) and any(bits & MOVES for bits in reading.bits)


def _both_passes(reading: _Reading) -> int:
    """Operations of forward and backward, when an equation is differentiated by itself."""
    equation = reading.equation
    found = {
        atom: bool(bits & MOVES)
        for atom, bits in zip(equation.invars, reading.bits, strict=True)
        if not isinstance(atom, Literal)
    }
    alone = function_of(reading.jaxpr, [equation], found, equation.outvars)
    return flops_of(backward(alone, list(found.values()))) * reading.times


def _on_mesh(equation: Any, run: Callable[[], list[str]]) -> list[str]:
    """Runs a function where the axes of a mesh have their names, which collectives in it ask for."""
    params, found = equation.params, list[list[str]]()

    def on_mesh() -> tuple[()]:
        found.append(run())
        return ()

    axes = set(params.get("newly_manual_axes", params["mesh"].axis_names))
    mapped = jax.shard_map(
        on_mesh, mesh=params["mesh"], in_specs=(), out_specs=(), axis_names=axes, check_vma=params["check_vma"]
    )
    jax.eval_shape(mapped)
    return found[0]
