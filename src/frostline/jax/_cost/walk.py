"""A way through a traced function that notes what each unit of the model does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any, final

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from frostline.jax._cost.work import NOWHERE, Gradient, Work
from frostline.jax._jaxpr.flops import flops, flops_of
from frostline.jax._jaxpr.saved import backward
from frostline.jax._jaxpr.wanted import inside, wanted
from frostline.jax._jaxpr.weights import FLOWS, MOVES, Weights, calls, is_weight, numbers
from frostline.jax._lean.lean_regions import function_of

_REPEATS = frozenset({"checkpoint", "remat", "remat2"})
_RULES = frozenset({"custom_vjp_call", "custom_vjp_call_jaxpr"})


@final
@dataclass(frozen=True)
class _Seen:
    """An equation as the walk meets it: bits and units of its operands, bits of its results, and its own unit."""

    jaxpr: Jaxpr
    equation: Any
    bits: list[int]
    units: list[str]
    results: list[int]
    unit: str
    wanted: list[bool]
    times: int


@final
class Walk:
    """One way through a function.

    What reads weights belongs to the innermost unit that has them all; anything else to the unit that computed the
    latest of what it reads.

    Args:
        names: the path of each weight, by its number.
        moves: of each weight, whether it is trained.
    """

    def __init__(self, names: Sequence[str], moves: Sequence[bool]) -> None:
        self._names, self._moves = names, moves
        self._flow = Weights()
        self.work = Work()
        self.order: list[int] = []

    def through(
        self, closed: ClosedJaxpr, bits: Sequence[int], units: Sequence[str], outputs: Sequence[bool], times: int = 1
    ) -> list[str]:
        """Notes the work of a function, and returns the unit of each of its outputs.

        Args:
            closed: the function.
            bits: those of its inputs.
            units: those of its inputs.
            outputs: of each output, whether its gradient matters.
            times: how often it runs.
        """
        jaxpr = closed.jaxpr
        known: dict[Any, int] = dict.fromkeys(jaxpr.constvars, 0) | dict(zip(jaxpr.invars, bits, strict=True))
        places: dict[Any, str] = dict.fromkeys(jaxpr.constvars, "") | dict(zip(jaxpr.invars, units, strict=True))
        ages = dict.fromkeys(places, -1)
        matters = wanted(jaxpr, outputs)
        for age, equation in enumerate(jaxpr.eqns):
            atoms = [atom for atom in equation.invars if not isinstance(atom, Literal)]
            of_operands = [0 if isinstance(atom, Literal) else known[atom] for atom in equation.invars]
            latest = max((a for a in atoms if known[a] & FLOWS), key=ages.__getitem__, default=None)
            seen = _Seen(
                jaxpr,
                equation,
                of_operands,
                ["" if isinstance(atom, Literal) else places[atom] for atom in equation.invars],
                self._flow.results(equation, of_operands),
                self._unit(of_operands, "" if latest is None else places[latest]),
                [atom in matters for atom in equation.outvars],
                times,
            )
            places.update(zip(equation.outvars, self._one(seen), strict=True))
            known.update(zip(equation.outvars, seen.results, strict=True))
            ages.update(dict.fromkeys(equation.outvars, age))
        return ["" if isinstance(atom, Literal) else places[atom] for atom in jaxpr.outvars]

    def _unit(self, operands: Iterable[int], default: str) -> str:
        read = sorted({number for bits in operands if is_weight(bits) for number in numbers(bits)})
        keys = [self._names[number].split(".")[:-1] for number in read]
        return ".".join(_common(keys)) if keys else default

    def _one(self, seen: _Seen) -> list[str]:
        """Notes the work of an equation, and returns the units of its results."""
        name = seen.equation.primitive.name
        if name in _RULES:
            return self._by_rule(seen)
        found = list(calls(seen.equation, seen.bits, seen.results))
        if not found:
            return self._product(seen)
        if name == "cond":
            return self._dearest(seen, found)
        units = [seen.unit] * len(seen.results)
        outputs = inside(seen.equation, seen.wanted)
        for call in found:
            is_whole = len(call.closed.jaxpr.outvars) == len(outputs)
            given = seen.units if len(call.bits) == len(seen.units) else [seen.unit] * len(call.bits)
            wanted_there = outputs if is_whole else [False] * len(call.closed.jaxpr.outvars)
            run = partial(self.through, call.closed, call.bits, given, wanted_there, seen.times * call.times)
            returned = _on_mesh(seen.equation, run) if name == "shard_map" else run()
            units = returned if is_whole else units
        if name in _REPEATS and self._has_gradient(seen):
            (call,) = found
            once = flops_of(backward(call.closed, [bool(bits & MOVES) for bits in call.bits])) * seen.times
            self.work.repeated.append((seen.unit, self._of_step(seen) - once))
        return units

    def _product(self, seen: _Seen) -> list[str]:
        trained = {n for bits in seen.bits if is_weight(bits) for n in numbers(bits) if self._moves[n]}
        self.order.extend(sorted(trained.difference(self.order)))
        if count := flops(seen.equation) * seen.times:
            self.work.forward.append((seen.unit, count))
            for own in seen.bits[:2] if any(seen.wanted) else ():
                if own & MOVES:
                    self._note(seen, count, own, is_of_frozen=not trained)
        return [seen.unit] * len(seen.results)

    def _by_rule(self, seen: _Seen) -> list[str]:
        """What has a rule of its own for its gradients costs what the rule does."""
        ((closed, *_),) = calls(seen.equation, seen.bits, seen.results)
        forward = flops_of(closed) * seen.times
        self.work.forward.append((seen.unit, forward))
        if self._has_gradient(seen) and (more := self._of_step(seen) - forward):
            self._note(seen, more, max(seen.bits, key=self._reach), is_of_frozen=False)
        return [seen.unit] * len(seen.results)

    def _dearest(self, seen: _Seen, branches: Iterable[Any]) -> list[str]:
        whole, tried = self.work, []
        for call in branches:
            self.work = Work()
            units = self.through(call.closed, call.bits, seen.units[1:], seen.wanted, seen.times)
            tried.append((self.work, units))
        dearest, units = max(tried, key=lambda one: one[0].flops)
        whole.add(dearest)
        self.work = whole
        return units

    def _note(self, seen: _Seen, count: int, own: int, *, is_of_frozen: bool) -> None:
        self.work.gradients.append(Gradient(seen.unit, count, is_weight(own), is_of_frozen, self._reach(own)))

    def _reach(self, bits: int) -> int:
        above = set(numbers(bits))
        return max((place for place, number in enumerate(self.order) if number in above), default=NOWHERE)

    def _has_gradient(self, seen: _Seen) -> bool:
        return any(seen.wanted) and any(bits & MOVES for bits in seen.bits)

    def _of_step(self, seen: _Seen) -> int:
        """Operations of forward and backward, as they are when an equation is differentiated by itself."""
        equation = seen.equation
        found = {
            atom: bool(bits & MOVES)
            for atom, bits in zip(equation.invars, seen.bits, strict=True)
            if not isinstance(atom, Literal)
        }
        alone = function_of(seen.jaxpr, [equation], found, equation.outvars)
        return flops_of(backward(alone, list(found.values()))) * seen.times


def _on_mesh(equation: Any, run: Callable[[], list[str]]) -> list[str]:
    """Runs something where the axes of a mesh have their names, which collectives in it ask for."""
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


def _common(keys: Sequence[list[str]]) -> list[str]:
    """What all of some paths begin with."""
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*keys, strict=False))
    return [column[0] for column in columns]
