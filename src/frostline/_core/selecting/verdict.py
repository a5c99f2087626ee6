"""Which names an expression chooses, which it refuses, and which it does not mention."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import final

from frostline._core.inventory import Inventory
from frostline._core.selecting.leaves import names_of
from frostline._core.selecting.nearby import no_match
from frostline._core.selecting.selectors import Complement, Difference, Intersection, Selector, Union


@final
@dataclass(frozen=True, slots=True)
class Verdict:
    """Numbers of names that are chosen and that are refused, never both; all others are not mentioned."""

    chosen: AbstractSet[int] = frozenset()
    refused: AbstractSet[int] = frozenset()

    def either(self, other: Verdict) -> Verdict:
        """What one of the two chooses; a name that one chooses is not refused."""
        chosen = self.chosen | other.chosen
        return Verdict(chosen, (self.refused | other.refused) - chosen)

    def both(self, other: Verdict) -> Verdict:
        """What both choose; what only one chooses is not mentioned."""
        return Verdict(self.chosen & other.chosen, self.refused | other.refused)

    def without(self, names: AbstractSet[int]) -> Verdict:
        """The same, but `names` are refused."""
        return Verdict(self.chosen - names, self.refused | names)


@final
@dataclass(frozen=True, slots=True)
class Judge:
    """Evaluates expressions in one model.

    Attributes:
        inventory: the model.
        allow_empty: whether a leaf may match nothing.
    """

    inventory: Inventory
    allow_empty: bool = False

    def names(self, leaf: Selector, source: str) -> AbstractSet[int]:
        """What a leaf matches, `source` being how its author wrote it."""
        names = names_of(leaf, self.inventory)
        if not names and not self.allow_empty:
            raise no_match(leaf, source, self.inventory)
        return names

    def verdict(self, selector: Selector) -> Verdict:
        """The verdict of an expression."""
        match pushed(selector):
            case Union(left, right):
                return self.verdict(left).either(self.verdict(right))
            case Intersection(left, right):
                return self.verdict(left).both(self.verdict(right))
            case Complement(leaf):
                everything = Verdict(frozenset(range(len(self.inventory.tree.names))))
                return everything.without(self.names(leaf, repr(leaf)))
            case leaf:
                return Verdict(self.names(leaf, repr(leaf)))

    def speaker(self, selector: Selector, name: int, *, chosen: bool) -> Selector:
        """The part of an expression that chooses a name, or refuses it."""
        selector = pushed(selector)
        if isinstance(selector, Union | Intersection):
            for side in (selector.left, selector.right):
                verdict = self.verdict(side)
                if name in (verdict.chosen if chosen else verdict.refused):
                    return self.speaker(side, name, chosen=chosen)
        return selector


def pushed(selector: Selector) -> Selector:
    """The same selector with ``~`` nowhere but at the leaves of its two sides, and without ``-``.

    This makes the laws of De Morgan hold for what is refused as well, not only for what is chosen.

    Example:
        >>> from frostline._core.selecting.selectors import glob
        >>> pushed(~(glob("a") - glob("b")))
        ~glob('a') | glob('b')
    """
    match selector:
        case Difference(left, right):
            return left & ~right
        case Complement(Union(left, right)):
            return ~left & ~right
        case Complement(Intersection(left, right)):
            return ~left | ~right
        case Complement(Difference(left, right)):
            return ~left | right
    return selector
