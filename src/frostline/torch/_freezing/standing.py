"""What freezing changes in a model, as it stood before a call, so that the call is done whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from frostline.torch._freezing.held_modules import hold_frozen_modules
from frostline.torch._freezing.survey import Survey
from frostline.torch._holding.claims import ATTRIBUTE, Claim, ClaimStack, Ledger, ledger_of
from frostline.torch._holding.classes import HOLD, Hold


@dataclass(frozen=True)
class Standing:
    """The claims, flags, gradients and held modules of a model.

    Attributes:
        read: the model.
        ledgers: the claims of each module that has some.
        stacks: what is in each of these claim stacks: whether the parameter trained before, and the claims.
        flags: ``requires_grad`` and the gradient of each parameter.
        holds: what is remembered of each held module.
    """

    read: Survey
    ledgers: dict[nn.Module, Ledger]
    stacks: list[tuple[ClaimStack, bool, list[Claim]]]
    flags: list[tuple[nn.Parameter, bool, torch.Tensor | None]]
    holds: dict[nn.Module, Hold]

    @classmethod
    def of(cls, read: Survey) -> Standing:
        """Returns how a model stands now."""
        modules = _modules(read)
        ledgers = {module: dict(ledger) for module in modules if (ledger := ledger_of(module))}
        stacks = {id(stack): stack for ledger in ledgers.values() for stack in ledger.values()}
        return cls(
            read,
            ledgers,
            [(stack, stack.before, list(stack.claims)) for stack in stacks.values()],
            [(parameter, parameter.requires_grad, parameter.grad) for parameter in read.parameters.values()],
            {module: module.__dict__[HOLD] for module in modules if HOLD in module.__dict__},
        )

    def restore(self) -> None:
        """Takes back what was done since, in place."""
        for module in _modules(self.read):
            # A new stack is known by its tensor, too; without claims it means nothing.
            for stack in ledger_of(module).values():
                stack.claims.clear()
            module.__dict__.pop(ATTRIBUTE, None)
            if (ledger := self.ledgers.get(module)) is not None:
                module.__dict__[ATTRIBUTE] = dict(ledger)
        for stack, before, claims in self.stacks:
            stack.before, stack.claims[:] = before, claims
        for parameter, flag, gradient in self.flags:
            parameter.requires_grad_(flag)
            parameter.grad = gradient
        hold_frozen_modules(self.read)
        for module, hold in self.holds.items():
            if HOLD in module.__dict__:
                module.__dict__[HOLD] = hold


def _modules(read: Survey) -> list[nn.Module]:
    return list(dict.fromkeys(read.modules.values()))
