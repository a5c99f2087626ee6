"""The state of an optimizer by name, as data, and back."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch.optim import Optimizer

from frostline._core.errors import BindError
from frostline.torch._training.moments import ParkedMoments, State

FORMAT, VERSION = "frostline.optimizer", 1

_LOAD = "binding.load_state_dict(state)"
_SAVE = "Save it with binding.state_dict(), from a binding of the same model with the same rules."


def saved(
    optimizer: Optimizer, owned: Mapping[str, torch.Tensor], groups: Mapping[str, int], parked: ParkedMoments
) -> dict[str, Any]:
    """The state by name; tensors are those of the optimizer, not copies, as in PyTorch."""
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


_CONTENT = {"params", "param_names"}
_FIELDS = {"optimizer", "groups", "group_of", "shapes", "state"}


def check_fits(optimizer: Optimizer, owned: Mapping[str, torch.Tensor], groups: Mapping[str, int], state: Any) -> None:
    """Raises where a state does not fit.

    Raises:
        BindError: it is no state of this format, or of another optimizer, other parameters, groups or shapes.
    """
    if not isinstance(state, dict) or (state.get("format"), state.get("version")) != (FORMAT, VERSION):
        found = state.get("format", sorted(map(str, state))[:3]) if isinstance(state, dict) else type(state).__name__
        raise BindError(_LOAD, f"got no state of version {VERSION} that a binding saved, but {found!r}.", (), _SAVE)
    if missing := sorted(_FIELDS - state.keys()):
        raise BindError(_LOAD, f"got a state that lacks {', '.join(missing)}.", (), _SAVE)
    if state["optimizer"] != type(optimizer).__name__:
        problem = f"got the state of {state['optimizer']} for {type(optimizer).__name__}."
        fix = f"Make the optimizer that was saved: torch.optim.{state['optimizer']}(...)."
        raise BindError(_LOAD, problem, (), fix)
    _check_names(owned, state)
    if state["group_of"] != dict(groups) or len(state["groups"]) != len(optimizer.param_groups):
        moved = [path for path in groups if state["group_of"][path] != groups[path]]
        problem = (
            f"got {len(state['groups'])} groups for {len(optimizer.param_groups)}, and {len(moved)} of {len(groups)} "
            "parameters are in another one."
        )
        raise BindError(_LOAD, problem, tuple(moved), _SAVE)
    _check_shapes(owned, state)


def loaded(
    optimizer: Optimizer, owned: Mapping[str, torch.Tensor], parked: ParkedMoments, state: dict[str, Any]
) -> None:
    """Takes over a state that fits, in place."""
    for group, options in zip(optimizer.param_groups, state["groups"], strict=True):
        # A rate may be a tensor, and schedulers write into it.
        group.update(deepcopy(options))
    parked.clear()
    inside = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for path, tensor in owned.items():
        optimizer.state.pop(tensor, None)
        options = state["groups"][state["group_of"][path]]
        moments = _like(tensor, state["state"].get(path, {}), counts=any(map(options.get, _COUNTS_ON_DEVICE)))
        if id(tensor) not in inside:
            parked.park_loaded(path, moments)
        elif moments:
            optimizer.state[tensor] = moments


# With these options a kernel reads the counts, where otherwise Python does.
_COUNTS_ON_DEVICE = ("capturable", "fused")


def _like(tensor: torch.Tensor, state: State, *, counts: bool) -> State:
    """Moments on the device of their parameter; counts there too, or else where they were saved."""
    return {key: _copied(value, tensor.device, counts=counts) for key, value in state.items()}


def _copied(value: Any, device: torch.device, *, counts: bool) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(device, copy=True) if value.dim() or counts else value.clone()


def _check_names(owned: Mapping[str, torch.Tensor], state: dict[str, Any]) -> None:
    missing, unknown = sorted(owned.keys() - state["group_of"].keys()), sorted(state["group_of"].keys() - owned.keys())
    if missing or unknown:
        problem = f"got a state of other parameters: {len(missing)} missing, {len(unknown)} unknown."
        found = tuple(f"missing: {path}" for path in missing[:3]) + tuple(f"unknown: {path}" for path in unknown[:2])
        raise BindError(_LOAD, problem, found, _SAVE)


def _check_shapes(owned: Mapping[str, torch.Tensor], state: dict[str, Any]) -> None:
    wrong = [
        f"{path}: saved {tuple(shape)}, in the model {tuple(owned[path].shape)}"
        for path, shape in state["shapes"].items()
        if tuple(owned[path].shape) != tuple(shape)
    ]
    if wrong:
        raise BindError(_LOAD, f"got moments of {len(wrong)} parameters of other shapes.", tuple(wrong), _SAVE)
