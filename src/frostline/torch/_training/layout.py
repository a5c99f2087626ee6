"""The parameters of an optimizer in the order in which it was built: the layout of PyTorch's own state dict."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, final

import torch
from torch.optim import Optimizer

from frostline._core.errors import BindError
from frostline.torch._training.named_state import CONTENT, FORMAT, VERSION

# Under this key the state of PyTorch's own format holds what has no place in the layout. PyTorch carries it along.
EXTRA = "frostline"
_DISTRIBUTED = "torch.distributed.checkpoint.state_dict"
_LIKE_THE_PARAMETER = ("exp_avg", "momentum_buffer", "square_avg", "sum")
_FIX = "Save it from a bound optimizer, or load it before bind(optimizer, model), into one that was built alike."


@final
class BuiltLayout:
    """Which names an optimizer was built with, group by group.

    Parameters that are not the model's, such as those of a loss, are called ``~0``, ``~1`` and so on.

    Attributes:
        names: the names of each group, in the order of its parameters.
        others: the parameters that are not the model's, by name.
    """

    def __init__(self, optimizer: Optimizer, paths: Mapping[int, str]) -> None:
        self.others: dict[str, torch.Tensor] = {}
        self._labels = {
            id(p): path for group in optimizer.param_groups for p in group["params"] if (path := paths.get(id(p)))
        }
        self.notice(optimizer)
        self.names = [tuple(self._labels[id(p)] for p in group["params"]) for group in optimizer.param_groups]
        self.given_names = [list(group.get("param_names", ())) for group in optimizer.param_groups]
        # Tensors of the model may be replaced, and are found by path.
        self._labels = {id(tensor): label for label, tensor in self.others.items()}

    def notice(self, optimizer: Optimizer, own: Iterable[int] = ()) -> None:
        """Names the parameters that are not the model's and have no name yet.

        Args:
            optimizer: the optimizer.
            own: the ``id`` of each tensor of the model.
        """
        known = self._labels.keys() | set(own)
        for group in optimizer.param_groups:
            for p in group["params"]:
                if id(p) not in known and id(p) not in self._labels:
                    label = f"~{len(self.others)}"
                    self.others[label], self._labels[id(p)] = p, label

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_labels"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A copy has other tensors, and each has its own ``id``.
        self.__dict__.update(state, _labels={id(tensor): label for label, tensor in state["others"].items()})


def in_layout(layout: BuiltLayout, named: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a state by name in PyTorch's own format: all moments in the places that the optimizer was built with.

    An optimizer that is built in the same way takes it as it is, bound or not.

    Args:
        layout: of the optimizer.
        named: what `named_state.saved` returned.
        state: what PyTorch itself would save.
    """
    position: dict[str, int] = {}
    for name in (name for names in layout.names for name in names):
        position.setdefault(name, len(position))
    place = {name: number for number, names in enumerate(layout.names) for name in names}
    built = len(layout.names)
    groups = [
        {**options, "params": [position[name] for name in names], "param_names": list(names)}
        for options, names in zip(named["groups"], layout.names, strict=False)
    ]
    moments: dict[Any, Any] = {n: named["state"][name] for name, n in position.items() if name in named["state"]}
    moments |= {key: value for key, value in state["state"].items() if not isinstance(key, int)}
    beyond = {name: value for name, value in named["state"].items() if name not in position}
    moved = any(place.get(path, number) != number for path, number in named["group_of"].items())
    if beyond or moved or len(named["groups"]) > built:
        moments[EXTRA] = {
            "format": FORMAT,
            "version": VERSION,
            "groups": named["groups"][built:],
            "group_of": named["group_of"],
            "state": beyond,
        }
    return {**state, "state": moments, "param_groups": groups}


def by_name(
    expression: str,
    layout: BuiltLayout,
    optimizer: Optimizer,
    state: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    groups: Mapping[str, int],
) -> dict[str, Any]:
    """Returns the state by name that a state in PyTorch's own format means.

    Args:
        expression: the call, for errors.
        layout: of the optimizer.
        optimizer: the optimizer that is to take it.
        state: with ``state`` and ``param_groups``.
        tensors: the parameters of the model that the optimizer is for, and others that it has, by name.
        groups: the number of the group of each parameter of the model.

    Raises:
        BindError: it has no names, and its positions are not surely those of this optimizer.
    """
    moments, saved = dict(state["state"]), state["param_groups"]
    extra = moments.pop(EXTRA, {})
    names = _names(layout, saved)
    if names is None:
        _check_positions(expression, layout, saved, moments, tensors, groups)
        names = layout.names
    of_rules: Sequence[Mapping[str, Any]] = extra.get("groups", ())
    if names is layout.names and not extra:
        # It was never bound, so it does not know the groups of rules.
        of_rules = optimizer.param_groups[len(names) :]
    found = {name: moments[key] for key, name in _pairs(saved, names) if key in moments} | extra.get("state", {})
    places = {name: number for number, inside in enumerate(names) for name in inside if name not in layout.others}
    group_of = {**groups, **(places if names is not layout.names else {}), **extra.get("group_of", {})}
    is_plain = type(optimizer).__module__.startswith("torch.optim")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return {
        "format": FORMAT,
        "version": VERSION,
        "optimizer": type(optimizer).__name__,
        "groups": [{k: v for k, v in group.items() if k not in CONTENT} for group in (*saved, *of_rules)],
        "group_of": group_of,
        "shapes": shapes | {name: shape for name, each in found.items() if is_plain and (shape := _shape(each))},
        "state": found,
    }


