"""The state of an optimizer in a delta: as JSON, with the names of its tensors in their places."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from frostline._core.errors import DeltaError
from frostline.checkpoint.delta import OPTIMIZER
from frostline.torch._training.named_state import FORMAT, VERSION

Tensors = dict[str, torch.Tensor]


def written(state: Mapping[str, Any]) -> tuple[object, Tensors]:
    """Returns the state that a binding saves as JSON, and the tensors in it by name.

    Args:
        state: of ``binding.state_dict()``.

    Raises:
        DeltaError: the optimizer keeps something that is neither a tensor nor JSON.

    Example:
        >>> text, tensors = written({"state": {"w": {"step": torch.ones(())}}, "groups": [{"betas": (0.9, 0.99)}]})
        >>> text["groups"]
        [{'dict': {'betas': {'tuple': [0.9, 0.99]}}}]
        >>> sorted(tensors)
        ['@optimizer/w/step']
    """
    tensors: Tensors = {}
    parts = {key: value for key, value in state.items() if key not in ("state", "groups")}
    text = {key: _written(value, key, tensors) for key, value in parts.items()}
    text["groups"] = [_written(group, f"/{number}", tensors) for number, group in enumerate(state["groups"])]
    text["state"] = {path: _written(moments, path, tensors) for path, moments in state["state"].items()}
    return text, tensors


def _written(value: Any, name: str, tensors: Tensors) -> object:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"float": repr(value)}
        case torch.Tensor():
            full = f"{OPTIMIZER}{name}"
            assert full not in tensors, "a path and a key name one tensor"
            tensors[full] = value
            return {"tensor": full}
        case tuple() | list():
            found = [_written(part, f"{name}/{number}", tensors) for number, part in enumerate(value)]
            return {"tuple": found} if isinstance(value, tuple) else found
        case dict() if all(isinstance(key, str) for key in value):
            return {"dict": {key: _written(part, f"{name}/{key}", tensors) for key, part in value.items()}}
    raise DeltaError(
        "save_delta(file, model, optimizer=binding)",
        f"finds a {type(value).__name__} in the state of the optimizer, at {name!r}: it is neither a tensor nor JSON.",
        (),
        "Save without the optimizer: save_delta(file, model).",
    )


def read(text: object, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Returns the state that `written` made a text of, with these tensors.

    Raises:
        ValueError: the text is not one of a state; the text of the error says why.
    """
    if not isinstance(text, dict) or (text.get("format"), text.get("version")) != (FORMAT, VERSION):
        raise ValueError("it is not the state of an optimizer of PyTorch")
    left = dict(tensors)
    try:
        state = {key: _read(value, left) for key, value in text.items() if key not in ("state", "groups")}
        state["groups"] = [_read(group, left) for group in text["groups"]]
        state["state"] = {path: _read(moments, left) for path, moments in text["state"].items()}
    except (AttributeError, KeyError, RecursionError, TypeError) as error:
        raise ValueError(f"a part of it is missing or malformed ({type(error).__name__}: {error})") from error
    if left:
        raise ValueError(f"{len(left)} of its tensors have no place, {sorted(left)[0]!a} for one")
    shapes = {"optimizer": str, "groups": list, "group_of": dict, "shapes": dict, "state": dict}
    for key, kind in shapes.items():
        if not isinstance(state.get(key), kind):
            raise ValueError(f"its {key!r} is not of type {kind.__name__}")
    for group in state["groups"]:
        if not isinstance(group, dict) or not group.keys().isdisjoint({"params", "param_names"}):
            raise ValueError("one of its groups is malformed")
    known = state["group_of"].keys()
    if not state["shapes"].keys() >= known or not state["state"].keys() <= state["shapes"].keys():
        raise ValueError("it speaks of moments of unknown parameters")
    if not all(isinstance(moments, dict) for moments in state["state"].values()):
        raise ValueError("the moments of a parameter are malformed")
    return state


def _read(text: Any, tensors: Tensors) -> Any:
    match text:
        case None | bool() | int() | float() | str():
            return text
        case list():
            return [_read(part, tensors) for part in text]
        case {"float": "inf" | "-inf" | "nan" as number}:
            return float(number)
        case {"tensor": str(name)}:
            return tensors.pop(name)
        case {"tuple": list(parts)}:
            return tuple(_read(part, tensors) for part in parts)
        case {"dict": dict(parts)}:
            return {key: _read(part, tensors) for key, part in parts.items()}
    raise TypeError(f"{type(text).__name__} of an unknown kind")
