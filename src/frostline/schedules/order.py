"""Random orders that depend only on a seed and a number."""

from __future__ import annotations

from functools import lru_cache
from random import Random


@lru_cache(maxsize=1024)
def shuffled(count: int, seed: int, turn: int) -> tuple[int, ...]:
    """Returns the numbers below `count` in the random order of one turn.

    The order is the same on every machine and in every version of Python: the function uses only those parts of
    `random` that Python keeps stable, a string as the seed and `Random.random`. It is a Fisher-Yates shuffle.

    Example:
        >>> shuffled(5, seed=0, turn=0) == shuffled(5, seed=0, turn=0)
        True
        >>> sorted(shuffled(5, seed=0, turn=1))
        [0, 1, 2, 3, 4]
    """
    random = Random(f"{seed}/{turn}")
    order = list(range(count))
    for last in range(count - 1, 0, -1):
        other = int(random.random() * (last + 1))
        order[last], order[other] = order[other], order[last]
    return tuple(order)
