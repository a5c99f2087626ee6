"""Which frozen blocks to checkpoint: what each of them would free, and at which cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from torch import nn

from frostline.torch._autograd.fake_run import Recorder
from frostline.torch._lean.folded import is_watched

ENOUGH = 0.8
"""The part of what a block frees that must be freed by the blocks in it, to take those in its place.

Smaller blocks hold less at once while backward computes them again; but parts of a layer keep their inputs, which
the layer as a whole does not.
"""


@final
@dataclass(frozen=True, eq=False)
class Block:
    """A frozen module that may be checkpointed.

    Attributes:
        module: itself.
        freed: the bytes that its calls would keep less for backward.
        flops: the floating-point operations that backward would do more.
        is_random: whether it draws random numbers.
    """

    module: nn.Module
    freed: int
    flops: int
    is_random: bool


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """The modules below which there are parameters, all of them frozen, and nobody's hooks."""
    return [module for module in model.modules() if _is_frozen(module) and not _has_watched(module)]


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)


def _has_watched(module: nn.Module) -> bool:
    # A hook inside would run again when backward computes the block again; those on the block itself do not.
    return any(is_watched(inner) for inner in module.modules() if inner is not module)


def blocks(model: nn.Module, recorder: Recorder) -> tuple[list[Block], list[Block]]:
    """The blocks of a model, none inside another, the cheapest for each byte first.

    Returns:
        The blocks to take, and, where those free too little, the largest there are.
    """
    of = {module: block for module in recorder.taken if (block := _block(module, recorder)) is not None}
    small, large = (_outermost(found) for found in (_smallest(model, of), _largest(model, of)))
    return sorted(small, key=_price), sorted(large, key=_price)


def _outermost(found: list[Block]) -> list[Block]:
    """Without those that are also inside another one: a module may have several places."""
    inside = {inner for block in found for inner in block.module.modules() if inner is not block.module}
    return [block for block in found if block.module not in inside]


def _price(block: Block) -> float:
    return block.flops / block.freed


def _block(module: nn.Module, recorder: Recorder) -> Block | None:
    taken = recorder.taken[module]
    if not taken.has_graph or any(piece.written > begun for piece, begun in taken.inputs):
        return None
    inside = {p for p in recorder.pieces.values() if module in p.inside and p.is_kept} - taken.outputs
    kept = {piece for piece, _ in taken.inputs if not piece.is_kept}
    freed = sum(piece.nbytes for piece in inside) - sum(piece.nbytes for piece in kept)
    return Block(module, freed, taken.flops, taken.is_random) if freed > 0 else None


def _smallest(module: nn.Module, of: dict[nn.Module, Block]) -> list[Block]:
    inner = _once(block for child in module.children() for block in _smallest(child, of))
    own = of.get(module)
    if own is None or sum(block.freed for block in inner) >= ENOUGH * own.freed:
        return inner
    return [own]


def _largest(module: nn.Module, of: dict[nn.Module, Block]) -> list[Block]:
    if module in of:
        return [of[module]]
    return _once(block for child in module.children() for block in _largest(child, of))


def _once(found: Iterable[Block]) -> list[Block]:
    return list(dict.fromkeys(found))
