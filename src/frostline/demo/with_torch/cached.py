"""A head that learns from what its frozen trunk said once, in PyTorch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import final

import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset, default_collate

import frostline.torch as ft
from frostline.demo.scans import Numbers


@final
class Cached:
    """What is above the line learns; what is below it was computed once.

    Attributes:
        seconds: what each step took, reading included.
        nbytes: what is stored for all scans, in bytes.
    """

    def __init__(
        self, line: ft.FrostLine, scans: TensorDataset, optimizer: torch.optim.Optimizer, folder: Path
    ) -> None:
        cache = ft.FeatureCache(folder, line)
        cache.fill(scans, progress=False)
        self.seconds: list[float] = []
        self.nbytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        self._line, self._data, self._optimizer = line, cache.dataset(scans), optimizer

    def step(self, places: Numbers) -> None:
        """Takes one step on the scans at these places."""
        start = time.perf_counter()
        features, labels = default_collate(self._data.__getitems__(places.tolist()))
        self._optimizer.zero_grad()
        F.cross_entropy(self._line.above(*features), labels).backward()
        self._optimizer.step()
        self.seconds.append(time.perf_counter() - start)
