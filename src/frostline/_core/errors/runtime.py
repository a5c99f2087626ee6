"""What can be wrong with the way in which frozen parts are to run."""

from __future__ import annotations

from frostline._core.errors.training import MisfitError


class RuntimeChoiceError(MisfitError):
    """A runtime that does not exist, cannot run here, or is further off than the bound allows."""
