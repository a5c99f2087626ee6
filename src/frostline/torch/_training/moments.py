"""The moments of frozen parameters, which are parked until the parameters thaw."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch.optim import Optimizer

from frostline._core.errors import BindError

Moments = Literal["keep", "cpu", "release"]
State = dict[str, Any]


class ParkedMoments:
    """The optimizer state of frozen parameters, by name.

    Attributes:
        moments: ``"keep"`` leaves the state where it is, ``"cpu"`` moves it to main memory, ``"release"`` drops it.
        states: name -> state.
    """

    def __init__(self, moments: Moments) -> None:
        if moments not in get_args(Moments):
            raise BindError(
                f"bind(optimizer, model, moments={moments!r})",
                "is not one of the 3 ways to treat the moments of frozen parameters:",
                (
                    '"keep"     they stay as they are',
                    '"cpu"      they go to main memory',
                    '"release"  they are dropped, and start at zero after a thaw',
                ),
                'Write moments="keep", or leave it out.',
            )
        self.moments = moments
        self.states: dict[str, State] = {}
        self._devices: dict[str, dict[str, torch.device]] = {}

    def park(self, name: str, state: State | None) -> None:
        """Stores the state of a parameter that was frozen, unless there is none or it is to be released."""
        if self.moments != "release":
            self.park_loaded(name, state)

    def park_loaded(self, name: str, state: State | None) -> None:
        """Stores a state that was loaded, in any case: whatever is loaded next, such as a driver, may thaw it."""
        if not state:
            return
        self._devices[name] = {key: value.device for key, value in state.items() if isinstance(value, torch.Tensor)}
        self.states[name] = {
            key: value.cpu() if self.moments == "cpu" and isinstance(value, torch.Tensor) else value
            for key, value in state.items()
        }

    def begin_step(self) -> None:
        """Drops what was loaded and is still frozen, if moments are to be released."""
        if self.moments == "release":
            self.clear()

    def clear(self) -> None:
        """Drops everything."""
        self.states.clear()
        self._devices.clear()

    def take(self, name: str) -> State | None:
        """Removes and returns the state of a parameter that thaws, on its own devices; None if there is none."""
        state = self.states.pop(name, None)
        devices = self._devices.pop(name, {})
        if state is None:
            return None
        return {k: v.to(devices[k]) if k in devices else v for k, v in state.items()}


def state_bytes(optimizer: Optimizer, tensor: torch.Tensor) -> int:
    """Returns the bytes that an optimizer keeps for a parameter, single-number counters aside."""
    state = optimizer.state.get(tensor, {})
    return sum(t.nbytes for t in state.values() if isinstance(t, torch.Tensor) and t.dim() > 0)
