"""Fresh processes: what is measured in one of them does not depend on what was measured before."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from typing import Any

# Memory is never given back and asked for in big pieces, so that no step pays for another one's pages.
# One thread: each framework has its own variable for it.
QUIET = {
    "JAX_PLATFORMS": "cpu",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TOP_PAD_": str(2**28),
    "MALLOC_TRIM_THRESHOLD_": str(10**12),
    "OMP_NUM_THREADS": "1",
    "PJRT_NPROC": "1",
}


def measured(module: str, *args: Any, function: str = "measure") -> Any:
    """What a function of a module returns in a process of its own, which imports the module and nothing else."""
    before = dict(os.environ)
    os.environ.update(QUIET)
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_silence) as pool:
            return pool.submit(_call, module, function, args).result()
    finally:
        os.environ.clear()
        os.environ.update(before)


def _silence() -> None:
    # PyTorch's profiler writes lines of its own; errors come back as exceptions.
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def _call(module: str, function: str, args: tuple[Any, ...]) -> Any:
    return getattr(import_module(module), function)(*args)
