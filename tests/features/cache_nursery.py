"""Lets a writer fill a cache, kills it at a random instant, and looks at what is there; again and again.

    python cache_nursery.py FOLDER careful|careless

It goes on until enough was seen; the last writer is let live, and must have filled it.

It imports no framework, so that a writer is forked in a millisecond.
"""

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from features.made_stores import label, layer, manifest, rows
from frostline.features import writing
from frostline.features.manifest import NAME
from frostline.features.store import Store

writing.MOST_ROWS = 40
SAMPLES = 3000


@contextmanager
def carelessly(file: Path) -> Iterator[BinaryIO]:
    """What `replacing` is there for: the file itself is written, a piece at a time."""
    with file.open("wb", buffering=0) as stream:
        yield stream


def fill(folder: Path) -> None:
    store = Store(folder, manifest(samples=SAMPLES))
    store.create()
    store.remove(store.leftovers_of(0, 1))
    todo, writer = store.missing(range(SAMPLES), 0), store.writer()
    for begin in range(0, len(todo), 8):
        some = todo[begin : begin + 8]
        writer.add(0, some, rows(some))
    writer.flush()


def killed(folder: Path, wait: float) -> None:
    """Lets a writer work for some seconds."""
    writer = os.fork()
    if writer == 0:
        fill(folder)
        signal.pause()
    time.sleep(wait)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)


def is_as_it_should_be(store: Store) -> bool:
    there = sorted(set(range(SAMPLES)) - set(store.missing(range(SAMPLES), 0)))
    found = store.reader().rows(store.places(there, 0), ["value.0", "rest.0"])
    return found["value.0"] == b"".join(map(layer, there)) and found["rest.0"] == b"".join(map(label, there))


def look(store: Store, seen: Counter[str], before: int) -> None:
    damages = store.verify()
    seen["damaged"] += bool(damages)
    seen["shrunk"] += store.rows < before
    seen["wrong"] += not damages and not is_as_it_should_be(store)
    seen["with a leftover"] += bool(store.leftovers())
    seen["went on"] += store.rows > before


def main(folder: Path, kind: str) -> None:
    if kind == "careless":
        writing.replacing = carelessly
    dice, seen, patience = random.Random(0), Counter(dict.fromkeys(WORDS, 0)), 0.01
    while seen["kills"] < 1000 and not ENOUGH[kind](seen):
        before = Store.opened(folder).rows if (folder / NAME).exists() else 0
        killed(folder, patience * dice.random())
        seen["kills"] += 1
        store = Store.opened(folder) if (folder / NAME).exists() else None
        if store is not None:
            look(store, seen, before)
        # A machine may be slow: a writer gets longer when nothing came of it, and less when it was done.
        went_on = store is not None and store.rows > before
        patience = min(patience * (1.1 if went_on else 1.5), 3.0)
        if store is not None and store.rows == SAMPLES:
            patience /= 10
            store.clear()
    fill(folder)
    store = Store.opened(folder)
    seen["whole"] = store.verify() == [] and store.rows == SAMPLES and is_as_it_should_be(store)
    seen["leftovers"] = len(store.leftovers())
    sys.stdout.write("\n".join(f"{word}={int(number)}" for word, number in seen.items()))


WORDS = ("kills", "damaged", "shrunk", "wrong", "with a leftover", "went on")
ENOUGH = {
    "careful": lambda seen: seen["kills"] >= 30 and seen["went on"] > 5 and seen["with a leftover"] > 2,
    "careless": lambda seen: seen["damaged"] > 0,
}

if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
