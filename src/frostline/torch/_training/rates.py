"""Factors of learning rates that only the optimizer's own step sees."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer


class Rates:
    """Lends an optimizer learning rates for one step, and takes them back.

    Between steps the optimizer has its own rates, the very same objects, so learning-rate schedulers and checkpoints
    never see a factor. During the step a group whose parameters have several factors is several groups; of
    the notes that an optimizer makes in them meanwhile, as few do, those in the first are kept.

    Attributes:
        factors: path -> factor; a path that is not in it has 1.
        by_rule: the same, for the whole run, where a rule comes too late for a group of its own.
    """

    def __init__(self) -> None:
        self.factors: dict[str, float] = {}
        self.by_rule: dict[str, float] = {}
        self._lent: list[tuple[dict[str, Any], list[torch.Tensor], Any]] = []
        self._count = 0

    def factor(self, path: str) -> float:
        """Returns the factor of a path."""
        return self.factors.get(path, 1.0) * self.by_rule.get(path, 1.0)

    def lend(self, optimizer: Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
        """Multiplies the learning rates, in place."""
        self.take_back(optimizer)
        paths = (path for path in tensors if path in self.factors or path in self.by_rule)
        factor_of = {id(tensors[path]): self.factor(path) for path in paths}
        self._count = len(optimizer.param_groups)
        for group in optimizer.param_groups[: self._count] if factor_of else ():
            shares: dict[float, list[torch.Tensor]] = defaultdict(list)
            for tensor in group["params"]:
                shares[factor_of.get(id(tensor), 1.0)].append(tensor)
            self._lent.append((group, group["params"], group["lr"]))
            others = [dict(group) for _ in range(len(shares) - 1)]
            optimizer.param_groups.extend(others)
            for each, (factor, params) in zip([group, *others], shares.items(), strict=False):
                each["params"], each["lr"] = params, each["lr"] * factor

    def take_back(self, optimizer: Optimizer) -> None:
        """Undoes `lend`, in place. Idempotent, because a step that fails never comes to an end."""
        if not self._lent:
            return
        del optimizer.param_groups[self._count :]
        for group, params, rate in self._lent:
            group["params"], group["lr"] = params, rate
        self._lent.clear()
