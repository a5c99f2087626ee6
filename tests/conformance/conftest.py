from __future__ import annotations

import pytest

from conformance.benches import Bench, bench_of, required


@pytest.fixture(params=required())
def bench(request: pytest.FixtureRequest) -> Bench:
    """Each front end that must be there, one after the other."""
    return bench_of(request.param)
