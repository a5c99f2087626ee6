"""Constants: parameters that trained nowhere before frostline came, and stay as they are unless they are meant."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from frostline._core.errors import ConstantError
from frostline._core.errors.base import counted
from frostline.torch._freezing.survey import Survey
from frostline.torch._holding.claims import ClaimStack, stack_at


def constants_among(read: Survey, paths: Iterable[str], *, integers_only: bool = False) -> frozenset[str]:
    """Returns the parameters among `paths` that are constant: integers always are.

    Args:
        read: the model.
        paths: paths of its plan.
        integers_only: whether to return integers alone.
    """
    return frozenset(
        path
        for path in paths
        if path in read.parameters
        and (not read.inventory.by_name[path].can_train or (not integers_only and _stack(read, path).is_constant))
    )


def frozen_before(read: Survey) -> frozenset[str]:
    """Returns what would stand still without any plan: constants, and what ``freeze`` has frozen.

    Integers and frozen uses are not among them; they never train.
    """
    fixed = {param.path for param in read.inventory.params if param.pinned or not param.can_train}
    own = (path for path in read.inventory.paths - fixed if id(read.sites[path][0][0]) not in read.pinned)
    return frozenset(path for path in own if not _stack(read, path).without("follow").trains)


def check_any_left(expression: str, read: Survey, paths: AbstractSet[str], left: AbstractSet[str]) -> None:
    """Checks that something is left to thaw.

    Args:
        expression: the call that thaws, without its closing parenthesis.
        read: the model.
        paths: what it selects.
        left: the constants among that.

    Raises:
        ConstantError: there is nothing else.
    """
    if not paths or paths - left:
        return
    params = read.inventory.by_name
    if floating := sorted(path for path in left if params[path].can_train):
        problem = f"names {counted(len(left), 'parameter')}, and nothing that trained before it was frozen here:"
        raise ConstantError(
            f"{expression})", problem, tuple(floating), f"Say that it is meant: {expression}, constants=True)."
        )
    problem = f"names {counted(len(left), 'parameter')}, and nothing that can have a gradient:"
    found = tuple(f"{path}: {params[path].dtype}" for path in sorted(left))
    raise ConstantError(f"{expression})", problem, found, "Thaw floating parameters, for example those of an adapter.")


def _stack(read: Survey, path: str) -> ClaimStack:
    return stack_at(*read.sites[path][0])
