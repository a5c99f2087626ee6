"""Verdicts: the names that an expression chooses, and the names that it refuses."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import final

from frostline._core.inventory import Inventory
from frostline._core.selecting.expressions import Complement, Difference, Intersection, Selector, Union
from frostline._core.selecting.leaves import buffers_of, names_of, others_of
from frostline._core.selecting.nearby import no_match, not_floating


@final
@dataclass(frozen=True, slots=True)
class Verdict:
    """The numbers of the chosen and of the refused names; no name is both, and a name may be neither."""

    chosen: AbstractSet[int] = frozenset()
    refused: AbstractSet[int] = frozenset()

    def either(self, other: Verdict) -> Verdict:
        """Returns the union: a name that one verdict chooses is not refused."""
        chosen = self.chosen | other.chosen
        return Verdict(chosen, (self.refused | other.refused) - chosen)

    def both(self, other: Verdict) -> Verdict:
        """Returns the intersection: a name that only one verdict chooses is neither chosen nor refused."""
        return Verdict(self.chosen & other.chosen, self.refused | other.refused)

    def without(self, names: AbstractSet[int]) -> Verdict:
        """Returns the verdict with `names` refused."""
        return Verdict(self.chosen - names, self.refused | names)


@final
@dataclass(frozen=True, slots=True)
class BufferVerdict:
    """What an expression says about buffers, by their numbers.

    Attributes:
        chosen: buffers that it names by themselves, and chooses.
        refused: buffers that it names by themselves, and refuses.
        by_rule: other buffers that it matches: they go with the parameters of their module.
    """

    chosen: AbstractSet[int]
    refused: AbstractSet[int]
    by_rule: AbstractSet[int]

    def inverted(self) -> BufferVerdict:
        """Returns the verdict of the same expression with a leading "!"."""
        return BufferVerdict(frozenset(), self.chosen, self.by_rule | self.refused)


@final
@dataclass(frozen=True, slots=True)
class Judge:
    """Evaluates expressions in one model.

    Attributes:
        inventory: the model.
        allow_empty: whether a leaf may match nothing.
        with_buffers: whether a leaf may name buffers alone.
    """

    inventory: Inventory
    allow_empty: bool = False
    with_buffers: bool = False
    # By ``id``, because the predicate of a leaf need not have a hash.
    _found: dict[int, tuple[Selector, AbstractSet[int]]] = field(default_factory=dict)

    @property
    def has_empty_leaf(self) -> bool:
        """Whether a leaf that was asked for matches no name, so that it may be one of buffers."""
        return not all(names for _, names in self._found.values())

    def names(self, leaf: Selector, source: str) -> AbstractSet[int]:
        """Returns the names that a leaf matches; `source` is the leaf as its author wrote it."""
        names = self._names(leaf)
        if not names and not self.allow_empty and not (self.with_buffers and buffers_of(leaf, self.inventory)):
            others = others_of(leaf, self.inventory)
            raise not_floating(source, self.inventory, others) if others else no_match(leaf, source, self.inventory)
        return names

    def _names(self, leaf: Selector) -> AbstractSet[int]:
        if id(leaf) not in self._found:
            self._found[id(leaf)] = leaf, names_of(leaf, self.inventory)
        return self._found[id(leaf)][1]

    def buffers(self, selector: Selector) -> BufferVerdict:
        """Returns what an expression says about buffers: a leaf that matches no parameter speaks of them alone."""
        verdict = self._buffers(selector)
        chosen = verdict.chosen & self._named_alone(selector, chosen=True)
        refused = verdict.refused & self._named_alone(selector, chosen=False)
        return BufferVerdict(chosen, refused, (verdict.chosen | verdict.refused) - chosen - refused)

    def _buffers(self, selector: Selector) -> Verdict:
        match pushed(selector):
            case Union(left, right):
                return self._buffers(left).either(self._buffers(right))
            case Intersection(left, right):
                return self._buffers(left).both(self._buffers(right))
            case Complement(leaf):
                everything = frozenset(range(len(self.inventory.of_buffers.tree.names)))
                return Verdict(everything).without(buffers_of(leaf, self.inventory))
            case leaf:
                return Verdict(buffers_of(leaf, self.inventory))

    def _named_alone(self, selector: Selector, *, chosen: bool) -> AbstractSet[int]:
        match pushed(selector):
            case Union(left, right) | Intersection(left, right):
                return self._named_alone(left, chosen=chosen) | self._named_alone(right, chosen=chosen)
            case Complement(leaf):
                is_meant = not chosen
            case leaf:
                is_meant = chosen
        return buffers_of(leaf, self.inventory) if is_meant and not self._names(leaf) else frozenset()

    def verdict(self, selector: Selector) -> Verdict:
        """Returns the verdict of an expression."""
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
        """Returns the part of an expression that chooses a name, or refuses it."""
        selector = pushed(selector)
        if isinstance(selector, Union | Intersection):
            for side in (selector.left, selector.right):
                verdict = self.verdict(side)
                if name in (verdict.chosen if chosen else verdict.refused):
                    return self.speaker(side, name, chosen=chosen)
        return selector


def pushed(selector: Selector) -> Selector:
    """Returns the same selector without ``-`` at the top, and with ``~`` moved one level towards the leaves.

    So the laws of De Morgan hold for refused names as well as for chosen ones.

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
