"""Constants: parameters that trained nowhere before frostline came, and stay as they are unless they are meant."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from frostline._core.errors import ConstantError
from frostline._core.errors.base import counted
from frostline.torch._freezing.survey import Survey
from frostline.torch._holding.claims import ClaimStack, ledger_of, stack_at
from frostline.torch._tensors import is_differentiable


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
        if (parameter := read.parameters.get(path)) is not None
        and (not is_differentiable(parameter) or (not integers_only and _stack(read, path).is_constant))
    )


def frozen_before(read: Survey) -> frozenset[str]:
    """Returns what would stand still without any plan: constants, and what ``freeze`` has frozen.

    Integers and frozen uses are not among them; they never train.
    """
    found = set()
    for path, ((module, local), *_) in read.sites.items():
        parameter = read.parameters.get(path)
        if id(module) in read.pinned or (parameter is not None and not is_differentiable(parameter)):
            continue
        stack = ledger_of(module).get(local)
        if stack is None:
            is_frozen = parameter is not None and not parameter.requires_grad
        else:
            is_frozen = not stack.trains_without("follow")
        if is_frozen:
            found.add(path)
    return frozenset(found)


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
