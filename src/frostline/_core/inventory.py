"""The parameters and modules of a model, as data; never a tensor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from frostline._core.param import Buffer, Module, Param
from frostline._core.tree import NameTree


@dataclass(frozen=True)
class Inventory:
    """The parameters and modules of one model.

    Attributes:
        params: the parameters in model order, a tied one once.
        modules: the modules in model order (pre-order), the root first.
        buffers: the buffers in model order; in JAX there are none, because all state is in leaves.
        others: in JAX, the leaves that are no floating arrays; nothing trains them. Python's own values have no shape.

    Example:
        >>> inventory = Inventory((Param("body.weight", (2, 3), "float32", 4), Param("head.bias", (2,), "float32", 4)))
        >>> sorted(inventory.paths)
        ['body.weight', 'head.bias']
        >>> inventory.by_name["head.bias"].size
        2
    """

    params: tuple[Param, ...]
    modules: tuple[Module, ...] = ()
    buffers: tuple[Buffer, ...] = ()
    others: tuple[Buffer, ...] = ()

    @cached_property
    def paths(self) -> frozenset[str]:
        """The paths of a plan: the parameters, and the modules that are frozen by their own name."""
        stateful = (module.path for module in self.modules if module.stateful)
        return frozenset(param.path for param in self.params).union(stateful)

    @cached_property
    def by_name(self) -> dict[str, Param]:
        """The parameter behind each name, aliases included."""
        return {name: param for param in self.params for name in param.names}

    @cached_property
    def tree(self) -> NameTree:
        """The names as a tree."""
        return NameTree(self.params, self.modules)

    @cached_property
    def of_buffers(self) -> Inventory:
        """The same model with its buffers in the place of parameters."""
        return self._of(self.buffers)

    @cached_property
    def of_others(self) -> Inventory:
        """The same model with its leaves that are no floating arrays in the place of parameters."""
        return self._of(self.others)

    def _of(self, buffers: tuple[Buffer, ...]) -> Inventory:
        params = tuple(Param(each.path, each.shape, each.dtype, 1, aliases=each.aliases) for each in buffers)
        modules = (replace(module, stateful=False) if module.stateful else module for module in self.modules)
        return Inventory(params, tuple(modules))
