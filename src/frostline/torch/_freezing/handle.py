"""The way back from a freezing or thawing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from torch import nn

from frostline._core.errors import UnsupportedError
from frostline._core.errors.base import counted
from frostline._core.plan import Plan
from frostline.torch._freezing.held_modules import hold_frozen_modules
from frostline.torch._freezing.survey import Survey, survey
from frostline.torch._freezing.wrapped import check_wrapped
from frostline.torch._holding.claims import Claim, ClaimStack, Site, ledger_of, sites_of, withdraw
from frostline.torch._holding.moved_claims import lost_claims, settle
from frostline.torch._holding.thaws import thaws_noted


class Handle:
    """The way back from one freezing or thawing, in any order with others; also a context manager.

    Attributes:
        plan: what was frozen when the handle was made.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> with freeze(model, "0"):
        ...     model[0].weight.requires_grad
        False
        >>> model[0].weight.requires_grad
        True
    """

    def __init__(self, root: nn.Module, claims: dict[Claim, list[Site]], plan: Plan) -> None:
        self.plan = plan
        self._root = root
        self._claims = claims
        self._own()

    def undo(self) -> None:
        """Undoes this freezing or thawing and no other, in place. Idempotent.

        Parameters that pruning, a parametrization or the conversion of a module took elsewhere are found there.

        Raises:
            UnsupportedError: one of the parameters is no parameter any more. Nothing is changed then.
            WrappedError, RankError: as in :func:`freeze`. Nothing is changed then.
        """
        read = survey(self._root)
        modules = list(dict.fromkeys(read.modules.values()))
        self._check_found(modules)
        settle(modules)
        check_wrapped(self._root, read, "handle.undo()", self._after(read))
        try:
            with thaws_noted(read.parameters.values()):
                self._withdraw(read)
        except BaseException:  # an interrupt: what was begun is finished
            self._withdraw(read)
            raise

    def _after(self, read: Survey) -> dict[str, bool]:
        """Returns whether the parameters are to train without these claims."""
        own = set(map(id, self._claims))
        stacks = (
            (path, ledger_of(module).get(local)) for path in read.parameters for module, local in read.sites[path]
        )
        return {
            path: ClaimStack(stack.before, [claim for claim in stack.claims if id(claim) not in own]).trains
            for path, stack in stacks
            if stack is not None and not own.isdisjoint(map(id, stack.claims))
        }

    def _withdraw(self, read: Survey) -> None:
        withdraw([*self._sites(), *sites_of(read.modules.values(), self._claims)], self._claims)
        hold_frozen_modules(read)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.undo()

    def __repr__(self) -> str:
        return f"Handle({self.plan!r})"

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._own()

    def _sites(self) -> list[Site]:
        return [site for own in self._claims.values() for site in own]

    def _check_found(self, modules: Iterable[nn.Module]) -> None:
        own = set(map(id, self._claims))
        lost = [site for site, stack in lost_claims(modules) if not own.isdisjoint(map(id, stack.claims))]
        if not lost:
            return
        paths = {id(module): path for path, module in self._root.named_modules()}
        names = [f"{paths[id(module)]}.{local}".lstrip(".") for module, local in lost]
        count = counted(len(self._sites()), "parameter")
        raise UnsupportedError(
            "handle.undo()",
            f"would give back {count}, and {len(lost)} of them became plain tensors since: {', '.join(names)}.",
            "Make parameters of them first: module.weight = nn.Parameter(module.weight.detach()).",
        )

    def _own(self) -> None:
        for claim in self._claims:
            claim.belongs_to(self)
