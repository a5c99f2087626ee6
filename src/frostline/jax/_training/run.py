"""A whole run in a folder: the parameters, what is frozen, the optimizer's state, the driver, and what else is JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
from jax.tree_util import tree_unflatten

from frostline._core import document
from frostline._core.errors import BindError, FrostlineError, RunError
from frostline._core.errors.base import counted
from frostline._core.plan import Plan
from frostline.checkpoint.replacement import replacing
from frostline.jax._arrays import ARRAYS
from frostline.jax._freezing.freezing import follow
from frostline.jax._freezing.marked import is_marked
from frostline.jax._freezing.survey import Survey, survey
from frostline.jax._training.cohorts import OptimizerState
from frostline.jax._training.driver import Driver
from frostline.jax._training.optimizer import Optimizer
from frostline.jax._training.run_data import folder_after, orbax, read_arrays, remove_others, sizes_of, write_arrays

KIND = "jax_run"
_FILE = "run.json"
_FIELDS = ("data", "arrays", "values", "plan", "marks", "optimizer", "driver", "more")
_AGAIN = "Save the run with the same parameters and optimizer: save_run(folder, params=params, ...)."


@final
class LoadedRun(NamedTuple):
    """What `load_run` returns.

    Attributes:
        params: the parameters.
        state: the state of the optimizer; None without one.
        plan: what was frozen.
        more: what was saved beside them.
    """

    params: Any
    state: OptimizerState | None
    plan: Plan
    more: dict[str, Any]


def save_run(
    folder: str | os.PathLike[str],
    *,
    params: Any,
    optimizer: Optimizer | None = None,
    state: OptimizerState | None = None,
    driver: Driver | None = None,
    **more: Any,
) -> None:
    """Saves a whole run into a folder, in one process or in many; every process must call it. Needs Orbax.

    A crash at any moment leaves the run that was there before, or the new one. Arrays are written by Orbax under their
    names, each shard by the process that has it, so another mesh or another number of processes can load them. All else
    is JSON.

    Args:
        folder: is made if it is not there.
        params: the parameters, or a model; with or without marks.
        optimizer: the result of :func:`optimizer`, whatever its plan is.
        state: its state.
        driver: the driver.
        more: anything that is JSON, such as ``epoch=3``.

    Raises:
        RunError: a state comes without its optimizer, or the reverse; or something in `more` is not JSON.
        UnsupportedError: Orbax is not installed; or `tx` keeps one array for all parameters.
        BindError, StructureError: the state is not of this optimizer, or is of other parameters.

    Example:
        >>> import tempfile
        >>> from frostline.schedules import LinearProbe
        >>> params, tx = {"body": jnp.ones(2), "head": jnp.ones(2)}, optimizer(optax.adam(0.1))
        >>> driver = Driver(LinearProbe(["head"], steps=2))
        >>> params = driver.start(params)
        >>> state, folder = tx.init(params), tempfile.mkdtemp()
        >>> params = driver.step(params)
        >>> save_run(folder, params=params, optimizer=tx, state=state, driver=driver, epoch=1)
        >>> resumed = Driver(LinearProbe(["head"], steps=2))
        >>> run = load_run(folder, params={"body": jnp.zeros(2), "head": jnp.zeros(2)}, optimizer=tx, driver=resumed)
        >>> resumed.steps, sorted(trainable(run.params)), run.params["body"].tolist(), run.more
        (1, ['head'], [1.0, 1.0], {'epoch': 1})
    """
    expression = f"save_run({str(folder)!r}, ...)"
    ocp = orbax(expression)
    if (optimizer is None) != (state is None):
        given, lacking = ("state", "optimizer") if optimizer is None else ("optimizer", "state")
        fix = "Pass both: save_run(folder, params=params, optimizer=tx, state=state)."
        raise RunError(expression, f"got {given}=, but no {lacking}=.", (), fix)
    read, place = survey(params), Path(folder)
    arrays, values = _content(read)
    if optimizer is not None and state is not None:
        found = optimizer.beside(None).save(state, params)
        arrays |= {f"optimizer/{name}": array for name, array in found.items()}
    plan = read.plan if state is None else state.plan
    fields = {
        "arrays": {name: [list(shape), dtype] for name, (shape, dtype) in sizes_of(arrays).items()},
        "values": values,
        "plan": (plan if driver is None else driver.plan).to_dict(),
        "marks": _has_marks(params),
        "optimizer": optimizer is not None,
        "driver": None if driver is None else driver.state_dict(),
        "more": more,
    }
    try:
        document.write(KIND, fields)
    except (TypeError, ValueError) as error:
        raise RunError(expression, f"got something that is not JSON: {error}.", (), "Save plain values.") from error
    data = folder_after(place)
    write_arrays(place / data, arrays, ocp)
    if jax.process_index() == 0:
        with replacing(place / _FILE) as stream:
            stream.write(document.write(KIND, {"data": data, **fields}).encode())
        remove_others(place, data)
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import sync_global_devices

        sync_global_devices(expression)


def load_run(
    folder: str | os.PathLike[str], *, params: Any, optimizer: Optimizer | None = None, driver: Driver | None = None
) -> LoadedRun:
    """Goes on where `save_run` saved; every process must call it.

    A driver may have a longer or an edited schedule, if the steps that were taken had the same phases.

    Args:
        folder: of `save_run`.
        params: parameters with the same names and shapes, whatever is frozen in them. Their arrays say where the loaded
            ones go: each is sharded as that in whose place it comes, and moments as their parameters.
        optimizer: the result of :func:`optimizer` for the same transformation, whatever its plan is.
        driver: the driver.

    Returns:
        ``LoadedRun(params, state, plan, more)``. The tree has marks if the saved one had; with a driver, as this one
        returns trees. Beside a tree without marks, the plan says what is frozen: ``optimizer(tx, frozen=run.plan)``.

    Raises:
        RunError: the folder holds no run, or one of other parameters, of another optimizer, or without a driver.
        ScheduleError, PlanMismatchError: as in ``driver.load_state_dict``. The driver is not changed then.
        UnsupportedError: Orbax is not installed.
    """
    expression = f"load_run({str(folder)!r}, ...)"
    ocp, place = orbax(expression), Path(folder)
    said = _said(expression, place)
    _check_parts(expression, said, optimizer, driver)
    read = survey(params)
    here, values = _content(read)
    sizes = {name: (tuple(shape), dtype) for name, (shape, dtype) in said["arrays"].items()}
    _check_params(expression, {**sizes_of(here), **values}, {**sizes, **said["values"]})
    wanted = {name: size for name, size in sizes.items() if optimizer is not None or not _is_moment(name)}
    found = read_arrays(place / said["data"], _like(here, wanted), wanted, ocp)
    leaves = list(read.leaves)
    for slot in read.layout.slots:
        name = f"model/{slot.name}"
        if name in found:
            # A number becomes an array on its way through compiled code.
            leaves[slot.leaf] = found[name] if name in here else jnp.asarray(found[name])
        elif name in said["values"]:
            leaves[slot.leaf] = said["values"][name]
    tree: Any = tree_unflatten(read.structure, leaves)
    plan = Plan.from_dict(said["plan"])
    marked = follow(tree, plan)
    state = None
    if optimizer is not None:
        named = {name.removeprefix("optimizer/"): array for name, array in found.items() if _is_moment(name)}
        try:
            state = optimizer.beside(None).load(named, marked)
        except BindError as error:
            raise RunError(expression, error.problem, error.found, _AGAIN) from error
    if driver is not None:
        return LoadedRun(driver.load_state_dict(said["driver"], tree), state, driver.plan, said["more"])
    return LoadedRun(marked if said["marks"] else tree, state, plan, said["more"])


def _content(read: Survey) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of a tree by name, and its plain values; functions and other objects belong to the program."""
    arrays: dict[str, Any] = {}
    values: dict[str, Any] = {}
    seen: set[int] = set()
    for slot in read.layout.slots:
        leaf = read.leaves[slot.leaf]
        if slot.leaf in seen:
            continue
        seen.add(slot.leaf)
        if isinstance(leaf, (*ARRAYS, jax.ShapeDtypeStruct)) or hasattr(leaf, "dtype"):
            arrays[f"model/{slot.name}"] = leaf
        elif isinstance(leaf, bool | int | float | str):
            values[f"model/{slot.name}"] = leaf
    return arrays, values


