"""The suite must fail if a required front end is missing."""

from __future__ import annotations

import pytest

from conformance.benches import bench_of, required


def test_each_required_front_end_is_there() -> None:
    assert [bench_of(name).name for name in required()] == required()


def test_a_missing_one_fails() -> None:
    with pytest.raises(ModuleNotFoundError):
        bench_of("no_such_framework")
