"""Checks that go wrong on purpose, to see that this is noticed."""

from __future__ import annotations

from torch import distributed


def fine() -> None:
    assert distributed.get_world_size() == 2


def fails_on_rank_1() -> None:
    if distributed.get_rank() == 1:
        raise AssertionError("on purpose")


def is_after_it() -> None:
    """It does not run: the ranks may be at different places."""


CHECKS = {2: [fine, fails_on_rank_1, is_after_it]}
