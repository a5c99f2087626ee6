"""Where the moments of frozen parameters are kept until they thaw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch

from frostline._core.errors import BindError

Moments = Literal["keep", "cpu", "release"]
State = dict[str, Any]


class Shelf:
    """The optimizer state of what is frozen, by name.

    Attributes:
        moments: ``"keep"`` leaves the state where it is, ``"cpu"`` moves it to the main memory, ``"release"`` drops it.
        states: name -> state.
    """

    def __init__(self, moments: Moments) -> None:
        if moments not in get_args(Moments):
            raise BindError(
                f"bind(optimizer, model, moments={moments!r})",
                "names none of the 3 things that can be done with the moments of what is frozen.",
                (
                    '"keep"     they stay as they are',
                    '"cpu"      they go to the main memory',
                    '"release"  they are gone, and start anew',
                ),
                'Write moments="keep", or leave it out.',
            )
        self.moments = moments
        self.states: dict[str, State] = {}
        self._devices: dict[str, dict[str, torch.device]] = {}

    def put(self, name: str, state: State | None) -> None:
        """Keeps the state of a parameter that was frozen, if there is one and it is not to be released."""
        if self.moments != "release":
            self.lay(name, state)

    def lay(self, name: str, state: State | None) -> None:
        """Keeps a state that was loaded, in any case: what is loaded next, a driver for example, may thaw it."""
        if not state:
            return
        self._devices[name] = {key: value.device for key, value in state.items() if isinstance(value, torch.Tensor)}
        self.states[name] = mapped(state, torch.Tensor.cpu) if self.moments == "cpu" else state

    def begin_step(self) -> None:
        """Releases what was loaded and is frozen still, if it is to be released."""
        if self.moments == "release":
            self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self.states.clear()
        self._devices.clear()

    def take(self, name: str) -> State | None:
        """The state of a parameter that thaws, where it was before, bit for bit; None if there is none."""
        state = self.states.pop(name, None)
        devices = self._devices.pop(name, {})
        if state is None:
            return None
        return {k: v.to(devices[k]) if k in devices else v for k, v in state.items()}


def mapped(state: Mapping[str, Any], function: Callable[[torch.Tensor], torch.Tensor]) -> State:
    """The state with a function applied to its tensors."""
    return {key: function(value) if isinstance(value, torch.Tensor) else value for key, value in state.items()}
