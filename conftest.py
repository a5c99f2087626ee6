"""What the examples in docstrings may use without importing it, and what both frameworks need before they start."""

from __future__ import annotations

import ctypes
import gc
import os
import tempfile
from collections.abc import Iterator, MutableMapping
from typing import Any

# Also for the processes that a test starts. Tensors are small, so that threads would only wait for each other. Sharded
# arrays are tested on the processor; that there are several devices must be known before JAX looks for them.
os.environ |= {"OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
# No trainer may look for a hub.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from hypothesis import settings
from torch import nn

import frostline.jax
import frostline.torch

# What is checked alone, or runs in a process of its own.
collect_ignore = ["tests/types", "tests/integrations/keras_run.py", "tests/integrations/timm_run.py"]

# A slow machine is no counter-example.
settings.register_profile("frostline", parent=settings.default, deadline=None)
settings.load_profile("frostline")


def pytest_configure(config: pytest.Config) -> None:
    """Compiles each program of JAX once for all processes of a run, and anew for the next run."""
    if not hasattr(config, "workerinput"):
        folder = tempfile.TemporaryDirectory(prefix="frostline-compiled-", ignore_cleanup_errors=True)
        config.add_cleanup(folder.cleanup)
        os.environ |= {
            "JAX_COMPILATION_CACHE_DIR": folder.name,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    # Processes that a test starts read the environment; this one has imported JAX already.
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


# Each program of JAX takes megabytes, which glibc keeps for the next one, in pieces, until it is asked for them.
_give_back = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None


@pytest.fixture(autouse=True, scope="module")
def _let_go() -> Iterator[None]:
    """What a file has compiled is of no use to the next one, and would be held to the end.

    What is left stays to the end: a million objects of modules, through which no later collection need walk again.
    """
    yield
    jax.clear_caches()
    torch.compiler.reset()
    gc.collect()
    gc.freeze()
    if _give_back is not None:
        _give_back(0)


FRONT_ENDS = {
    "frostline.jax": (frostline.jax, {"jax": jax, "jnp": jnp, "np": np, "optax": optax}),
    "frostline.torch": (frostline.torch, {"torch": torch, "nn": nn, "Rule": frostline.Rule}),
}


@pytest.fixture(autouse=True)
def _names(request: pytest.FixtureRequest, doctest_namespace: MutableMapping[str, Any]) -> None:
    torch.default_generator.manual_seed(0)  # torch.manual_seed writes down the stack for each device that is absent
    # It is one for all modules, and each is to see the names of its own front end only.
    doctest_namespace.clear()
    module = str(getattr(request.node, "dtest", None) and request.node.dtest.name)
    for name, (front_end, others) in FRONT_ENDS.items():
        if module.startswith(name):
            doctest_namespace.update({each: getattr(front_end, each) for each in front_end.__all__}, **others)
