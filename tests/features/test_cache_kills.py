"""A fill that is killed at any instant leaves whole shards, and the next one goes on from there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NURSERY = Path(__file__).parent / "cache_nursery.py"


def killed(folder: Path, kind: str) -> dict[str, int]:
    """How often what was seen after a kill, and what there was in the end."""
    command = [sys.executable, NURSERY, folder, kind]
    settings = {**os.environ, "PYTHONPATH": str(NURSERY.parent.parent)}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=settings)
    assert (result.returncode, result.stderr) == (0, "")
    return {word: int(number) for word, number in (line.split("=") for line in result.stdout.splitlines())}


def test_thirty_kills(tmp_path: Path) -> None:
    seen = killed(tmp_path / "cache", "careful")
    assert (seen["damaged"], seen["shrunk"], seen["wrong"]) == (0, 0, 0)
    assert (seen["whole"], seen["leftovers"]) == (1, 0)
    # It was killed while it wrote; and what was there was not computed again.
    assert seen["kills"] >= 30
    assert seen["with a leftover"] > 2
    assert seen["went on"] > 5


def test_a_careless_writer_is_found_out(tmp_path: Path) -> None:
    """The negative control: the same, where a shard is written in its place."""
    assert killed(tmp_path / "cache", "careless")["damaged"] > 0
