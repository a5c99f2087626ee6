"""The state of an optimizer in a delta: arrays by name, and which of them are random keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from frostline._core import document
from frostline._core.errors import BindError, DeltaError, FrostlineError
from frostline.checkpoint.delta import OPTIMIZER, TensorSource
from frostline.checkpoint.delta_file import DeltaFile
from frostline.jax._arrays import described
from frostline.jax._training.cohorts import OptimizerState
from frostline.jax._training.optimizer import Optimizer
from frostline.jax._training.stored import free, is_key, source

_KIND = "optax"


def written_state(
    optimizer: Optimizer | None, state: OptimizerState | None, tree: Any
) -> tuple[object, dict[str, TensorSource]]:
    """The state as JSON, and its arrays.

    Raises:
        DeltaError: there is an optimizer or a state, but not both, or it was not made by ``optimizer(tx)``.
    """
    if optimizer is None and state is None:
        return None, {}
    _check_optimizer("save_delta", "optimizer={}, state=state", optimizer)
    assert optimizer is not None, "it is an optimizer"
    if state is None:
        problem = "got an optimizer, but no state."
        fix = "Pass both: save_delta(file, tree, optimizer=tx, state=state)."
        raise DeltaError("save_delta(file, tree, optimizer=tx)", problem, (), fix)
    arrays = {f"{OPTIMIZER}{name}": array for name, array in optimizer.save(state, tree).items()}
    keys = {name: str(jax.random.key_impl(array)) for name, array in arrays.items() if is_key(array)}
    return document.stamped(_KIND, {"keys": keys}), {name: source(array) for name, array in arrays.items()}


def read_state(
    expression: str, delta: DeltaFile, contents: Mapping[str, bytearray], optimizer: Optimizer, tree: Any
) -> OptimizerState:
    """The state in a delta, for a tree.

    Raises:
        DeltaError: there is none, or it is of another optimizer.
    """
    _check_optimizer("load_delta", "optimizer={}", optimizer)
    if delta.said.optimizer is None:
        fix = "Load without it, load_delta(file, tree), or save it: save_delta(file, tree, optimizer=tx, state=state)."
        raise DeltaError(expression, "holds no optimizer state.", (), fix)
    try:
        return optimizer.load(dict(_arrays(delta, contents)), tree)
    except BindError as error:
        problem = f"holds the state of another optimizer: this one {error.problem}"
        fix = "Make the optimizer that was saved, or load without it: load_delta(file, tree)."
        raise DeltaError(expression, problem, error.found, fix) from error
    except FrostlineError:
        raise
    except (TypeError, ValueError) as error:
        problem, fix = f"holds a state that cannot be used: {error}.", "Load without it: load_delta(file, tree)."
        raise DeltaError(expression, problem, (), fix) from error


def _arrays(delta: DeltaFile, contents: Mapping[str, bytearray]) -> list[tuple[str, Any]]:
    keys = document.fields(delta.said.optimizer, _KIND, ("keys",))["keys"]
    if not isinstance(keys, dict) or not keys.keys() <= delta.of_optimizer.keys():
        raise ValueError("it has no list of its random keys")
    weak = frozenset(delta.said.weak)
    found = {n: free(each, contents[n], weak=n in weak) for n, each in delta.of_optimizer.items()}
    found |= {name: jax.random.wrap_key_data(found[name], impl=impl) for name, impl in keys.items()}
    return [(name.removeprefix(OPTIMIZER), array) for name, array in found.items()]


def _check_optimizer(verb: str, arguments: str, optimizer: object) -> None:
    if not isinstance(optimizer, Optimizer):
        raise DeltaError(
            f"{verb}(file, tree, {arguments.format('tx')})",
            f"takes the result of optimizer(tx), but got {described(optimizer)}, which knows no names.",
            (),
            "Wrap it, and make the state with the wrapped one: tx = optimizer(tx); state = tx.init(tree).",
        )
