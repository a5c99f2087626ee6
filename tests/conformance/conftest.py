from __future__ import annotations

import pytest

from conformance.benches import Bench, bench_of, required


@pytest.fixture(params=required())
def bench(request: pytest.FixtureRequest) -> Bench:
    """Each required front end in turn."""
    return bench_of(request.param)
