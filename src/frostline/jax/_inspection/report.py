"""The report of a tree: what is frozen in it, with counts and bytes."""

from __future__ import annotations

from typing import Any

from frostline._core.plan import Plan
from frostline._core.reporting.report import Report
from frostline._core.reporting.report import report as report_of
from frostline.jax._freezing.held_modules import is_below
from frostline.jax._freezing.survey import survey
from frostline.jax._training.moments import state_bytes


def report(tree: Any, state: Any = None, *, frozen: Plan | None = None) -> Report:
    """Reports what is frozen in a tree, with counts and bytes.

    The report prints well, renders in a notebook, and ``.to_dict()`` returns plain data.

    Args:
        tree: any pytree, also the result of ``jax.eval_shape``.
        state: the state of an optimizer; if given, the bytes that it keeps for each parameter are shown, too.

        frozen: a plan beside an unmarked tree.

    Raises:
        SamePathError: two leaves of the tree have one name.

    Example:
        >>> print(report(freeze({"body": {"w": jnp.ones((2, 3))}, "head": {"w": jnp.ones(3)}}, "body")))
                 params  frozen  memory  state
        model         9       6    36 B  partly
        ├─ body       6       6    24 B  frozen     held
        └─ head       3       0    12 B  trainable
        3 of 9 params are trainable (33.3%; 12 B of 36 B).
    """
    read = survey(tree, frozen)
    free = (node.keys for node in read.layout.nodes if not node.pinned)
    paths = (keys for keys in free if keys in read.whole or is_below(keys, read.whole))
    kept = None if state is None else state_bytes(state, tree)
    return report_of(read.inventory, read.plan, optimizer_bytes=kept, held=frozenset(map(".".join, paths)))
