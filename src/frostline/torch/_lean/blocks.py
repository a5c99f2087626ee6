"""The frozen blocks that a memory budget may checkpoint, with the bytes that each frees and its operations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from frostline.torch._autograd.flops import forward_flops
from frostline.torch._autograd.integers import run
from frostline.torch._autograd.workspace import with_workspace
from frostline.torch._lean.folded import is_watched
from frostline.torch._tensors import storages

ENOUGH = 0.8
"""The share of the bytes of a block that the blocks inside it must free to replace it.

Smaller blocks need less memory at once while backward repeats them. But each part of a layer keeps its own input, and
the whole layer keeps only one.
"""


@final
@dataclass(eq=False)
class StorageRecord:
    """A storage, as long as it is alive.

    Attributes:
        storage: a weak reference, which keeps the identity of the storage unique.
        nbytes: its size.
        inside: the modules whose calls were running when it was made.
        written: the number of operations run when it was last written to; 0 if never.
    """

    storage: StorageWeakRef
    nbytes: int
    inside: frozenset[nn.Module]
    written: int = 0

    @property
    def is_kept(self) -> bool:
        """Whether it is still alive."""
        return not self.storage.expired()


@final
@dataclass(eq=False)
class CallRecord:
    """The calls of one module.

    Attributes:
        inputs: the storages of the arguments, each with the number of operations that had run.
        outputs: the storages of the results.
        flops: operations of the forward pass.
        is_random: whether it drew random numbers.
        has_graph: whether an argument requires a gradient.
    """

    inputs: list[tuple[StorageRecord, int]] = field(default_factory=list)
    outputs: set[StorageRecord] = field(default_factory=set)
    flops: int = 0
    is_random: bool = False
    has_graph: bool = False


@final
class BlockRecorder(TorchDispatchMode):
    """Records each storage that an operation makes, and the modules in whose calls it was made.

    Args:
        given: tensors that the fake run may write to: those of the copy and of the arguments.
    """

    def __init__(self, given: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.storages: dict[int, StorageRecord] = {}
        self.calls: dict[nn.Module, CallRecord] = defaultdict(CallRecord)
        self.running: list[nn.Module] = []
        self.operations = 0
        self.graph: list[Any] = []
        self._given = {storage._cdata for tensor in given for storage in storages(tensor)}

    def __torch_dispatch__(self, kernel: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation, and records the storages that it made and wrote to."""
        kwargs = kwargs or {}
        out = with_workspace(kernel, args, run(kernel, args, kwargs, self._knows))
        self.operations += 1
        made = out if isinstance(out, list | tuple) else (out,)
        for returned, value in zip(kernel._schema.returns, made, strict=False):
            if isinstance(value, torch.Tensor) and returned.alias_info is None:
                self.add(value)
        for argument, value in zip(kernel._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for record in self.found(value):
                    record.written = self.operations
        flops = forward_flops(kernel, args, out)
        is_random = torch.Tag.nondeterministic_seeded in kernel.tags and _drops(kernel, args, kwargs)
        for module in self.running:
            self.calls[module].flops += flops
            self.calls[module].is_random |= is_random
        return out

    def add(self, tensor: torch.Tensor) -> None:
        """Records the storages of a tensor, if they are new."""
        for storage in storages(tensor):
            if storage._cdata not in self.storages:
                record = StorageRecord(StorageWeakRef(storage), storage.nbytes(), frozenset(self.running))
                self.storages[storage._cdata] = record

    def found(self, values: Any) -> list[StorageRecord]:
        """The recorded storages of the tensors in arguments or results."""
        tensors = [each for each in pytree.tree_leaves(values) if isinstance(each, torch.Tensor)]
        keys = [storage._cdata for tensor in tensors for storage in storages(tensor)]
        return [self.storages[key] for key in keys if key in self.storages]

    @property
    def nbytes(self) -> int:
        """The bytes that are alive now."""
        return sum(record.nbytes for record in self.storages.values() if record.is_kept)

    def follow(self, copied: nn.Module, module: nn.Module) -> list[RemovableHandle]:
        """Records the calls of a module of the fake copy as those of the module itself."""

        def enter(_: nn.Module, args: Any, kwargs: Any) -> None:
            self.running.append(module)
            call = self.calls[module]
            call.inputs += [(record, self.operations) for record in self.found((args, kwargs))]
            leaves = pytree.tree_leaves((args, kwargs))
            call.has_graph |= any(isinstance(leaf, torch.Tensor) and leaf.requires_grad for leaf in leaves)

        def leave(_: nn.Module, __: Any, output: Any) -> None:
            self.running.remove(module)
            self.calls[module].outputs.update(self.found(output))

        return [
            copied.register_forward_pre_hook(enter, prepend=True, with_kwargs=True),
            copied.register_forward_hook(leave),
        ]

    def _knows(self, tensor: torch.Tensor) -> bool:
        return all(storage._cdata in self._given or storage._cdata in self.storages for storage in storages(tensor))


def _drops(kernel: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operation that may draw random numbers does so: attention does not without dropout."""
    for position, argument in enumerate(kernel._schema.arguments):
        if argument.name == "dropout_p":
            value = args[position] if position < len(args) else kwargs.get("dropout_p", argument.default_value)
            return bool(value)
    return True


@final
@dataclass(frozen=True, eq=False)
class CheckpointBlock:
    """A frozen module that may be checkpointed.

    Attributes:
        module: the module.
        freed: the bytes that checkpointing it frees.
        flops: the operations that backward would repeat.
        is_random: whether it draws random numbers.
    """

    module: nn.Module
    freed: int
    flops: int
    is_random: bool


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """The modules with parameters, all of them frozen, and without hooks of the user."""
    return [module for module in model.modules() if _is_frozen(module) and not _has_watched(module)]


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)


def _has_watched(module: nn.Module) -> bool:
    # A hook inside the block would run again in backward; a hook on the block itself would not.
    return any(is_watched(inner) for inner in module.modules() if inner is not module)


def blocks(model: nn.Module, record: BlockRecorder) -> tuple[list[CheckpointBlock], list[CheckpointBlock]]:
    """The blocks of a model, none inside another, with the fewest operations for each freed byte first.

    Returns:
        The blocks to take first, and the largest blocks, for a budget that the first cannot meet.
    """
    of = {module: block for module in record.calls if (block := _block(module, record)) is not None}
    small, large = (_outermost(found) for found in (_smallest(model, of), _largest(model, of)))
    return sorted(small, key=_price), sorted(large, key=_price)


def _outermost(found: list[CheckpointBlock]) -> list[CheckpointBlock]:
    """Leaves out blocks inside another one; a module may have several places."""
    inside = {inner for block in found for inner in block.module.modules() if inner is not block.module}
    return [block for block in found if block.module not in inside]


def _price(block: CheckpointBlock) -> float:
    return block.flops / block.freed


def _block(module: nn.Module, record: BlockRecorder) -> CheckpointBlock | None:
    calls = record.calls[module]
    if not calls.has_graph or any(storage.written > begun for storage, begun in calls.inputs):
        return None
    inside = {each for each in record.storages.values() if module in each.inside and each.is_kept} - calls.outputs
    kept = {storage for storage, _ in calls.inputs if not storage.is_kept}
    freed = sum(each.nbytes for each in inside) - sum(each.nbytes for each in kept)
    return CheckpointBlock(module, freed, calls.flops, calls.is_random) if freed > 0 else None


def _smallest(module: nn.Module, of: dict[nn.Module, CheckpointBlock]) -> list[CheckpointBlock]:
    inner = _once(block for child in module.children() for block in _smallest(child, of))
    own = of.get(module)
    if own is None or sum(block.freed for block in inner) >= ENOUGH * own.freed:
        return inner
    return [own]


def _largest(module: nn.Module, of: dict[nn.Module, CheckpointBlock]) -> list[CheckpointBlock]:
    if module in of:
        return [of[module]]
    return _once(block for child in module.children() for block in _largest(child, of))


def _once(found: Iterable[CheckpointBlock]) -> list[CheckpointBlock]:
    return list(dict.fromkeys(found))
