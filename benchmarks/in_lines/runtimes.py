"""What is below the line in each runtime beside PyTorch as it is.

Run as ``python -m benchmarks.in_lines.runtimes NAME SIZE ROUNDS`` in a process of its own; writes JSON.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.in_lines.cuts import CUTS
from benchmarks.in_lines.outcome import PLAIN, Race, Raced
from benchmarks.ratios import Ratio
from frostline.torch import Line, frostline


def race(name: str, size: str, rounds: int) -> Race:
    """Each runtime takes a step in turn, on the same model."""
    model, (example,) = CUTS[name].made(size)
    record = frostline(model, example, runtime="auto").runtime
    running = {trial.name: trial for trial in record.trials if not trial.reason}
    lines = {each: frostline(model, example, runtime=None if each == PLAIN else each) for each in running}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step(line: Line) -> tuple[float, float]:
        begin = time.process_time()
        crossing = line.below(example)
        between = time.process_time()
        optimizer.zero_grad()
        loss(line.above(*crossing)).backward()
        optimizer.step()
        return between - begin, time.process_time() - begin

    seconds: dict[str, list[tuple[float, float]]] = {each: [] for each in lines}
    for number in range(-1, rounds):
        for each, line in lines.items():
            taken = step(line)
            if number >= 0:
                seconds[each].append(taken)
    below, whole = ({each: [pair[part] for pair in pairs] for each, pairs in seconds.items()} for part in (0, 1))
    raced = [
        Raced(each, Ratio.of(below[each], below[PLAIN]), Ratio.of(whole[each], whole[PLAIN]), trial.error or 0.0)
        for each, trial in running.items()
    ]
    left_out = {trial.name: trial.reason for trial in record.trials if trial.reason}
    times = (1000 * median(below[PLAIN]), 1000 * median(whole[PLAIN]))
    return Race(CUTS[name].title, *times, raced, left_out, record.picked)


def loss(output: Tensor) -> Tensor:
    return F.cross_entropy(output, output.new_zeros(len(output), dtype=torch.long))


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(asdict(race(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
