"""A fill that is killed at any of its steps leaves whole shards, and the next one goes on from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).parent / "killed_fills.py"

ABSENT = ("no cache, 0 leftovers", "no cache, 1 leftovers")


def rows(number: int) -> tuple[str, str]:
    """Without a leftover, and with one."""
    return f"whole, {number} rows, 0 leftovers", f"whole, {number} rows, 1 leftovers"


def replaced(before: tuple[str, str], after: tuple[str, str]) -> list[list[str]]:
    """The steps of one file that takes its place."""
    until = [["listdir", before[0]], ["open", before[0]], *[["write", before[1]]] * 2]
    return [*until, ["fsync", before[1]], ["replace", before[1]], *[[step, after[0]] for step in SYNC]]


SYNC = ("open", "fsync", "close")
# Before which step a writer of 8 rows in shards of at most 3 was killed, and what was then there.
CAREFUL = [
    *[["listdir", ABSENT[0]], ["mkdir", ABSENT[0]], ["listdir", ABSENT[0]]],
    *replaced(ABSENT, rows(0)),
    *[["listdir", rows(0)[0]]] * 2,
    *replaced(rows(0), rows(3)),
    *replaced(rows(3), rows(6)),
    *replaced(rows(6), rows(8)),
]


def killed(folder: Path, kind: str) -> dict[str, Any]:
    """What there was after each kill, after a second one, and after a fill that was left to its end."""
    settings = {**os.environ, "PYTHONPATH": str(PROGRAM.parent.parent)}
    command = [sys.executable, PROGRAM, folder, kind]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=settings)
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def test_a_kill_at_each_step_and_a_second_one(tmp_path: Path) -> None:
    seen = killed(tmp_path / "cache", "careful")
    assert seen["once"] == CAREFUL
    # The second writer goes on: it never makes less of it, never damages anything, and never leaves two leftovers.
    ways = [*ABSENT, *rows(0), *rows(3), *rows(6), rows(8)[0]]
    assert seen["twice"] == [[one, other] for one in ways for other in ways if other[:8] >= one[:8]]
    assert seen["after"] == ["whole, 8 rows, 0 leftovers"]


def test_a_careless_writer_is_found_out(tmp_path: Path) -> None:
    """The negative control: the same, where a shard is written in its place."""
    seen = killed(tmp_path / "cache", "careless")
    states = [state for step, state in seen["once"] if step == "write" and not state.startswith("no cache")]
    assert sorted(set(states)) == [f"damaged, {number} rows, 0 leftovers" for number in (0, 3, 6)]
