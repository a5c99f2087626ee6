"""A whole run in a folder: the model, its optimizers, the driver, and what else is JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from frostline._core import document
from frostline._core.errors import BindError, DeltaError, RunError
from frostline._core.plan import Plan
from frostline.checkpoint.replacement import replacing
from frostline.torch._freezing.freezing import follow, plan_of
from frostline.torch._freezing.survey import survey
from frostline.torch._training.binding import LIVE, Binding
from frostline.torch._training.delta_state import read, written
from frostline.torch._training.driver import Driver
from frostline.torch._training.run_data import folder_after, read_tensors, remove_others, sizes_in, write_tensors
from frostline.torch._training.seen_through import chain_of
from frostline.torch._wrappers import refuse_pieces, unwrapped

KIND = "run"
_FILE = "run.json"
_FIELDS = ("data", "plan", "optimizers", "driver", "more")
_AGAIN = "Save the run with the same model and optimizers: save_run(folder, model=model, driver=driver)."
Bound = Binding | Optimizer


def save_run(
    folder: str | os.PathLike[str],
    *,
    model: nn.Module,
    optimizer: Bound | Sequence[Bound] | None = None,
    driver: Driver | None = None,
    **more: Any,
) -> None:
    """Saves a whole run into a folder, in one process or in many; every rank must call it.

    A crash at any moment leaves the run that was there before, or the new one. Tensors are written by
    ``torch.distributed.checkpoint``, so another number of ranks can load them. All else is JSON.

    Args:
        folder: is made if it is not there.
        model: the model.
        optimizer: bound optimizers, or what `bind` returned; without it, those of the driver.
        driver: the driver.
        more: anything that is JSON, such as ``epoch=3``.

    Raises:
        RunError: an optimizer is not bound; or something in the state of one, or in `more`, is not JSON.
        UnsupportedError: the model is in pieces, in a ``FullyShardedDataParallel``.

    Example:
        >>> import tempfile
        >>> from frostline.schedules import LinearProbe
        >>> def made():
        ...     model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        ...     optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        ...     return model, Driver(LinearProbe(["[1]"], steps=2), model, optimizer)
        >>> (model, driver), (other, resumed) = made(), made()
        >>> for _ in range(3):
        ...     driver.step()
        >>> folder = tempfile.mkdtemp()
        >>> save_run(folder, model=model, driver=driver, epoch=1)
        >>> load_run(folder, model=other, driver=resumed)
        {'epoch': 1}
        >>> resumed.steps, torch.equal(model[0].weight, other[0].weight)
        (3, True)
    """
    expression = f"save_run({str(folder)!r}, ...)"
    refuse_pieces(expression, model)
    root, bindings = unwrapped(model), _bindings("save_run", optimizer, driver)
    tensors, texts = _weights(expression, root), []
    for number, binding in enumerate(bindings):
        try:
            text, moments = written(binding.state_dict())
        except DeltaError as error:
            raise RunError(expression, error.problem, error.found, "Save the run without it.") from error
        texts.append(text)
        tensors |= {f"{number}/{name}": tensor for name, tensor in moments.items()}
    place = Path(folder)
    fields = {
        "plan": plan_of(survey(root)).to_dict(),
        "optimizers": texts,
        "driver": None if driver is None else driver.state_dict(),
        "more": more,
    }
    try:
        document.write(KIND, fields)
    except (TypeError, ValueError) as error:
        raise RunError(expression, f"got something that is not JSON: {error}.", (), "Save plain values.") from error
    data = folder_after(place)
    write_tensors(place / data, tensors)
    if not dist.is_initialized() or dist.get_rank() == 0:
        with replacing(place / _FILE) as stream:
            stream.write(document.write(KIND, {"data": data, **fields}).encode())
        remove_others(place, data)
    if dist.is_initialized():
        dist.barrier()


def load_run(
    folder: str | os.PathLike[str],
    *,
    model: nn.Module,
    optimizer: Bound | Sequence[Bound] | None = None,
    driver: Driver | None = None,
) -> dict[str, Any]:
    """Goes on where `save_run` saved, in place; every rank must call it.

    The model is frozen as it was then. A driver may have a longer or an edited schedule, if the steps that were taken
    had the same phases.

    Args:
        folder: of `save_run`.
        model: the model.
        optimizer: bound optimizers, or what `bind` returned; without it, those of the driver.
        driver: the driver.

    Returns:
        What was saved as `more`.

    Raises:
        RunError: the folder holds no run, or one of another model, of other optimizers, or without a driver. Nothing
            is changed then.
        ScheduleError, PlanMismatchError: as in ``driver.load_state_dict``. Nothing is changed then.
    """
    expression = f"load_run({str(folder)!r}, ...)"
    refuse_pieces(expression, model)
    root, bindings = unwrapped(model), _bindings("load_run", optimizer, driver)
    place = Path(folder)
    said = _said(expression, place)
    if driver is not None and said["driver"] is None:
        raise RunError(expression, "holds no driver.", (), "Load it without: load_run(folder, model=model).")
    if len(said["optimizers"]) != len(bindings):
        problem = f"holds {len(said['optimizers'])} optimizers for {len(bindings)}."
        raise RunError(expression, problem, (), _AGAIN)
    weights = _weights(expression, root)
    sizes = sizes_in(place / said["data"])
    _check_weights(expression, weights, sizes)
    like = {name: torch.empty_like(tensor) for name, tensor in weights.items()}
    for number, binding in enumerate(bindings):
        prefix = f"{number}/"
        owned = binding.check_bound(expression)
        for name, (shape, dtype) in sizes.items():
            if name.startswith(prefix):
                parameter = owned.get(name.removeprefix(prefix).removeprefix("@optimizer/").rpartition("/")[0])
                if parameter is not None and tuple(parameter.shape) == shape:
                    # A moment is sharded as its parameter is.
                    like[name] = torch.empty_like(parameter, dtype=dtype, requires_grad=False)
                else:
                    like[name] = torch.empty(shape, dtype=dtype)
    read_tensors(place / said["data"], like)
    states = []
    for number, (binding, text) in enumerate(zip(bindings, said["optimizers"], strict=True)):
        prefix = f"{number}/"
        moments = {name.removeprefix(prefix): tensor for name, tensor in like.items() if name.startswith(prefix)}
        try:
            states.append(binding.check_fits(expression, read(text, moments)))
        except BindError as error:
            raise RunError(expression, error.problem, error.found, _AGAIN) from error
        except ValueError as error:
            raise RunError(expression, f"holds a state that cannot be used: {error}.", (), _AGAIN) from error
    if driver is not None:
        driver.load_state_dict(said["driver"])
    else:
        follow(model, Plan.from_dict(said["plan"]), constants=True)
    with torch.no_grad():
        for name, tensor in weights.items():
            tensor.copy_(like[name])
    for binding, state in zip(bindings, states, strict=True):
        binding.load_state_dict(state)
    return dict(said["more"])


def _bindings(verb: str, optimizer: Bound | Sequence[Bound] | None, driver: Driver | None) -> tuple[Binding, ...]:
    if optimizer is None:
        return () if driver is None else driver.bindings
    given = tuple(optimizer) if isinstance(optimizer, Sequence) else (optimizer,)
    found = []
    for each in given:
        inner = None if isinstance(each, Binding) else chain_of(each)[-1]
        bound = each if isinstance(each, Binding) else next((live for live in LIVE if live.optimizer is inner), None)
        if bound is None:
            problem = f"got {type(each).__name__}, which is not bound to the model."
            fix = f"Bind it first: binding = bind(optimizer, model); {verb}(folder, ..., optimizer=binding)."
            raise RunError(f"{verb}(folder, ..., optimizer=...)", problem, (), fix)
        found.append(bound)
    return tuple(found)


def _weights(expression: str, model: nn.Module) -> dict[str, Any]:
    state = model.state_dict()
    if others := [name for name, value in state.items() if not isinstance(value, torch.Tensor)]:
        problem = f"finds {len(others)} of {len(state)} values in the state of the model that are not tensors:"
        raise RunError(expression, problem, tuple(others), "Save such a model by torch.save(model.state_dict(), file).")
    return {f"model/{name}": value for name, value in state.items()}


def _said(expression: str, place: Path) -> dict[str, Any]:
    try:
        found = document.fields(document.parse((place / _FILE).read_text(encoding="utf-8")), KIND, _FIELDS)
    except FileNotFoundError as error:
        fix = "Save one first: save_run(folder, model=model, driver=driver)."
        raise RunError(expression, f"finds no {_FILE} in the folder.", (), fix) from error
    except ValueError as error:
        raise RunError(expression, f"cannot read {_FILE}: {error}.", (), _AGAIN) from error
    return found


def _check_weights(expression: str, here: Mapping[str, Any], sizes: Mapping[str, tuple[Any, Any]]) -> None:
    saved = {name for name in sizes if name.startswith("model/")}
    missing, unknown = sorted(here.keys() - saved), sorted(saved - here.keys())
    if missing or unknown:
        names = [f"missing: {name.removeprefix('model/')}" for name in missing[:3]]
        names += [f"unknown: {name.removeprefix('model/')}" for name in unknown[:2]]
        problem = f"holds another model: {len(missing)} tensors missing, {len(unknown)} unknown."
        raise RunError(expression, problem, tuple(names), _AGAIN)
    wrong = [
        f"{name.removeprefix('model/')}: saved {sizes[name][0]}, in the model {tuple(tensor.shape)}"
        for name, tensor in here.items()
        if sizes[name][0] != tuple(tensor.shape)
    ]
    if wrong:
        raise RunError(expression, f"holds {len(wrong)} tensors of other shapes:", tuple(wrong), _AGAIN)
