"""A writer that is killed at any of its steps leaves the old file or the new one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).parent / "killed_writers.py"

# Before which step a writer of "b" over "a" was killed, what was then in the file, and how many others were beside it.
CAREFUL = [
    ["listdir", "a", 0],
    ["open", "a", 0],
    # Both halves of the data, and of the header.
    *[["write", "a", 1]] * 4,
    ["fsync", "a", 1],
    ["replace", "a", 1],
    ["open", "b", 0],
    ["fsync", "b", 0],
    ["close", "b", 0],
]
CARELESS = [["open", "a", 0], *[["write", "torn", 0]] * 6]


def killed(folder: Path, kind: str) -> dict[str, Any]:
    """What there was after each kill, after a second one, and after one more save."""
    settings = {**os.environ, "PYTHONPATH": str(PROGRAM.parent.parent)}
    command = [sys.executable, PROGRAM, folder, kind]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=settings)
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def test_a_kill_at_each_step_and_a_second_one(tmp_path: Path) -> None:
    seen = killed(tmp_path, "careful")
    assert seen["once"] == CAREFUL
    # The next writer, of "c", has three steps more where it finds a leftover: it opens it, to see whether somebody is
    # writing it, removes it, and closes it. It is never torn, and there are never two.
    assert seen["kills"] == len(CAREFUL) ** 2 + 3 * sum(leftovers for _, _, leftovers in CAREFUL)
    assert seen["twice"] == [[one, *rest] for one in "ab" for rest in ([one, 0], [one, 1], ["c", 0])]
    # A leftover stays no longer than to the next save.
    assert seen["after"] == [["c", 0]]


def test_a_careless_writer_is_found_out(tmp_path: Path) -> None:
    """The negative control: the same, where the old file is written over."""
    seen = killed(tmp_path, "careless")
    assert seen["once"] == CARELESS
    assert seen["twice"] == [["a", "a", 0], ["a", "torn", 0], ["torn", "torn", 0]]
