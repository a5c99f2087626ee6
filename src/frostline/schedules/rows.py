"""The rows of a chart, and the factor and share that a phase gives each of them."""

from __future__ import annotations

from functools import lru_cache
from typing import final

from frostline._core.inventory import Inventory
from frostline._core.selecting.resolve import resolve
from frostline.schedules.phase import Phase

REST = "everything else"


@final
class SelectorBands:
    """Rows without a model: a selector covers itself and the paths that begin with it."""

    def __init__(self, parts: tuple[str, ...]) -> None:
        self.rows = (*parts, REST)
        self._covered = lru_cache(maxsize=4096)(self._find)

    def at(self, phase: Phase) -> list[tuple[float, float]]:
        """Returns for each row its factor, and 1 if it trains or 0 if not."""
        factors, trains = [1.0] * len(self.rows), [1.0] * len(self.rows)
        for word in phase.frozen:
            for row in self._covered(word.removeprefix("!")):
                trains[row] = float(word.startswith("!"))
        for word, factor in phase.rates:
            for row in self._covered(word):
                factors[row] = factor
        return [(factor * share, share) for factor, share in zip(factors, trains, strict=True)]

    def _find(self, word: str) -> list[int]:
        if word == "**":
            return list(range(len(self.rows)))
        below = (f"{word}.", f"{word}[")
        return [row for row, part in enumerate(self.rows[:-1]) if part == word or part.startswith(below)]


@final
class ModelBands:
    """Rows of a model: each parameter counts by its size."""

    def __init__(self, parts: tuple[str, ...], inventory: Inventory) -> None:
        self._inventory = inventory
        sizes = {param.path: param.size for param in inventory.params}
        members = [sizes.keys() & resolve([part], inventory) for part in parts]
        rest = sizes.keys() - frozenset().union(*members)
        self.rows = (*parts, REST) if rest else parts
        self._members = [{path: sizes[path] for path in each} for each in [*members, rest][: len(self.rows)]]
        self.at = lru_cache(maxsize=4096)(self._find)

    def _find(self, phase: Phase) -> list[tuple[float, float]]:
        trainable, factors = phase.plan(self._inventory).trainable, phase.factors(self._inventory)
        return [_weighed(sizes, trainable, factors) for sizes in self._members]


def _weighed(sizes: dict[str, int], trainable: frozenset[str], factors: dict[str, float]) -> tuple[float, float]:
    # All parameters of a row may be empty.
    total, moving = max(1, sum(sizes.values())), {path: size for path, size in sizes.items() if path in trainable}
    return sum(factors[path] * size for path, size in moving.items()) / total, sum(moving.values()) / total


Bands = SelectorBands | ModelBands
