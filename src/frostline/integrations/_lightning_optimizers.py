"""The optimizers of a Lightning module: what they must hold, and their bindings."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any
from weakref import WeakSet

from torch import nn
from torch.optim import LBFGS

from frostline import Rule
from frostline.schedules import Phase
from frostline.torch import Binding, bind
from frostline.torch._freezing.survey import survey
from frostline.torch._training.binding import LIVE
from frostline.torch._training.seen_through import chain_of

# The bindings of all fits.
_OF_FITS: WeakSet[Binding] = WeakSet()


def release_earlier(module: nn.Module) -> None:
    """Ends the bindings of earlier fits of a module, whose trainers may still be there."""
    own = set(map(id, module.parameters()))
    for binding in [each for each in LIVE if each in _OF_FITS]:
        if own.intersection(map(id, binding.check_bound("Freezing").values())):
            binding.release()


def complete(trainer: Any, module: nn.Module, still: AbstractSet[str]) -> None:
    """Calls ``configure_optimizers`` again, if it has left out what is frozen now and thaws later.

    Args:
        trainer: the trainer.
        module: its module.
        still: what never thaws.
    """
    read = survey(module)
    free = [read.parameters[path] for path in Phase().plan(read.inventory).trainable & read.parameters.keys() - still]
    frozen = [parameter for parameter in free if not parameter.requires_grad]
    inside = {id(p) for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]}
    bindings = [binding for optimizer in trainer.optimizers if (binding := _binding_of(optimizer)) is not None]
    for binding in bindings:
        inside |= set(map(id, binding.check_bound("Freezing").values()))
    if inside.issuperset(map(id, frozen)):
        return
    for binding in bindings:
        binding.release()
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        trainer.strategy.setup_optimizers(trainer)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def bound(trainer: Any, module: nn.Module, rules: Sequence[Rule]) -> list[Binding]:
    """Binds each optimizer to what it was made with, unless it is bound already.

    Those without parameters of the module, and L-BFGS, are left alone.
    """
    own = set(map(id, module.parameters()))
    found = []
    for optimizer in trainer.optimizers:
        inside = [p for group in optimizer.param_groups for p in group["params"] if id(p) in own]
        binding = _binding_of(optimizer)
        if binding is None and inside and not isinstance(chain_of(optimizer)[-1], LBFGS):
            binding = bind(optimizer, module, inside, rules=rules)
        if binding is not None:
            _OF_FITS.add(binding)
            found.append(binding)
    return found


def _binding_of(optimizer: Any) -> Binding | None:
    inner = chain_of(optimizer)[-1]
    return next((binding for binding in LIVE if binding.optimizer is inner), None)
