"""The trainable parameters near the input that make a step dear."""

from __future__ import annotations

from collections import Counter

from frostline._core.reporting.cost import Culprit
from frostline._core.selecting.pattern import covering
from frostline.jax._cost.step import Step
from frostline.jax._cost.work import NOWHERE, Gradient

_WORTH_SAYING = 0.1


def culprit_of(step: Step) -> Culprit | None:
    """The first parameters of a model, if a long chain of frozen units must pass a gradient on for them alone.

    The chain that counts is the longest stretch of frozen units between two parameters that are trained. Where a
    little is trained in each layer, as with adapters, all stretches are short, and there is no culprit.
    """
    walk = step.walk
    order = [step.names[number] for number in walk.order]
    chains = Counter[int]()
    for gradient in walk.work.gradients:
        if _is_passed_on(gradient) and gradient.reach < len(order) - 1:
            chains[gradient.reach] += gradient.flops
    last, longest = max(chains.items(), key=lambda item: item[1], default=(0, 0))
    spared = [each for each in walk.work.gradients if NOWHERE < each.reach <= last]
    without = walk.work.flops - sum(each.flops for each in spared)
    if longest <= _WORTH_SAYING * without:
        return None
    paths = order[: last + 1]
    named = ", ".join(f'"{pattern}"' for pattern in covering(paths, order[last + 1 :]))
    chain = sum(each.flops for each in spared if _is_passed_on(each))
    return Culprit(tuple(paths), chain, walk.work.flops, without, f"tree = fj.freeze(tree, {named})")


def _is_passed_on(gradient: Gradient) -> bool:
    return gradient.is_of_frozen and not gradient.is_weights and gradient.reach != NOWHERE
