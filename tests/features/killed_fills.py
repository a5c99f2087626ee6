"""Kills a writer that fills a cache at each of its steps, the next one at each of its own; prints what was then there.

    python killed_fills.py FOLDER careful|careless

It imports no framework, so that a writer is forked in a millisecond.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from checkpoint.killing import each_kill
from features.made_stores import label, layer, manifest, rows
from frostline.features import writing
from frostline.features.manifest import NAME
from frostline.features.store import Store
from frostline.features.writing import Writer

SAMPLES = 8


@contextmanager
def carelessly(file: Path) -> Iterator[BinaryIO]:
    """What `replacing` is there for: the file itself is written, a piece at a time."""
    with file.open("wb", buffering=0) as stream:
        yield stream


def fill(folder: Path) -> None:
    store = Store(folder, manifest(samples=SAMPLES))
    store.create()
    store.remove(store.leftovers_of(0, 1))
    todo, writer = store.missing(range(SAMPLES), 0), Writer(store)
    for sample in todo:
        writer.add(0, [sample], rows([sample]))
    writer.flush()


def state(folder: Path) -> str:
    """One word on what is there, and the rows and leftovers."""
    if not (folder / NAME).exists():
        return f"no cache, {len(os.listdir(folder)) if folder.exists() else 0} leftovers"
    store = Store.opened(folder)
    leftovers = sum(name.endswith(".part") for name in os.listdir(folder))
    word = "damaged" if store.verify() else "whole" if is_as_it_should_be(store) else "wrong"
    return f"{word}, {store.rows} rows, {leftovers} leftovers"


def is_as_it_should_be(store: Store) -> bool:
    there = sorted(set(range(SAMPLES)) - set(store.missing(range(SAMPLES), 0)))
    found = store.reader().rows(store.places(there, 0), ["value.0", "rest.0"])
    return found["value.0"] == b"".join(map(layer, there)) and found["rest.0"] == b"".join(map(label, there))


def main(folder: Path, kind: str) -> None:
    writing.MOST_ROWS, writing.MOST_SECONDS = 3, float("inf")
    if kind == "careless":
        writing.replacing = carelessly
    once: list[tuple[str, str]] = []
    twice: set[tuple[str, str]] = set()
    after: set[str] = set()
    kills = 0
    for step in each_kill(folder, lambda: fill(folder)):
        first = state(folder)
        once.append((step, first))
        kills += 1
        if kind == "careful":
            for _ in each_kill(folder, lambda: fill(folder)):
                twice.add((first, state(folder)))
                kills += 1
            fill(folder)
            after.add(state(folder))
    json.dump({"once": once, "kills": kills, "twice": sorted(twice), "after": sorted(after)}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
