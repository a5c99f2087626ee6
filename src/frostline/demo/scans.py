"""The handwritten digits that ship with scikit-learn: 1,797 real scans of 8 by 8 pixels, nothing to download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import final

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

OLD = (0, 1, 2, 3, 4)
NEW = (5, 6, 7, 8, 9)
UNSEEN_OLD = 200

Pixels = NDArray[np.float32]
Numbers = NDArray[np.int64]


@final
@dataclass(frozen=True, eq=False)
class Scans:
    """Some scans.

    Attributes:
        images: their pixels from 0 to 1, shape `(n, 1, 8, 8)`.
        labels: which of its five digits each one shows, 0 to 4, shape `(n,)`.
    """

    images: Pixels
    labels: Numbers

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, places: Numbers | slice) -> Scans:
        return Scans(self.images[places], self.labels[places])


@final
@dataclass(frozen=True, eq=False)
class Lesson:
    """What one run learns from, and what it is judged by.

    Attributes:
        old: the scans of 0 to 4 that the trunk learns from.
        old_unseen: those that it is judged by.
        new: the few labelled scans of 5 to 9.
        new_unseen: all the others of 5 to 9.
    """

    old: Scans
    old_unseen: Scans
    new: Scans
    new_unseen: Scans


def lesson(dice: np.random.Generator, labelled: int) -> Lesson:
    """Deals the scans out.

    Args:
        dice: decides which scan goes where.
        labelled: how many scans of each new digit are labelled.

    Example:
        >>> dealt = lesson(np.random.default_rng(0), labelled=10)
        >>> len(dealt.old), len(dealt.old_unseen), len(dealt.new), len(dealt.new_unseen)
        (701, 200, 50, 846)
    """
    old, new = _shuffled(OLD, dice), _shuffled(NEW, dice)
    taken = np.concatenate([np.flatnonzero(new.labels == label)[:labelled] for label in range(len(NEW))])
    others = np.setdiff1d(np.arange(len(new)), taken)
    return Lesson(old[UNSEEN_OLD:], old[:UNSEEN_OLD], new[taken], new[others])


def one_of_each(digits: tuple[int, ...]) -> Scans:
    """The first scan of each digit, in order."""
    images, values = _all()
    first = np.array([np.flatnonzero(values == digit)[0] for digit in digits])
    return Scans(images[first], np.arange(len(digits)))


def _shuffled(digits: tuple[int, ...], dice: np.random.Generator) -> Scans:
    images, values = _all()
    places = dice.permutation(np.flatnonzero(np.isin(values, digits)))
    return Scans(images[places], values[places] - digits[0])


@cache
def _all() -> tuple[Pixels, Numbers]:
    bunch = load_digits()
    return (bunch.images[:, None] / 16).astype(np.float32), bunch.target.astype(np.int64)
