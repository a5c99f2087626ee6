"""L-BFGS, the one optimizer that writes parameters without a gradient, and what keeps it to trainable ones."""

from __future__ import annotations

import functools
from typing import Any

from torch.optim import LBFGS, Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook


@functools.cache
def keep_lbfgs_to_trainable() -> None:
    """Makes every step of L-BFGS leave frozen parameters out from now on; later calls do nothing.

    Other optimizers skip a parameter without a gradient. L-BFGS steps along one flat direction
    over all parameters, and its history from before a freeze points into what is frozen now. A
    history over other coordinates belongs to another problem, so it is dropped when what is
    trainable has changed.
    """
    register_optimizer_step_pre_hook(_leave_frozen_out)


def _leave_frozen_out(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    if not isinstance(optimizer, LBFGS):
        return
    trainable = [p for p in optimizer.param_groups[0]["params"] if p.requires_grad]
    if trainable and [id(p) for p in trainable] != [id(p) for p in optimizer._params]:
        optimizer._params = trainable
        optimizer._numel_cache = None
        optimizer.state.clear()
