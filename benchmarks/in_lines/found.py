"""A frost line: how long it takes to find, and what is at it.

Run as ``python -m benchmarks.in_lines.found NAME SIZE`` in a process of its own; writes JSON.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict

import torch

from benchmarks.in_lines.cuts import CUTS
from benchmarks.in_lines.outcome import Found
from frostline import LineError
from frostline.torch import frostline


def find(name: str, size: str) -> Found:
    """Draws the line of one model."""
    model, example = CUTS[name].made(size)
    begin = time.process_time()
    try:
        line = frostline(model, *example)
    except LineError as error:
        return Found(CUTS[name].title, time.process_time() - begin, refused=str(error).splitlines()[0])
    seconds = time.process_time() - begin
    crossing = [f"{each.name} {list(each.shape)}" for each in line.boundary]
    samples = sum(x.nbytes // len(x) for x in example)
    return Found(CUTS[name].title, seconds, crossing, sum(each.bytes for each in line.boundary), samples, line.flops)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(asdict(find(*sys.argv[1:]))))