def loaded_before(optimizer: Optimizer, layout: BuiltLayout, paths: Iterable[str]) -> dict[str, Any] | None:
    """Returns the state that an optimizer took before it was bound, if a bound optimizer saved it.

    PyTorch loads by position and carries the names along, so moments may stand at parameters with other names.
    """
    names = [name for group in layout.given_names for name in group]
    own = [name for inside in layout.names for name in inside]
    elsewhere = bool(names) and names != own and set(names) <= {*paths, *layout.others}
    if not elsewhere and EXTRA not in optimizer.state:
        return None
    # They are not names that the user gave.
    layout.given_names = []
    return by_position(optimizer)


def by_position(optimizer: Optimizer) -> dict[str, Any]:
    """Returns what PyTorch saves for an optimizer that is not bound: the parameters that are in it now."""
    ids: dict[int, int] = {}
    for p in (p for group in optimizer.param_groups for p in group["params"]):
        ids.setdefault(id(p), len(ids))
    state = {ids.get(id(key), key): value for key, value in optimizer.state.items()}
    groups = [{**group, "params": [ids[id(p)] for p in group["params"]]} for group in optimizer.param_groups]
    return {"state": state, "param_groups": groups}


def put_back(
    layout: BuiltLayout, optimizer: Optimizer, owned: Mapping[str, torch.Tensor], groups: Mapping[str, int]
) -> None:
    """Gives an optimizer all that it was built with again, in the order in which it was built, in place."""
    names = {id(tensor): name for name, tensor in {**owned, **layout.others}.items()}
    for number, group in enumerate(optimizer.param_groups):
        there = {id(p): p for p in group["params"]}
        given = dict(zip(there, group.get("param_names", ()), strict=False))
        built = layout.names[number] if number < len(layout.names) else ()
        back = {id(owned[path]): owned[path] for path in built if groups.get(path) == number}
        known = {names.get(key): p for key, p in {**there, **back}.items()}
        all_of_it = {id(known[name]): known[name] for name in built if name in known} | there
        group["params"][:] = all_of_it.values()
        if "param_names" in group:
            group["param_names"][:] = [given.get(key, names.get(key)) for key in all_of_it]


def asked_by_position() -> bool:
    """Says whether PyTorch's distributed checkpoints ask for a state.

    They look up the names of positions in the groups of the optimizer, so they need those of what is in it now.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_globals.get("__name__") == _DISTRIBUTED:
            return True
    return False


def _names(layout: BuiltLayout, saved: Sequence[Mapping[str, Any]]) -> Sequence[Sequence[str]] | None:
    if any(isinstance(key, str) for group in saved for key in group["params"]):
        return [group["params"] for group in saved]
    if not any("param_names" in group for group in saved):
        return None
    names = [list(group.get("param_names", ())) for group in saved]
    # Whatever the user called them, they are the same ones in the same order.
    return layout.names if names == layout.given_names else names


def _pairs(saved: Sequence[Mapping[str, Any]], names: Sequence[Sequence[str]]) -> list[tuple[Any, str]]:
    return [
        pair for group, inside in zip(saved, names, strict=False) for pair in zip(group["params"], inside, strict=False)
    ]


def _check_positions(
    expression: str,
    layout: BuiltLayout,
    saved: Sequence[Mapping[str, Any]],
    moments: Mapping[Any, Any],
    tensors: Mapping[str, torch.Tensor],
    groups: Mapping[str, int],
) -> None:
    sizes, built = [len(group["params"]) for group in saved], [len(names) for names in layout.names]
    left_out = sorted(groups.keys() - {name for names in layout.names for name in names})
    wrong = [
        f"{name}: saved {shape}, in the model {tuple(tensors[name].shape)}"
        for key, name in _pairs(saved, layout.names)
        if (shape := _shape(moments.get(key, {}))) and shape != tuple(tensors[name].shape)
    ]
    if sizes != built:
        problem = f"got a state without names: groups of {sizes} parameters for groups of {built}."
        raise BindError(expression, problem, (), _FIX)
    if moments and left_out:
        problem = (
            f"got a state without names, and the optimizer was built with {sum(built)} of {len(tensors)} parameters, "
            "so the moments may be of other ones. It was built without:"
        )
        raise BindError(expression, problem, tuple(left_out), _FIX)
    if wrong:
        problem = f"got a state without names, and moments of {len(wrong)} parameters of other shapes:"
        raise BindError(expression, problem, tuple(wrong), _FIX)


def _shape(moments: Any) -> tuple[int, ...]:
    """Returns the shape of the moments that have the shape of their parameter; nothing where there are none."""
    for key in _LIKE_THE_PARAMETER:
        if isinstance(moments, Mapping) and isinstance(moments.get(key), torch.Tensor):
            return tuple(moments[key].shape)
    return ()
