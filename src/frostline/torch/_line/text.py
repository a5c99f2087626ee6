"""What is below the line as a text, the same for every batch size: part of its fingerprint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from frostline.torch._line.parts import ancestors
from frostline.torch._line.values import Pair, is_passing, passed


def text(pair: Pair, kept: Sequence[fx.Node]) -> str:
    """One line for each operator below, and one for what crosses."""
    wanted = ancestors(kept, stop=())
    nodes = [node for node in pair.nodes if node in wanted and not is_passing(node)]
    number = {node: place for place, node in enumerate(nodes)}
    crossing = " ".join(f"%{number[passed(node)]}" for node in kept)
    return "\n".join([*(_line(node, number, pair) for node in nodes), crossing])


def _line(node: fx.Node, number: dict[fx.Node, int], pair: Pair) -> str:
    mine, theirs = (pytree.tree_leaves((each.args, each.kwargs)) for each in (node, pair.beside[node]))
    words = (_word(a, b, number, pair) for a, b in zip(mine, theirs, strict=True))
    return f"{node.op} {node.target} {' '.join(words)}"


def _word(mine: Any, other: Any, number: dict[fx.Node, int], pair: Pair) -> str:
    if isinstance(mine, fx.Node):
        return f"%{number[passed(mine)]}"
    if isinstance(mine, torch.device):
        return "device"
    if isinstance(mine, int) and mine != other:
        return f"{mine // pair.batch} x samples"
    return repr(mine)
