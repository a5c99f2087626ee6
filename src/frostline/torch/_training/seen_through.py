"""The optimizer inside of those that wrap another one, as Accelerate's, Lightning's, Lookahead and SAM do."""

from __future__ import annotations

import sys
from typing import Any

from torch.optim import Optimizer

from frostline._core.errors import BindError

# Where the wrappers of the field keep the optimizer that they wrap.
_PLACES = ("optimizer", "base_optimizer", "_base_optimizer")


def chain_of(optimizer: Any) -> tuple[Any, ...]:
    """Returns an optimizer and those inside of it, the innermost one last.

    Raises:
        BindError: the innermost one is not an optimizer, or was never made by ``Optimizer.__init__``.
    """
    found = [optimizer]
    while (inner := _inside(found[-1])) is not None and not any(inner is each for each in found):
        found.append(inner)
    last = found[-1]
    if not isinstance(last, Optimizer) or "_optimizer_step_pre_hooks" not in last.__dict__:
        name = type(last).__name__
        is_one = isinstance(last, Optimizer)
        problem = "never called Optimizer.__init__, so it has no hooks" if is_one else "is not an optimizer of PyTorch"
        raise BindError(
            f"bind({name}, model)",
            f"{problem}, and has no optimizer as .optimizer or .base_optimizer.",
            (),
            "Bind the optimizer that takes the step: bind(torch.optim.AdamW(model.parameters()), model).",
        )
    return tuple(found)


def accumulates() -> bool:
    """Whether an accelerator, of the library of that name, is amid the batches of a step."""
    loaded = sys.modules.get("accelerate.state")
    return loaded is not None and not loaded.GradientState().sync_gradients


def _inside(optimizer: Any) -> Any:
    # Learning-rate schedulers have an optimizer, and are none.
    for place in _PLACES if hasattr(optimizer, "param_groups") else ():
        inner = getattr(optimizer, place, None)
        if inner is not None and hasattr(inner, "param_groups") and hasattr(inner, "step"):
            return inner
    return None
