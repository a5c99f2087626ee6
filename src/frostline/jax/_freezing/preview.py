"""What selectors would take, and the parts of a tree by depth."""

from __future__ import annotations

from typing import Any

from frostline._core.reporting.preview import Selection, preview
from frostline._core.selecting.blocks import blocks as blocks_of
from frostline.jax._freezing import selection
from frostline.jax._freezing.survey import survey


def select(tree: Any, *selectors: Any) -> Selection:
    """What selectors would take; it changes nothing.

    Args:
        tree: any pytree, also the result of ``jax.eval_shape``.
        selectors: as in :func:`freeze`. No selector means the whole tree.

    Returns:
        A value with the ``paths`` of the parameters, which prints as a small table.

    Raises:
        NoMatchError, TiedError, SelectorError, SamePathError, UnsupportedError: as in :func:`freeze`.

    Example:
        >>> print(select({"body": {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}, "head": {"w": jnp.ones(3)}}, "body"))
              parameters  params  memory
        body           2       9    36 B
        2 of 3 parameters (9 of 12 params, 36 B).
    """
    read = survey(tree)
    return preview(read.inventory, selection.select(selectors, read, expect=None, allow_empty=False))


def blocks(tree: Any) -> list[str]:
    """The parts of a tree by depth, as selectors.

    First comes what stands before the repeated blocks, such as an embedding or a stem; then each block, such as a layer
    of a transformer; then the rest, such as a norm and a head. Modules have the order of their fields. The keys of a
    dict have none: numbers decide, and then words, such as "embed" for the beginning and "head" for the end. Each
    parameter is in exactly one block, a tied one in that of its first name. Schedules take the list, too.

    Example:
        >>> layers = {f"layers_{number}": {"mlp": {"w": jnp.ones(2)}} for number in range(11)}
        >>> blocks({"head": jnp.ones(2), "encoder": layers, "embed": jnp.ones(2)})[-3:]
        ['encoder.layers_9', 'encoder.layers_10', 'head']
    """
    return blocks_of(survey(tree).inventory)
