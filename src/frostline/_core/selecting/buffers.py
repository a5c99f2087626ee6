"""Buffers that are named by themselves, and modules that are held or let move because of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from frostline._core.errors import UnsupportedError
from frostline._core.inventory import Inventory
from frostline._core.param import Buffer
from frostline._core.selecting.pattern import spell


def deviations(
    inventory: Inventory, frozen: AbstractSet[str], words: Mapping[str, bool], expression: str | None = None
) -> tuple[frozenset[str], frozenset[str]]:
    """Returns the buffers that stand still although their module trains, and those that move although it is frozen.

    Args:
        inventory: the model.
        frozen: the frozen paths of its plan.
        words: for each buffer that was named by itself, whether it is frozen.
        expression: the call that names them; None is not to check them.

    Raises:
        UnsupportedError: only some buffers of a module would be still, or move.
    """
    still: set[str] = set()
    moving: set[str] = set()
    if not words:
        return frozenset(), frozenset()
    own: defaultdict[str, list[Buffer]] = defaultdict(list)
    for buffer in inventory.buffers:
        own[buffer.owner].append(buffer)
    whole = _whole(inventory, frozen)
    for owner in dict.fromkeys(buffer.owner for buffer in inventory.buffers if buffer.path in words):
        for is_frozen, found in ((True, still), (False, moving)):
            named = {buffer.path for buffer in own[owner] if words.get(buffer.path) is is_frozen}
            if not named or is_frozen is (owner in whole):
                continue
            left = [buffer.path for buffer in own[owner] if buffer.path not in named and not buffer.goes_along]
            if left and expression is not None:
                raise _partly(expression, owner, named, left, len(own[owner]))
            found.update(buffer.path for buffer in own[owner])
    return frozenset(still), frozenset(moving - still)


def _whole(inventory: Inventory, frozen: AbstractSet[str]) -> set[str]:
    """Returns the modules that are held by the rule: all their parameters are frozen, and there is one."""
    around: defaultdict[bool, set[str]] = defaultdict(set)
    for param in inventory.params:
        for name in param.names:
            keys = name.split(".")
            around[param.path in frozen].update(".".join(keys[:depth]) for depth in range(len(keys)))
    return (around[True] - around[False]) | {each.path for each in inventory.modules if each.path in frozen}


def _partly(expression: str, owner: str, named: set[str], left: list[str], count: int) -> UnsupportedError:
    names = ", ".join(repr(spell(path.split("."))) for path in left)
    module = repr(spell(owner.split("."))) if owner else "the model"
    problem = f"names {len(named)} of the {count} buffers of {module}, which stand still or move together."
    return UnsupportedError(expression, f"{problem} Not named: {names}.", f"Name them, too: {names}.")
