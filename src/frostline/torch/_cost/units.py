"""The cost of a model from its steps, unit by unit, and the parameters that make a step expensive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from frostline._core.reporting.bill import Bill, Culprit, UnitCost
from frostline._core.reporting.cost import Cost
from frostline._core.selecting.pattern import covering
from frostline.torch._cost.optimizer import Keeping
from frostline.torch._cost.step import ASKED, NOWHERE, Gradient, Step
from frostline.torch._freezing.survey import Survey

Parts = Mapping[str, int]


def cost_of(read: Survey, keeping: Keeping, now: Step, trained: Step, plain: Step) -> Cost:
    """The cost of a model.

    Args:
        read: the survey of the model.
        keeping: the bytes that its optimizer keeps.
        now: a step of the model as it is frozen.
        trained: a step with everything trained.
        plain: a step of the model as it is frozen, without lean.
    """
    parameters = read.parameters
    # The optimizer keeps moments also for parameters that were frozen while it had some for them.
    kept = {path: keeping.now(tensor, is_moved=path in now.received) for path, tensor in parameters.items()}

    def made(step: Step) -> Parts:
        return {path: keeping.predicted(tensor) for path, tensor in parameters.items() if path in step.received}

    forward = now.forward + now.repeated
    bills = {
        "now": _by_unit(forward, _flops(now.gradients, "flops"), now.saved, now.received, kept),
        "all_trained": _by_unit(
            trained.forward + trained.repeated,
            _flops(trained.gradients, "flops"),
            trained.saved,
            trained.received,
            made(trained),
        ),
        "limit": _by_unit(
            plain.forward, _flops(plain.gradients, "least"), plain.least_saved, plain.received, made(now)
        ),
    }
    paths = [path for path in read.modules if any(path in bills[name] for name in bills)]
    units = tuple(
        UnitCost(path, type(read.modules[path]).__name__, **{n: bills[n].get(path, Bill()) for n in bills})
        for path in paths
    )
    totals = {name: Bill.total(bills[name].values()) for name in bills}
    unneeded = sum(plain.saved.values()) - totals["limit"].saved_bytes
    return Cost(
        units,
        now=_peak(totals["now"], now),
        all_trained=_peak(totals["all_trained"], trained),
        limit=_peak(totals["limit"], plain, -unneeded),
        culprit=culprit_of(now, totals["now"].flops),
    )


def _peak(bill: Bill, step: Step, more: int = 0) -> Bill:
    peak = step.given + step.peak + bill.optimizer_bytes + more
    return replace(bill, peak_bytes=peak)


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


_WORTH_SAYING = 0.1


def culprit_of(step: Step, flops: int) -> Culprit | None:
    """Returns the first trainable parameters, if a long chain of frozen units passes a gradient on only for them.

    The chain is the longest stretch of frozen units between two trainable parameters. If each layer has some trainable
    parameters, as with adapters, all stretches are short, and there is no culprit.

    Args:
        step: a step of the model as it is frozen.
        flops: the operations of that step.
    """
    chains = Counter[int]()
    through_frozen = {gradient.reach for gradient in step.gradients if gradient.meets_frozen}
    for gradient in step.gradients:
        if _is_passed_on(gradient) and gradient.reach in through_frozen and gradient.reach < len(step.order) - 1:
            chains[gradient.reach] += gradient.flops
    last, longest = max(chains.items(), key=lambda item: item[1], default=(0, 0))
    spared = [gradient for gradient in step.gradients if NOWHERE < gradient.reach <= last]
    without = flops - sum(gradient.flops for gradient in spared)
    if longest <= _WORTH_SAYING * without:
        return None
    paths = step.order[: last + 1]
    named = ", ".join(f'"{pattern}"' for pattern in covering(paths, step.order[last + 1 :]))
    return Culprit(
        paths=paths,
        chain_flops=sum(gradient.flops for gradient in spared if _is_passed_on(gradient)),
        flops=flops,
        flops_without=without,
        fix=f"ft.freeze(model, {named})",
    )


def _is_passed_on(gradient: Gradient) -> bool:
    return gradient.is_of_frozen and not gradient.is_weights and gradient.reach not in {ASKED, NOWHERE}
