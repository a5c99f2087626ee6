"""Texts that a small model can learn."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from benchmarks.in_schedules.setup import Setup

FOLLOWERS = 4
Language = list[list[int]]
"""The words that may follow each word."""


def language(setup: Setup, *, changed: bool) -> Language:
    """One to be learned first, and one in which half of the words have other followers."""
    random = Random("language")
    first, second = (
        [random.choices(range(setup.vocabulary), k=FOLLOWERS) for _ in range(setup.vocabulary)] for _ in range(2)
    )
    return [second[word] if changed and word % 2 else first[word] for word in range(setup.vocabulary)]


def batches(setup: Setup, *, changed: bool) -> Iterator[list[list[int]]]:
    """For each step, texts in which each follower comes with the same chance."""
    random, spoken = Random(f"texts/{changed}"), language(setup, changed=changed)
    for _ in range(setup.steps):
        yield [text(setup, spoken, random) for _ in range(setup.batch)]


def text(setup: Setup, spoken: Language, random: Random) -> list[int]:
    """A word more than the model sees: the last one is only foretold."""
    words = [random.randrange(setup.vocabulary)]
    for _ in range(setup.length):
        words.append(random.choice(spoken[words[-1]]))
    return words
