"""What the examples in docstrings may use without importing it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest
import torch
from torch import nn

import frostline.torch


@pytest.fixture(autouse=True)
def _names(doctest_namespace: MutableMapping[str, Any]) -> None:
    torch.manual_seed(0)
    public = {name: getattr(frostline.torch, name) for name in frostline.torch.__all__}
    doctest_namespace.update(public, torch=torch, nn=nn)
