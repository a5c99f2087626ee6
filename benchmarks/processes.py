"""Fresh processes: what is measured in one of them owes nothing to what was measured before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

# Memory is given back to nobody and asked for in big pieces, so that no step pays for another one's pages.
# One thread: each framework has its own word for it.
QUIET = {
    "JAX_PLATFORMS": "cpu",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TOP_PAD_": str(2**28),
    "MALLOC_TRIM_THRESHOLD_": str(10**12),
    "OMP_NUM_THREADS": "1",
    "PJRT_NPROC": "1",
}


def answer(module: str, *args: str) -> Any:
    """What a module of the benchmarks writes as JSON when it is run."""
    command = [sys.executable, "-m", module, *args]
    done = subprocess.run(command, env={**os.environ, **QUIET}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout)
