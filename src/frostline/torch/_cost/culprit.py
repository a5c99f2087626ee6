"""The trainable tensors near the input that make a step dear."""

from __future__ import annotations

from collections import Counter

from frostline._core.reporting.cost import Culprit
from frostline._core.selecting.pattern import covering
from frostline.torch._cost.step import ASKED, NOWHERE, Gradient, Step

_WORTH_SAYING = 0.1


def culprit_of(step: Step, flops: int) -> Culprit | None:
    """The first parameters of a model, if a long chain of frozen units must pass a gradient on for them alone.

    The chain that counts is the longest stretch of frozen units between two parameters that are trained. Where a
    little is trained in each layer, as with adapters, all stretches are short, and there is no culprit.

    Args:
        step: a step as the model is frozen.
        flops: what it costs.
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
