"""Kills a writer at each of its steps, and a second one at each of its own; prints what was then there, as JSON.

    python killed_writers.py FOLDER careful|careless

It imports no framework, so that a writer is forked in a millisecond.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from checkpoint.deltas import small, source, write
from checkpoint.killing import each_kill

SIZE = 20_000


def content(letter: str) -> object:
    tensors = {"head.weight": source("uint8", (SIZE,), letter.encode() * SIZE)}
    return small(tensors=tensors, schedule=letter)


def save_carelessly(file: Path, data: bytes) -> None:
    with file.open("wb") as stream:
        for begin in range(0, len(data), 10_000):
            stream.write(data[begin : begin + 10_000])


def main(folder: Path, kind: str) -> None:
    elsewhere, place = folder / "elsewhere", folder / "place"
    elsewhere.mkdir()
    place.mkdir()
    file = place / "run.safetensors"
    reference = {write(elsewhere / letter, content(letter)).read_bytes(): letter for letter in "abc"}
    data = {letter: data for data, letter in reference.items()}

    def save(letter: str) -> Callable[[], object]:
        if kind == "careful":
            return lambda: write(file, content(letter))
        return lambda: save_carelessly(file, data[letter])

    def found() -> tuple[str, int]:
        """Whose content the file has, and how many others there are."""
        return reference.get(file.read_bytes(), "torn"), len(os.listdir(place)) - 1

    file.write_bytes(data["a"])
    once, twice, after = [], Counter[tuple[str, str, int]](), Counter[tuple[str, int]]()
    for step in each_kill(place, save("b")):
        first, leftovers = found()
        once.append((step, first, leftovers))
        for _ in each_kill(place, save("c")):
            twice[first, *found()] += 1
        save("c")()
        after[found()] += 1
    json.dump({"once": once, "twice": sorted(twice), "kills": twice.total(), "after": sorted(after)}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
