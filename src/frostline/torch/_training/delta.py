"""Delta checkpoints, which hold what trains and nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import nn

from frostline._core.errors import BindError, DeltaError
from frostline._core.plan import Plan
from frostline.checkpoint import delta as checkpoint
from frostline.checkpoint.delta import TensorSource
from frostline.checkpoint.delta_file import DeltaFile
from frostline.checkpoint.stored import StoredTensor
from frostline.torch._freezing.division import Division, divided, named_tensors
from frostline.torch._freezing.freezing import follow, plan_of
from frostline.torch._freezing.survey import survey
from frostline.torch._tensors import bytes_of, dtype_name
from frostline.torch._training import delta_state as _delta_state
from frostline.torch._training.binding import Binding
from frostline.torch._training.delta_tensors import (
    base_of,
    check_plain,
    check_values,
    fingerprint_of,
    is_writable,
    moving,
    nbytes,
    tensor_of,
)
from frostline.torch._training.together import (
    all_or_none,
    in_shards,
    is_shared,
    is_writer,
    kept_by_writer,
    moments_in_shards,
)


@final
@dataclass(frozen=True)
class Delta:
    """The content of a delta beside the tensors; :func:`load_delta` returns it.

    Attributes:
        plan: what was frozen when it was saved, and is now.
        schedule: the ``schedule=`` of `save_delta`.
        names: the tensors of the model that were loaded.
    """

    plan: Plan
    schedule: Any
    names: tuple[str, ...]


def save_delta(
    file: str | os.PathLike[str], model: nn.Module, *, optimizer: Binding | None = None, schedule: object = None
) -> None:
    """Saves what trains, and a fingerprint of all else: a checkpoint as small as what was learned.

    The file is a safetensors file. It holds the trainable parameters by name, a tied one once; the buffers of modules
    that are not held; and the plan. Of each other tensor it holds a digest, so that it is not loaded onto another base.
    Buffers that a state dict leaves out are left out here, too. It is written beside the old file, synced and renamed:
    a crash at any instant leaves the old file or the new one. The same state gives the same bytes.

    A model in shards (FSDP2, tensor parallel) is saved whole: every rank must call it, and rank 0 writes the file,
    which loads in any number of processes. Rank 0 has all that trains in main memory for that; `save_run` writes
    shards.

    The base is the model as it is now: if a schedule freezes what was trained before, save that part by other means,
    too.

    Args:
        file: where to save; a file that is there is replaced.
        model: the model, as it is frozen.
        optimizer: the binding, which `bind` returned, whose optimizer is saved with it, by name.
        schedule: the state of the schedule, or anything else that is JSON.

    Raises:
        DeltaError: the file cannot be written, or the model has tensors without values or a name that a file cannot
            hold.
        UnsupportedError: a tensor has no data in this process.
        RankError: another rank could not save its part, or write the file.

    Source:
        https://github.com/huggingface/safetensors (the format)

    Example:
        >>> import os, tempfile
        >>> file = os.path.join(tempfile.mkdtemp(), "run.safetensors")
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> handle = freeze(model, "0")
        >>> save_delta(file, model, schedule={"step": 7})
        >>> delta = load_delta(file, model)
        >>> delta.names, delta.schedule
        (('1.bias', '1.weight'), {'step': 7})
    """
    expression = f"save_delta({os.fspath(file)!r}, model)"
    read = survey(model)
    plan = plan_of(read)
    parts = divided(read, plan)
    text: object = None
    tensors = moving(read, parts)
    if optimizer is not None:
        _check_binding("save_delta", optimizer)
        text, moments = _delta_state.written(optimizer.state_dict())
        tensors |= moments
    check_values(expression, tensors)
    check_plain(expression, tensors)
    aliases = {param.path: list(param.aliases) for param in read.inventory.params}
    for name, path in parts.trained_elsewhere.items():
        aliases.setdefault(path, []).extend([name, *aliases.pop(name, [])])
    base = base_of(read, parts)
    together = is_shared([*tensors.values(), *base.values()])
    # Rank 0 has all tensors before it writes, so that no other rank waits for a disk.
    tensors = {path: kept_by_writer(tensor) if together else tensor for path, tensor in tensors.items()}
    content = checkpoint.DeltaContents(
        plan=plan,
        base=fingerprint_of(expression, base),
        tensors={
            path: TensorSource(dtype_name(tensor.dtype), tuple(tensor.shape), nbytes(tensor), partial(bytes_of, tensor))
            for path, tensor in tensors.items()
        },
        aliases={path: tuple(others) for path, others in aliases.items()},
        schedule=schedule,
        optimizer=text,
    )

    def write() -> None:
        if not together or is_writer():
            checkpoint.save(expression, file, content)

    all_or_none(expression, write, together=together)


def load_delta(
    file: str | os.PathLike[str], model: nn.Module, *, optimizer: Binding | None = None, any_base: bool = False
) -> Delta:
    """Loads a delta into the model that it was saved from, or into a new one.

    Values are written in place, bitwise as they were saved. The model is frozen as it was then. Everything is read and
    checked first: after an error model and optimizer are as before.

    Args:
        file: a file that `save_delta` wrote, here or in JAX.
        model: the model, on the base that it was trained on.
        optimizer: a binding, which `bind` returned; it takes over the state that was saved.
        any_base: whether to load onto another base than the one it was trained on.

    Returns:
        The rest of the file: the plan, the state of the schedule, and the names of the tensors that were loaded.

    Raises:
        DeltaError: it does not fit the model: another base, other names, shapes or dtypes, another optimizer.
        FileFormatError: it is not a delta, or a damaged one.
        PinnedError: it trains a parameter that a frozen use holds here.
        WrappedError: the model would have to be frozen differently, inside a wrapper that would ignore it.

    Example:
        >>> import os, tempfile
        >>> file = os.path.join(tempfile.mkdtemp(), "run.safetensors")
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> handle = freeze(model, "0")
        >>> save_delta(file, model)
        >>> other = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> load_delta(file, other)
        Traceback (most recent call last):
            ...
        frostline.errors.DeltaError: ...holds a delta that was made on another base: 2 of 2 frozen tensors differ, ...
        >>> other[0].load_state_dict(model[0].state_dict())
        <All keys matched successfully>
        >>> delta = load_delta(file, other)
        >>> torch.equal(other[1].weight, model[1].weight), sorted(trainable(other))
        (True, ['1.bias', '1.weight'])
    """
    expression = f"load_delta({os.fspath(file)!r}, model)"
    if optimizer is not None:
        _check_binding("load_delta", optimizer)
    read = survey(model)
    together = is_shared(tensor for tensor, _ in named_tensors(read).values())

    def opened() -> tuple[DeltaFile, Plan, Division, dict[str, torch.Tensor]]:
        delta = DeltaFile(file)
        plan = delta.plan_for(expression, read.inventory.paths, read.buffers.keys())
        parts = divided(read, plan)
        targets = moving(read, parts)
        check_values(expression, targets)
        check_plain(expression, targets)
        if fixed := tuple(path for path, tensor in targets.items() if not is_writable(tensor)):
            problem = (
                f"cannot write {len(fixed)} of {len(targets)} tensors in place; they are expanded, or of inference:"
            )
            raise DeltaError(expression, problem, fixed, "Make them plain tensors first: tensor.clone().")
        described = {
            path: StoredTensor(path, tuple(tensor.shape), dtype_name(tensor.dtype), nbytes(tensor))
            for path, tensor in targets.items()
        }
        delta.check_tensors(expression, described, delta.own)
        return delta, plan, parts, targets

    delta, plan, parts, targets = all_or_none(expression, opened, together=together)
    if not any_base:
        delta.check_base(
            expression,
            fingerprint_of(expression, base_of(read, parts)),
            "Load first the weights that it was trained on, or leave the base as it is: "
            "load_delta(file, model, any_base=True).",
        )

    def contents_and_state() -> tuple[dict[str, bytearray], dict[str, Any] | None]:
        contents = delta.contents([*targets, *(delta.of_optimizer if optimizer is not None else ())])
        return contents, None if optimizer is None else _state(expression, delta, contents, optimizer)

    contents, state = all_or_none(expression, contents_and_state, together=together)
    # Nothing has changed so far, and nothing can fail from here on but `follow`, which refuses before it changes.
    if plan_of(read) != plan:
        follow(model, plan, constants=True)
    with torch.no_grad():
        for path, tensor in targets.items():
            tensor.copy_(in_shards(tensor_of(contents[path], tensor.dtype, tensor.shape), tensor))
    if optimizer is not None and state is not None:
        optimizer.load_state_dict(state)
    return Delta(plan, delta.said.schedule, tuple(sorted(targets)))


def _check_binding(verb: str, optimizer: object) -> None:
    if not isinstance(optimizer, Binding):
        kind = type(optimizer).__name__
        raise DeltaError(
            f"{verb}(file, model, optimizer={kind})",
            "takes what bind(optimizer, model) returns: it knows the parameters by name.",
            (),
            f"Bind it first: binding = bind(optimizer, model); {verb}(file, model, optimizer=binding).",
        )


def _state(expression: str, delta: DeltaFile, contents: Mapping[str, bytearray], optimizer: Binding) -> dict[str, Any]:
    """Returns the state for an optimizer, once it is known to fit."""
    if delta.said.optimizer is None:
        fix = "Load without it, load_delta(file, model), or save it: save_delta(file, model, optimizer=binding)."
        raise DeltaError(expression, "holds no state of an optimizer.", (), fix)
    try:
        tensors = {path: _moment(tensor, contents[path]) for path, tensor in delta.of_optimizer.items()}
        state = _delta_state.read(delta.said.optimizer, tensors)
        state["state"] = moments_in_shards(state["state"], optimizer.check_bound(expression))
        optimizer.check_fits("binding.load_state_dict(state)", state)
    except BindError as error:
        problem = f"holds the state of another optimizer: this one {error.problem}"
        fix = "Bind the same optimizer with the same rules, or load without it: load_delta(file, model)."
        raise DeltaError(expression, problem, error.found, fix) from error
    except ValueError as error:
        problem, fix = f"holds a state that cannot be used: {error}.", "Load without it: load_delta(file, model)."
        raise DeltaError(expression, problem, (), fix) from error
    return state


def _moment(stored: StoredTensor, data: bytearray) -> torch.Tensor:
    dtype = getattr(torch, stored.dtype, None)
    try:
        if isinstance(dtype, torch.dtype) and stored.nbytes == stored.size * dtype.itemsize:
            return tensor_of(data, dtype, stored.shape)
    except (OverflowError, RuntimeError, TypeError):
        pass  # A dtype without plain tensors, or a shape that no tensor has.
    raise ValueError(f"{stored.path!a} is of the unknown dtype {stored.dtype!a}")
