"""What a line cannot be drawn through, as a trace shows it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx, nn

from frostline._core.errors import LineError
from frostline.torch._line import refusals
from frostline.torch._line.dependence import Colours, is_cheap
from frostline.torch._line.values import Pair, needed, paths


def refuse_moving(model: nn.Module, expression: str, nodes: Sequence[fx.Node], found: Colours) -> None:
    """Raises if work that nothing trainable enters depends on what is random or has a state.

    What is random right at the line, as dropout before a head, is computed above in each call, as in training.
    """
    for node in nodes:
        source = found.moving.get(node)
        if source is None or node is source or node not in found.sampled or is_cheap(node):
            continue
        path = (paths(source) or [""])[-1]
        raise refusals.moving(model, expression, path, f", {source.target}")


def refuse_nothing_below(expression: str, nodes: Sequence[fx.Node], names: Sequence[str], found: Colours) -> None:
    """Raises if nothing but views and casts would be below."""
    if any(node.name in names and node.op != "placeholder" for node in nodes):
        return
    readers = (user for node in nodes if node.name in names for user in node.users)
    met = [found.trained[user] for user in (*readers, *nodes) if user in found.trained]
    raise refusals.nothing_below(expression, met)


def uncut(expression: str, pair: Pair, found: Colours) -> LineError:
    """No set of values with a sample's dimension cuts the model in two."""
    wanted = set(needed(pair.nodes, found))
    mixed = [node for node in pair.nodes if node.name in wanted and pair.passage(node) is None]
    return refusals.mixes(expression, [f"{(paths(node) or ['the model'])[-1]}: {node.target}" for node in mixed])
