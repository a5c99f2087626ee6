"""What the examples in docstrings may use without importing it, and what both frameworks need before they start."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

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
