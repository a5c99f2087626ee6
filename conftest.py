"""What the examples in docstrings may use without importing it, and what both frameworks need before they start."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator, MutableMapping
from typing import Any

# Small tensors: threads would only wait for each other, in this process and in those that a test starts.
os.environ["OMP_NUM_THREADS"] = "1"

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

# A slow machine is no counter-example.
settings.register_profile("frostline", parent=settings.default, deadline=None)
settings.load_profile("frostline")

# Sharded arrays are tested on the processor; this must be said before JAX looks for devices.
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)


def pytest_configure(config: pytest.Config) -> None:
    """Compiles each program of JAX once for all processes of a run, and anew for the next run."""
    if not hasattr(config, "workerinput"):
        folder = tempfile.TemporaryDirectory(prefix="frostline-compiled-", ignore_cleanup_errors=True)
        config.add_cleanup(folder.cleanup)
        os.environ["FROSTLINE_COMPILED"] = folder.name
    jax.config.update("jax_compilation_cache_dir", os.environ["FROSTLINE_COMPILED"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(autouse=True, scope="module")
def _let_go() -> Iterator[None]:
    """What a file has compiled is of no use to the next one, and would be held to the end."""
    yield
    jax.clear_caches()
    torch.compiler.reset()
    gc.collect()


FRONT_ENDS = {
    "frostline.jax": (frostline.jax, {"jax": jax, "jnp": jnp, "np": np, "optax": optax}),
    "frostline.torch": (frostline.torch, {"torch": torch, "nn": nn, "Rule": frostline.Rule}),
}


@pytest.fixture(autouse=True)
def _names(request: pytest.FixtureRequest, doctest_namespace: MutableMapping[str, Any]) -> None:
    torch.manual_seed(0)
    # It is one for all modules, and each is to see the names of its own front end only.
    doctest_namespace.clear()
    module = str(getattr(request.node, "dtest", None) and request.node.dtest.name)
    for name, (front_end, others) in FRONT_ENDS.items():
        if module.startswith(name):
            doctest_namespace.update({each: getattr(front_end, each) for each in front_end.__all__}, **others)
