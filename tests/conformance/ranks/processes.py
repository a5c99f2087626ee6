"""Runs checks in several processes at once, and tells how each of them ended.

The processes are forks of one that has imported everything, so an import is paid once. They meet over a file, and no
port is used. A check is a function without arguments that each rank calls; its name is the name of the function. What
one group of processes leaves in the folder is there for the next one.

    python processes.py FOLDER SUBJECT-WORLD ...
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

STAGES = (
    ("laws", 2),
    ("data_parallel", 2),
    ("sharded", 2),
    ("tensor_parallel", 2),
    ("files", 2),
    ("laws", 4),
    ("files", 4),
    ("files", 1),
    ("kills", 2),
    ("kills", 3),
    ("kills", 1),
)
"""The module with the checks, and the number of processes, in this order."""

SECONDS = 120
"""After so long a group of processes has hung. It takes a tenth of that."""

PASSED = "passed"


def checks(subject: str, world: int) -> list[Callable[[], Any]]:
    """Returns the checks of a module for a number of processes."""
    module = importlib.import_module(f"conformance.ranks.{subject}")
    found: dict[int, list[Callable[[], Any]]] = module.CHECKS
    return found[world]


def outcomes(folder: Path) -> dict[tuple[str, int, str], str]:
    """Runs all stages, and returns for each check `PASSED`, or what went wrong on which rank."""
    stages = [f"{subject}-{world}" for subject, world in STAGES]
    command = [sys.executable, "-W", "error", __file__, str(folder), *stages]
    above = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(above)}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    found = {}
    for subject, world in STAGES:
        said = []
        for rank in range(world):
            file = folder / f"{subject}-{world}-{rank}.json"
            said.append(json.loads(file.read_text()) if file.exists() else {})
        for check in checks(subject, world):
            name = check.__name__
            texts = [each.get(name, f"did not run\n{ran.stderr[-4000:]}") for each in said]
            wrong = [f"rank {rank}: {text}" for rank, text in enumerate(texts) if text != PASSED]
            found[subject, world, name] = "\n".join(wrong) or PASSED
    return found


def _rank(subject: str, rank: int, world: int, folder: Path) -> None:
    import torch
    from torch import distributed

    signal.alarm(SECONDS)
    torch.set_num_threads(1)
    os.chdir(folder)
    meeting = f"file://{folder}/{subject}-{world}.meeting"
    wait = timedelta(seconds=SECONDS / 2)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world, timeout=wait)
    said: dict[str, str] = {}
    for check in checks(subject, world):
        torch.manual_seed(0)
        try:
            check()
            text = PASSED
        except BaseException:  # noqa: BLE001 - whatever it is, it is the outcome of the check
            text = traceback.format_exc()
        said[check.__name__] = text
        (folder / f"{subject}-{world}-{rank}.json").write_text(json.dumps(said))
        all_said: list[str] = [""] * world
        distributed.all_gather_object(all_said, text)
        if set(all_said) != {PASSED}:
            break  # the ranks may be at different places now
    distributed.destroy_process_group()


def _main(folder: Path, stages: list[tuple[str, int]]) -> None:
    for subject, _ in stages:
        importlib.import_module(f"conformance.ranks.{subject}")
    for subject, world in stages:
        begun, children = time.monotonic(), []
        for rank in range(world):
            if (child := os.fork()) == 0:
                try:
                    _rank(subject, rank, world, folder)
                except BaseException:  # noqa: BLE001 - a fork must not go on as its parent
                    traceback.print_exc()
                finally:
                    sys.stderr.flush()
                    os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        with (folder / "seconds.txt").open("a") as log:
            log.write(f"{subject} {world}: {time.monotonic() - begun:.1f}\n")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), [(each.partition("-")[0], int(each.partition("-")[2])) for each in sys.argv[2:]])
