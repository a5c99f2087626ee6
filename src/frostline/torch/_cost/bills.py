"""From what steps did to what they cost, unit by unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import final

from frostline._core.reporting.cost import Bill, Cost, UnitCost
from frostline.torch._cost.culprit import culprit_of
from frostline.torch._cost.optimizer import Keeping
from frostline.torch._cost.step import Gradient, Step
from frostline.torch._freezing.survey import Survey

Parts = Mapping[str, int]


@final
class Ledger:
    """Makes the bills of a model.

    Args:
        read: the model.
        keeping: what its optimizer keeps.
    """

    def __init__(self, read: Survey, keeping: Keeping) -> None:
        self._read, self._keeping = read, keeping

    def cost(self, now: Step, trained: Step, plain: Step) -> Cost:
        """The cost of a model.

        Args:
            now: a step as the model is frozen.
            trained: a step with all of it trained.
            plain: a step as it is frozen now, of which nothing is made cheap.
        """
        made, optimizer = self._made(now), self._kept(now)
        bills = {
            "now": _bills(now, optimizer),
            "all_trained": _bills(trained, self._made(trained)),
            "limit": _least_bills(plain, made),
        }
        paths = [path for path in self._read.modules if any(path in bills[name] for name in bills)]
        units = tuple(
            UnitCost(path, type(self._read.modules[path]).__name__, **{n: bills[n].get(path, Bill()) for n in bills})
            for path in paths
        )
        totals = {name: Bill.total(bills[name].values()) for name in bills}
        unneeded = sum(plain.saved.values()) - totals["limit"].saved_bytes
        whole = {
            "now": _peak(totals["now"], now),
            "all_trained": _peak(totals["all_trained"], trained),
            "limit": _peak(totals["limit"], plain, -unneeded),
        }
        return Cost(units, **whole, culprit=culprit_of(now, totals["now"].flops))

    def _kept(self, step: Step) -> Parts:
        """What the optimizer keeps, also for parameters that were frozen while it had moments for them."""
        parameters = self._read.parameters.items()
        return {path: self._keeping.now(tensor, is_moved=path in step.received) for path, tensor in parameters}

    def _made(self, step: Step) -> Parts:
        """What the optimizer keeps for the parameters that get a gradient."""
        parameters = self._read.parameters.items()
        return {path: self._keeping.predicted(tensor) for path, tensor in parameters if path in step.received}


def _peak(bill: Bill, step: Step, more: int = 0) -> Bill:
    peak = step.given + step.peak + bill.optimizer_bytes + more
    return replace(bill, peak_bytes=peak)


def _bills(step: Step, optimizer: Parts) -> dict[str, Bill]:
    forward = step.forward + step.repeated
    return _by_unit(forward, _flops(step.gradients, "flops"), step.saved, step.received, optimizer)


def _least_bills(step: Step, optimizer: Parts) -> dict[str, Bill]:
    return _by_unit(step.forward, _flops(step.gradients, "least"), step.least_saved, step.received, optimizer)


def _flops(gradients: Iterable[Gradient], name: str) -> tuple[Parts, Parts]:
    found: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for gradient in gradients:
        found[gradient.is_weights][gradient.unit] += getattr(gradient, name)
    return found


def _by_unit(
    forward: Parts, gradients: tuple[Parts, Parts], saved: Parts, received: Parts, optimizer: Parts
) -> dict[str, Bill]:
    columns = (forward, *gradients, saved, _by_owner(received), _by_owner(optimizer))
    paths = dict.fromkeys(path for column in columns for path, amount in column.items() if amount)
    return {path: Bill(*(column.get(path, 0) for column in columns)) for path in paths}


def _by_owner(parts: Parts) -> Parts:
    found: Counter[str] = Counter()
    for path, amount in parts.items():
        found[path.rpartition(".")[0]] += amount
    return found