def _like(here: Mapping[str, Any], sizes: Mapping[str, tuple[tuple[int, ...], str]]) -> dict[str, Any]:
    """For each array of the model, and each moment of its shape, the array beside which it comes."""
    found = dict(here)
    for name, (shape, dtype) in sizes.items():
        # The name of a moment is that of its parameter, and its own after a slash.
        param = here.get(f"model/{name.removeprefix('optimizer/').rpartition('/')[0]}") if _is_moment(name) else None
        if param is not None and shape and tuple(param.shape) == shape and isinstance(param, jax.Array):
            found[name] = jax.ShapeDtypeStruct(shape, dtype, sharding=param.sharding if param.committed else None)
    return found


def _is_moment(name: str) -> bool:
    return name.startswith("optimizer/")


def _has_marks(tree: Any) -> bool:
    return any(map(is_marked, jax.tree.leaves(tree, is_leaf=is_marked)))


def _said(expression: str, place: Path) -> dict[str, Any]:
    try:
        return document.fields(document.parse((place / _FILE).read_text(encoding="utf-8")), KIND, _FIELDS)
    except FileNotFoundError as error:
        fix = "Save one first: save_run(folder, params=params, driver=driver)."
        raise RunError(expression, f"finds no {_FILE} in the folder.", (), fix) from error
    except (ValueError, FrostlineError) as error:
        raise RunError(expression, f"cannot read {_FILE}: {error}.", (), _AGAIN) from error


def _check_parts(expression: str, said: Mapping[str, Any], optimizer: object, driver: object) -> None:
    for name, given, saved in (("optimizer", optimizer, said["optimizer"]), ("driver", driver, said["driver"])):
        if given is not None and not saved:
            raise RunError(expression, f"holds no {name}.", (), "Load it without: load_run(folder, params=params).")


def _check_params(expression: str, here: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    saved = {name: size for name, size in saved.items() if not _is_moment(name)}
    missing, unknown = sorted(here.keys() - saved.keys()), sorted(saved.keys() - here.keys())
    if missing or unknown:
        names = [f"missing: {name.removeprefix('model/')}" for name in missing[:3]]
        names += [f"unknown: {name.removeprefix('model/')}" for name in unknown[:2]]
        problem = f"holds another model: {counted(len(missing), 'leaf', 'leaves')} missing, {len(unknown)} unknown."
        raise RunError(expression, problem, tuple(names), _AGAIN)
    wrong = [
        f"{name.removeprefix('model/')}: saved {saved[name][1]} {saved[name][0]}, here {size[1]} {size[0]}"
        for name, size in here.items()
        if isinstance(size, tuple) and isinstance(saved[name], tuple) and saved[name] != size
    ]
    if wrong:
        problem = f"holds {counted(len(wrong), 'array')} of another shape or dtype:"
        raise RunError(expression, problem, tuple(wrong), _AGAIN)
