"""What the examples in docstrings may use without importing it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import nn

import frostline.torch

# A slow machine is no counter-example.
settings.register_profile("frostline", parent=settings.default, deadline=None)
settings.load_profile("frostline")


@pytest.fixture(autouse=True)
def _names(doctest_namespace: MutableMapping[str, Any]) -> None:
    torch.manual_seed(0)
    public = {name: getattr(frostline.torch, name) for name in frostline.torch.__all__}
    doctest_namespace.update(public, torch=torch, nn=nn)
