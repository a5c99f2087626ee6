"""The audit of a loss as a value: which parameters it can move at all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from frostline._core.errors.base import counted, listed
from frostline._core.plan import Plan

_SHOWN = 5


@final
@dataclass(frozen=True, repr=False)
class Audit:
    """The parameters of a model, by whether a loss can move them. Each is in one of the first three sets.

    Attributes:
        reached: can receive a gradient.
        stopped: the loss depends on them, but every gradient is stopped on its way, or zero by rule.
        unused: the loss does not depend on them.
        frozen: frozen already.
        following: the statement that freezes what is idle, for the text.

    Example:
        >>> from frostline._core.audit import Audit
        >>> found = Audit(frozenset({"head"}), frozenset({"body"}), frozenset(), frozenset())
        >>> found
        <Audit: 1 reached, 1 stopped, 0 unused; 1 idle>
        >>> found.idle
        frozenset({'body'})
        >>> found.plan
        Plan(frozen=1, trainable=1)
    """

    reached: frozenset[str]
    stopped: frozenset[str]
    unused: frozenset[str]
    frozen: frozenset[str]
    following: str = "tree = follow(tree, audit.plan)"

    @property
    def idle(self) -> frozenset[str]:
        """Trainable parameters that no gradient reaches: an optimizer would only let them decay."""
        return (self.stopped | self.unused) - self.frozen

    @property
    def plan(self) -> Plan:
        """The plan of the model with idle parameters frozen, too; `follow` makes it so."""
        still = self.stopped | self.unused | self.frozen
        return Plan(still, self.reached - still)

    def __repr__(self) -> str:
        reached, stopped, unused = map(len, (self.reached, self.stopped, self.unused))
        return f"<Audit: {reached} reached, {stopped} stopped, {unused} unused; {len(self.idle)} idle>"

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterable[str]:
        total = len(self.reached | self.stopped | self.unused)
        yield f"{len(self.reached)} of {counted(total, 'parameter')} can receive a gradient."
        yield from self._listed("reached", self.reached)
        yield from self._listed("stopped", self.stopped)
        yield from self._listed("unused", self.unused)
        if self.idle:
            yield f"No gradient comes to {len(self.idle)} that are trainable: an optimizer would only let them decay."
            yield f"Freeze them: {self.following}."

    def _listed(self, name: str, paths: frozenset[str]) -> Iterable[str]:
        if paths:
            yield f"{name}: {len(paths)}"
            # What a reader is to act on comes first.
            rows = sorted(paths, key=lambda path: (path in self.frozen, path))
            yield from listed([f"{path}  frozen" if path in self.frozen else path for path in rows], _SHOWN)
