"""What can be wrong when the cost of a model is asked for."""

from __future__ import annotations

from frostline._core.errors.training import MisfitError


class CostError(MisfitError):
    """A model whose cost cannot be told with this example."""
