"""The model behind a checkpoint, guessed from its tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import final

from frostline._core.inventory import Inventory
from frostline._core.param import Module, Param
from frostline.checkpoint.stored import StoredTensor

# The dtypes of parameters. A dtype of 8 bits or less is quantised, and no parameter, like an integer.
_ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16}
# The buffers of PyTorch's normalisation layers.
_STATISTICS = {"running_mean", "running_var", "num_batches_tracked"}


@final
@dataclass(frozen=True)
class Guess:
    """A guess at the parameters of a file, which does not mark them.

    Attributes:
        inventory: the floating-point tensors, as parameters.
        buffers: the paths of all other tensors: integers, quantised tensors and statistics of normalisation layers.

    Example:
        >>> mean = StoredTensor("norm.running_mean", (3,), "float32", 12)
        >>> guess = Guess.of([StoredTensor("norm.weight", (3,), "float32", 12), mean])
        >>> sorted(guess.inventory.paths), guess.buffers
        (['norm.weight'], ('norm.running_mean',))
    """

    inventory: Inventory
    buffers: tuple[str, ...]

    @classmethod
    def of(cls, tensors: Iterable[StoredTensor]) -> Guess:
        """Returns the guess for these tensors."""
        tensors = list(tensors)
        buffers = [tensor for tensor in tensors if not _is_param(tensor)]
        params = _params(tensor for tensor in tensors if _is_param(tensor))
        inventory = Inventory(params, _modules(tensors, buffers, params))
        return cls(inventory, tuple(tensor.path for tensor in buffers))

    def held(self, frozen: frozenset[str]) -> frozenset[str]:
        """Returns the paths of the held modules, whose buffers do not change either."""
        params = self.inventory.params
        free = {path for param in params if param.path not in frozen for name in param.names for path in above(name)}
        whole = frozen.union(path for param in params for name in param.names for path in above(name)) - free
        modules = (module.path for module in self.inventory.modules)
        return frozenset(path for path in modules if path in whole or not whole.isdisjoint(above(path)))

    def held_buffers(self, frozen: frozenset[str]) -> frozenset[str]:
        """Returns the paths of the buffers in held modules."""
        held = self.held(frozen)
        return frozenset(path for path in self.buffers if above(path)[-1] in held)


def _is_param(tensor: StoredTensor) -> bool:
    return tensor.dtype in _ITEMSIZE and tensor.path.rpartition(".")[2] not in _STATISTICS


def _params(tensors: Iterable[StoredTensor]) -> tuple[Param, ...]:
    tied: dict[Hashable, list[StoredTensor]] = {}
    for tensor in tensors:
        tied.setdefault(tensor.path if tensor.storage is None else (tensor.storage,), []).append(tensor)
    return tuple(
        Param(first.path, first.shape, first.dtype, _ITEMSIZE[first.dtype], aliases=tuple(each.path for each in others))
        for first, *others in tied.values()
    )


def _modules(
    tensors: Iterable[StoredTensor], buffers: Iterable[StoredTensor], params: Iterable[Param]
) -> tuple[Module, ...]:
    own: Counter[str] = Counter()
    for buffer in buffers:
        own[above(buffer.path)[-1]] += buffer.nbytes
    learning = {path for param in params for name in param.names for path in above(name)}
    paths = dict.fromkeys(path for tensor in tensors for path in above(tensor.path))
    # A file does not contain the classes of the modules.
    return tuple(Module(path, object, own[path], path in own and path not in learning) for path in paths)


def above(path: str) -> list[str]:
    """Returns the paths of the modules around `path`, the root first."""
    keys = path.split(".")
    return [".".join(keys[:depth]) for depth in range(len(keys))]
