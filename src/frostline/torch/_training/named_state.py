"""The state of an optimizer by name, as data, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch.optim import Optimizer

from frostline._core.errors import BindError
from frostline.torch._training.moments import ParkedMoments

FORMAT, VERSION = "frostline.optimizer", 1

_FIELDS = {"optimizer", "groups", "group_of", "shapes", "state"}
CONTENT = {"params", "param_names"}
# With these options a kernel reads the counts; without them Python does.
_COUNTS_ON_DEVICE = ("capturable", "fused")
_SAVE = "Save it with binding.state_dict(), from a binding of the same model with the same rules."


def saved(
    optimizer: Optimizer,
    owned: Mapping[str, torch.Tensor],
    others: Mapping[str, torch.Tensor],
    groups: Mapping[str, int],
    parked: ParkedMoments,
) -> dict[str, Any]:
    """Returns the state by name; tensors are those of the optimizer, not copies, as in PyTorch.

    Args:
        optimizer: the optimizer.
        owned: the parameters of the model that it is for.
        others: parameters in it that are not the model's.
        groups: the number of the group of each path.
        parked: the moments of frozen parameters.
    """
    tensors = {**owned, **others}
    moments = {name: dict(optimizer.state[tensor]) for name, tensor in tensors.items() if optimizer.state.get(tensor)}
    options = [{k: v for k, v in group.items() if k not in CONTENT} for group in optimizer.param_groups]
    moments |= {path: dict(state) for path, state in parked.states.items()}
    return {
        "format": FORMAT,
        "version": VERSION,
        "optimizer": type(optimizer).__name__,
        "groups": options,
        "group_of": dict(groups),
        "shapes": {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        "state": moments,
        "moments": sorted(moments),
    }


def check_fits(
    expression: str,
    optimizer: Optimizer,
    owned: Mapping[str, torch.Tensor],
    others: Mapping[str, torch.Tensor],
    groups: Mapping[str, int],
    state: Any,
) -> None:
    """Checks that a state fits an optimizer.

    Args:
        expression: the call that loads it, for errors.
        optimizer: the optimizer.
        owned: the parameters of the model that it is for.
        others: parameters in it that are not the model's.
        groups: the number of the group of each path.
        state: the state by name.

    Raises:
        BindError: it is not a state of this format, or it is of another optimizer, other parameters, groups or shapes.
    """

    def misfit(problem: str, found: Sequence[str] = (), fix: str = _SAVE) -> BindError:
        return BindError(expression, problem, tuple(found), fix)

    if not isinstance(state, dict) or (state.get("format"), state.get("version")) != (FORMAT, VERSION):
        found = state.get("format", sorted(map(str, state))[:3]) if isinstance(state, dict) else type(state).__name__
        raise misfit(f"got {found!r}, and not a state of version {VERSION} that a binding saved.")
    if missing := sorted(_FIELDS - state.keys()):
        raise misfit(f"got a state that lacks {', '.join(missing)}.")
    if state["optimizer"] != type(optimizer).__name__:
        problem = f"got the state of {state['optimizer']} for {type(optimizer).__name__}."
        raise misfit(problem, fix=f"Make the optimizer that was saved: torch.optim.{state['optimizer']}(...).")
    tensors = {**owned, **others}
    missing = sorted(owned.keys() - state["group_of"].keys())
    unknown = sorted(
        (state["group_of"].keys() - owned.keys()) | (state["shapes"].keys() | state["state"].keys()) - tensors.keys()
    )
    if missing or unknown:
        names = [f"missing: {path}" for path in missing[:3]] + [f"unknown: {path}" for path in unknown[:2]]
        raise misfit(f"got a state of other parameters: {len(missing)} missing, {len(unknown)} unknown.", names)
    if state["group_of"] != dict(groups) or len(state["groups"]) != len(optimizer.param_groups):
        moved = [path for path in groups if state["group_of"][path] != groups[path]]
        problem = (
            f"got {len(state['groups'])} groups for {len(optimizer.param_groups)}, and {len(moved)} of {len(groups)} "
            "parameters are in another one."
        )
        raise misfit(problem, moved)
    wrong = [
        f"{name}: saved {tuple(shape)}, in the model {tuple(tensors[name].shape)}"
        for name, shape in state["shapes"].items()
        if tuple(tensors[name].shape) != tuple(shape)
    ]
    if wrong:
        raise misfit(f"got moments of {len(wrong)} parameters of other shapes.", wrong)
    if lost := sorted(set(state.get("moments", ())) - state["state"].keys()):
        problem = f"got a state that lacks the moments of {len(lost)} parameters, which were saved:"
        fix = "Load the driver before binding.state_dict() is asked for places to read them into."
        raise misfit(problem, lost, fix)


def load(
    optimizer: Optimizer,
    owned: Mapping[str, torch.Tensor],
    others: Mapping[str, torch.Tensor],
    parked: ParkedMoments,
    state: dict[str, Any],
) -> None:
    """Takes over a state that fits, in place.

    Args:
        optimizer: the optimizer.
        owned: the parameters of the model that it is for.
        others: parameters in it that are not the model's.
        parked: the moments of frozen parameters.
        state: the state by name.
    """
    for group, options in zip(optimizer.param_groups, state["groups"], strict=True):
        # A rate may be a tensor, and schedulers write into it.
        group.update(deepcopy(options))
    parked.clear()
    place = {id(p): number for number, group in enumerate(optimizer.param_groups) for p in group["params"]}
    with_moments = state.get("moments", state["state"])
    for name, tensor in {**owned, **others}.items():
        optimizer.state.pop(tensor, None)
        number = state["group_of"][name] if name in owned else place.get(id(tensor), 0)
        counts_too = any(map(state["groups"][number].get, _COUNTS_ON_DEVICE))
        moments = {
            key: _copied(value, tensor.device, counts_too=counts_too)
            for key, value in state["state"].get(name, {}).items()
            if name in with_moments
        }
        if name in owned and id(tensor) not in place:
            parked.park_loaded(name, moments)
        elif moments:
            optimizer.state[tensor] = moments


def _copied(value: Any, device: torch.device, *, counts_too: bool) -> Any:
    """Copies a moment to the device of its parameter, and a count only if the counts belong there too."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(device, copy=True) if value.dim() or counts_too else value.clone()
