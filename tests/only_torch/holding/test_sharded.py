"""A held module can be sharded by FSDP2 and a sharded one be held: nothing in it moves, and undone it trains (L11)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("sharded_rank.py")


@pytest.mark.parametrize("order", ["frozen-first", "sharded-first"])
def test_in_either_order(order: str) -> None:
    result = subprocess.run([sys.executable, SCRIPT, order], capture_output=True, text=True, check=False)
    expected = {"still": True, "held": True, "sharded": True, "trains": True, "undone": True}
    assert result.stdout == f"{expected}\n", result.stderr
