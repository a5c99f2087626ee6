"""A bar on a terminal, and nothing anywhere else."""

from __future__ import annotations

from functools import partial
from io import StringIO

import pytest
from rich.console import Console

from frostline.features.filling import counting


@pytest.mark.parametrize(("terminal", "shown", "bar"), [(True, True, True), (True, False, False), (False, True, False)])
def test_where_a_bar_is_shown(monkeypatch: pytest.MonkeyPatch, terminal: bool, shown: bool, bar: bool) -> None:
    written = StringIO()
    console = partial(Console, file=written, force_terminal=terminal, width=80)
    monkeypatch.setattr("rich.console.Console", lambda stderr: console())
    with counting("Filling features", 20, shown=shown) as done:
        done(5)
        done(15)
    assert ("Filling features" in written.getvalue()) == bar
    assert ("20/20" in written.getvalue()) == bar
