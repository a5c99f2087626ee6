"""Rules: options of an optimizer by selector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from frostline._core.inventory import Inventory
from frostline._core.selecting.expressions import Selector
from frostline._core.selecting.resolve import resolve


@final
class Rule:
    """Options of the optimizer for what some selectors choose.

    Args:
        selectors: strings and selector values, as in ``freeze``.
        lr_scale: what the learning rate of the group is multiplied by.
        options: any other options of the optimizer, ``weight_decay=0.0``.

    Example:
        >>> Rule("**.bias", "**.norm*", weight_decay=0.0)
        Rule('**.bias', '**.norm*', weight_decay=0.0)
        >>> Rule("encoder", lr_scale=0.1).options
        {'lr_scale': 0.1}
    """

    __slots__ = ("options", "selectors")

    def __init__(self, *selectors: str | Selector, **options: Any) -> None:
        self.selectors, self.options = selectors, options

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rule) and (self.selectors, self.options) == (other.selectors, other.options)

    def __hash__(self) -> int:
        return hash((self.selectors, tuple(sorted(self.options))))

    def __repr__(self) -> str:
        words = (*map(repr, self.selectors), *(f"{name}={value!r}" for name, value in self.options.items()))
        return f"Rule({', '.join(words)})"


def layerwise(blocks: Sequence[str | Selector], decay: float) -> tuple[Rule, ...]:
    """Layer-wise learning-rate decay: each block learns at `decay` times the rate of the one above it.

    Args:
        blocks: selectors from the input to the output; the last block learns at the full rate.
        decay: the factor from a block to the one below it.

    Source:
        Universal Language Model Fine-tuning for Text Classification, https://arxiv.org/abs/1801.06146, where the
        factor is 1 / 2.6 ("discriminative fine-tuning").

    Example:
        >>> layerwise(["embed", "layers[0]", "head"], decay=0.5)
        (Rule('embed', lr_scale=0.25), Rule('layers[0]', lr_scale=0.5), Rule('head', lr_scale=1.0))
    """
    last = len(blocks) - 1
    return tuple(Rule(block, lr_scale=decay ** (last - place)) for place, block in enumerate(blocks))


def options_by_path(rules: Sequence[Rule], inventory: Inventory) -> dict[str, Mapping[str, Any]]:
    """The options of each path that a rule speaks of; of two rules the later one decides, option by option.

    Raises:
        NoMatchError, SelectorError, TiedError, UnsupportedError: as `resolve` does.
    """
    found: dict[str, dict[str, Any]] = {}
    for rule in rules:
        for path in resolve(rule.selectors, inventory):
            found[path] = {**found.get(path, {}), **rule.options}
    return dict(found)
