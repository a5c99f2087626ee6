"""Lets writers save in a loop, between two contents, and kills each at a random instant; prints what was then there.

    python nursery.py FOLDER KILLS SEED careful|careless

It imports no framework, so that a writer is forked in a millisecond.
"""

import collections
import os
import random
import signal
import sys
import time
from itertools import cycle
from pathlib import Path

from checkpoint.deltas import small, source, write

SIZE = 600_000


def content(letter: bytes) -> object:
    return small(tensors={"head.weight": source("uint8", (SIZE,), letter * SIZE)}, schedule=letter.decode())


def save_carelessly(file: Path, data: bytes) -> None:
    with file.open("wb") as stream:
        for begin in range(0, len(data), 10_000):
            stream.write(data[begin : begin + 10_000])


def write_forever(file: Path, kind: str, reference: list[bytes]) -> None:
    for number, letter in cycle(enumerate(b"ab")):
        if kind == "careful":
            write(file, content(bytes([letter])))
        else:
            save_carelessly(file, reference[number])


def main(folder: Path, kills: int, seed: int, kind: str) -> None:
    file, dice = folder / "run.safetensors", random.Random(seed)
    reference = [write(folder / letter, content(letter.encode())).read_bytes() for letter in "ab"]
    file.write_bytes(reference[0])
    seen: collections.Counter[str] = collections.Counter()
    for _ in range(kills):
        writer = os.fork()
        if writer == 0:
            write_forever(file, kind, reference)
        time.sleep(dice.choice([0.0005, 0.002, 0.01, 0.03]) * dice.random())
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        found = file.read_bytes()
        seen["ab"[reference.index(found)] if found in reference else "torn"] += 1
        leftovers = [name for name in os.listdir(folder) if name.endswith(".part")]
        seen["with a leftover"] += bool(leftovers)
        seen["with several"] += len(leftovers) > 1
    write(file, content(b"a"))
    lines = [f"{word}={seen[word]}" for word in ("a", "b", "torn", "with a leftover", "with several")]
    sys.stdout.write("\n".join([*lines, " ".join(sorted(os.listdir(folder)))]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
