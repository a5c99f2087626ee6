"""The state of an optimizer by name, as data, and back."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch.optim import Optimizer

from frostline._core.errors import BindError
from frostline.torch._training.moments import ParkedMoments

FORMAT, VERSION = "frostline.optimizer", 1

_FIELDS = {"optimizer", "groups", "group_of", "shapes", "state"}
_CONTENT = {"params", "param_names"}
# With these options a kernel reads the counts; without them Python does.
_COUNTS_ON_DEVICE = ("capturable", "fused")
_SAVE = "Save it with binding.state_dict(), from a binding of the same model with the same rules."


def saved(
    optimizer: Optimizer, owned: Mapping[str, torch.Tensor], groups: Mapping[str, int], parked: ParkedMoments
) -> dict[str, Any]:
    """Returns the state by name; tensors are those of the optimizer, not copies, as in PyTorch."""
    moments = {path: dict(optimizer.state[tensor]) for path, tensor in owned.items() if optimizer.state.get(tensor)}
    options = [{k: v for k, v in group.items() if k not in _CONTENT} for group in optimizer.param_groups]
    return {
        "format": FORMAT,
        "version": VERSION,
        "optimizer": type(optimizer).__name__,
        "groups": options,
        "group_of": dict(groups),
        "shapes": {path: tuple(tensor.shape) for path, tensor in owned.items()},
        "state": moments | {path: dict(state) for path, state in parked.states.items()},
    }


def check_fits(optimizer: Optimizer, owned: Mapping[str, torch.Tensor], groups: Mapping[str, int], state: Any) -> None:
    """Checks that a state fits an optimizer.

    Raises:
        BindError: it is not a state of this format, or it is of another optimizer, other parameters, groups or shapes.
    """
    if not isinstance(state, dict) or (state.get("format"), state.get("version")) != (FORMAT, VERSION):
        found = state.get("format", sorted(map(str, state))[:3]) if isinstance(state, dict) else type(state).__name__
        raise _misfit(f"got {found!r}, and not a state of version {VERSION} that a binding saved.")
    if missing := sorted(_FIELDS - state.keys()):
        raise _misfit(f"got a state that lacks {', '.join(missing)}.")
    if state["optimizer"] != type(optimizer).__name__:
        problem = f"got the state of {state['optimizer']} for {type(optimizer).__name__}."
        raise _misfit(problem, fix=f"Make the optimizer that was saved: torch.optim.{state['optimizer']}(...).")
    missing, unknown = sorted(owned.keys() - state["group_of"].keys()), sorted(state["group_of"].keys() - owned.keys())
    if missing or unknown:
        names = [f"missing: {path}" for path in missing[:3]] + [f"unknown: {path}" for path in unknown[:2]]
        raise _misfit(f"got a state of other parameters: {len(missing)} missing, {len(unknown)} unknown.", names)
    if state["group_of"] != dict(groups) or len(state["groups"]) != len(optimizer.param_groups):
        moved = [path for path in groups if state["group_of"][path] != groups[path]]
        problem = (
            f"got {len(state['groups'])} groups for {len(optimizer.param_groups)}, and {len(moved)} of {len(groups)} "
            "parameters are in another one."
        )
        raise _misfit(problem, moved)
    wrong = [
        f"{path}: saved {tuple(shape)}, in the model {tuple(owned[path].shape)}"
        for path, shape in state["shapes"].items()
        if tuple(owned[path].shape) != tuple(shape)
    ]
    if wrong:
        raise _misfit(f"got moments of {len(wrong)} parameters of other shapes.", wrong)


def _misfit(problem: str, found: list[str] | None = None, fix: str = _SAVE) -> BindError:
    return BindError("binding.load_state_dict(state)", problem, tuple(found or ()), fix)


def load(optimizer: Optimizer, owned: Mapping[str, torch.Tensor], parked: ParkedMoments, state: dict[str, Any]) -> None:
    """Takes over a state that fits, in place."""
    for group, options in zip(optimizer.param_groups, state["groups"], strict=True):
        # A rate may be a tensor, and schedulers write into it.
        group.update(deepcopy(options))
    parked.clear()
    inside = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for path, tensor in owned.items():
        optimizer.state.pop(tensor, None)
        options = state["groups"][state["group_of"][path]]
        counts_too = any(map(options.get, _COUNTS_ON_DEVICE))
        moments = {
            key: _copied(value, tensor.device, counts_too=counts_too)
            for key, value in state["state"].get(path, {}).items()
        }
        if id(tensor) not in inside:
            parked.park_loaded(path, moments)
        elif moments:
            optimizer.state[tensor] = moments


def _copied(value: Any, device: torch.device, *, counts_too: bool) -> Any:
    """Copies a moment to the device of its parameter, and a count only if the counts belong there too."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(device, copy=True) if value.dim() or counts_too else value.clone()
