"""The handwritten digits that ship with scikit-learn: 1,797 images of 8 by 8 pixels, nothing to download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import final

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

OLD = (0, 1, 2, 3, 4)
NEW = (5, 6, 7, 8, 9)
OLD_TEST_IMAGES = 200

Pixels = NDArray[np.float32]
Indices = NDArray[np.int64]


@final
@dataclass(frozen=True, eq=False)
class Images:
    """Images, from 0 to 1, shape `(n, 1, 8, 8)`, and which of its five digits each one shows, 0 to 4, shape `(n,)`."""

    pixels: Pixels
    labels: Indices

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Indices | slice) -> Images:
        return Images(self.pixels[indices], self.labels[indices])


@final
@dataclass(frozen=True, eq=False)
class Split:
    """The images of one run: of the old digits 0 to 4 and of the new ones 5 to 9, to train on and to test on."""

    old_train: Images
    old_test: Images
    new_train: Images
    new_test: Images


def split(rng: np.random.Generator, labelled: int) -> Split:
    """Divides all images at random; of each new digit `labelled` images are for training."""
    old, new = _shuffled(OLD, rng), _shuffled(NEW, rng)
    train = np.concatenate([np.flatnonzero(new.labels == label)[:labelled] for label in range(len(NEW))])
    test = np.setdiff1d(np.arange(len(new)), train)
    return Split(old[OLD_TEST_IMAGES:], old[:OLD_TEST_IMAGES], new[train], new[test])


def one_of_each(digits: tuple[int, ...]) -> Images:
    """The first image of each digit, in order."""
    pixels, values = _all()
    first = np.array([np.flatnonzero(values == digit)[0] for digit in digits])
    return Images(pixels[first], np.arange(len(digits)))


def _shuffled(digits: tuple[int, ...], rng: np.random.Generator) -> Images:
    pixels, values = _all()
    indices = rng.permutation(np.flatnonzero(np.isin(values, digits)))
    return Images(pixels[indices], values[indices] - digits[0])


@cache
def _all() -> tuple[Pixels, Indices]:
    digits = load_digits()
    return (digits.images[:, None] / 16).astype(np.float32), digits.target.astype(np.int64)
