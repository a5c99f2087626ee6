"""A call of a model with fake tensors: what its graph would keep, and nothing is computed."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from frostline._core.errors import UnsupportedError
from frostline.torch._autograd.flops import forward_flops
from frostline.torch._autograd.workspace import with_workspace
from frostline.torch._tensors import storages

REFUSALS = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)
"""What fake tensors raise where only real ones will do."""


@final
@dataclass(eq=False)
class Piece:
    """A storage, as long as somebody holds it.

    Attributes:
        storage: does not keep it alive, but keeps its identity its own.
        nbytes: how large it is.
        inside: the modules whose calls were running when it was made.
        written: how many operations had run when it was last written to; 0 is never.
    """

    storage: StorageWeakRef
    nbytes: int
    inside: frozenset[nn.Module]
    written: int = 0

    @property
    def is_kept(self) -> bool:
        """Whether it is still held."""
        return not self.storage.expired()


@final
@dataclass(eq=False)
class Taken:
    """What one module was called with and what came of it.

    Attributes:
        inputs: the storages of its arguments, each with how many operations had run by then.
        outputs: the storages of what it returned.
        flops: floating-point operations of its forward.
        is_random: whether it drew random numbers.
        has_graph: whether one of its arguments requires a gradient.
    """

    inputs: list[tuple[Piece, int]] = field(default_factory=list)
    outputs: set[Piece] = field(default_factory=set)
    flops: int = 0
    is_random: bool = False
    has_graph: bool = False


@final
class Recorder(TorchDispatchMode):
    """Notes each storage that an operation makes, and in the call of which modules."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: dict[int, Piece] = {}
        self.taken: dict[nn.Module, Taken] = defaultdict(Taken)
        self.running: list[nn.Module] = []
        self.operations = 0
        self.graph: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation and notes what it made and wrote to."""
        out = with_workspace(func, args, func(*args, **(kwargs or {})))
        self.operations += 1
        made = out if isinstance(out, list | tuple) else (out,)
        for returned, value in zip(func._schema.returns, made, strict=False):
            if isinstance(value, torch.Tensor) and returned.alias_info is None:
                self.note(value)
        self._note_writes(func, args)
        self._note_cost(func, args, kwargs or {}, out)
        return out

    def note(self, tensor: torch.Tensor) -> None:
        """Notes the storages of a tensor, if they are new."""
        for storage in storages(tensor):
            if storage._cdata not in self.pieces:
                piece = Piece(StorageWeakRef(storage), storage.nbytes(), frozenset(self.running))
                self.pieces[storage._cdata] = piece

    def found(self, values: Any) -> list[Piece]:
        """The pieces behind the tensors in arguments or outputs."""
        tensors = [v for v in pytree.tree_leaves(values) if isinstance(v, torch.Tensor)]
        keys = [storage._cdata for tensor in tensors for storage in storages(tensor)]
        return [self.pieces[key] for key in keys if key in self.pieces]

    @property
    def nbytes(self) -> int:
        """The bytes that are held now."""
        return sum(piece.nbytes for piece in self.pieces.values() if piece.is_kept)

    def _note_writes(self, func: Any, args: Any) -> None:
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for piece in self.found(value):
                    piece.written = self.operations

    def _note_cost(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        flops = forward_flops(func, args, out)
        is_random = torch.Tag.nondeterministic_seeded in func.tags and _drops(func, args, kwargs)
        for module in self.running:
            self.taken[module].flops += flops
            self.taken[module].is_random |= is_random


def _drops(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operation that may draw random numbers does: attention does not without dropout."""
    for position, argument in enumerate(func._schema.arguments):
        if argument.name == "dropout_p":
            value = args[position] if position < len(args) else kwargs.get("dropout_p", argument.default_value)
            return bool(value)
    return True


@final
class Watch:
    """Hooks on one module that tell a recorder when a call of it runs."""

    def __init__(self, recorder: Recorder, module: nn.Module) -> None:
        self.recorder = recorder
        self.handles = [
            module.register_forward_pre_hook(self.enter, prepend=True, with_kwargs=True),
            module.register_forward_hook(self.leave),
        ]

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """A call begins."""
        recorder, taken = self.recorder, self.recorder.taken[module]
        recorder.running.append(module)
        taken.inputs += [(piece, recorder.operations) for piece in recorder.found((args, kwargs))]
        leaves = pytree.tree_leaves((args, kwargs))
        taken.has_graph |= any(isinstance(leaf, torch.Tensor) and leaf.requires_grad for leaf in leaves)

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """A call has ended."""
        self.recorder.running.remove(module)
        self.recorder.taken[module].outputs.update(self.recorder.found(output))


def rehearse(
    model: nn.Module,
    call: Callable[..., Any],
    args: Any,
    kwargs: Any,
    watched: Iterable[nn.Module] = (),
) -> Recorder:
    """Runs a call with fake tensors in place of its arguments, and looks at what its graph holds afterwards.

    No kernel runs, no memory is taken, and the model is afterwards as it was.

    Args:
        model: what is called.
        call: its forward.
        args: of the call.
        kwargs: of the call.
        watched: modules of the model of whose calls is noted what they take.

    Raises:
        UnsupportedError: the model asks for the value of a tensor, which a fake one lacks.
    """
    try:
        return _rehearsed(model, call, args, kwargs, watched)
    except REFUSALS as error:
        raise UnsupportedError(
            "lean(model, memory_budget=...)",
            f"cannot rehearse a call of {type(model).__name__}, which asks a tensor without data for its values: "
            f"{error}.",
            "Leave memory_budget out, and checkpoint blocks by hand: checkpoint(block, x, use_reentrant=False).",
        ) from error


def _rehearsed(
    model: nn.Module, call: Callable[..., Any], args: Any, kwargs: Any, watched: Iterable[nn.Module]
) -> Recorder:
    recorder = Recorder()
    fake = _mode_of(model, args, kwargs)
    with _disable_current_modes(), _restored(model), torch.random.fork_rng(_devices()), _unhooked(), _uncached(), fake:
        watches = [Watch(recorder, module) for module in watched]
        try:
            with recorder:
                output = call(*_faked(fake, recorder, args), **_faked(fake, recorder, kwargs))
        finally:
            for handle in (handle for watch in watches for handle in watch.handles):
                handle.remove()
        # The graph is held, and not what came out of it.
        recorder.graph = [t.grad_fn for t in pytree.tree_leaves(output) if isinstance(t, torch.Tensor)]
    return recorder


def _devices() -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []


def _mode_of(model: nn.Module, args: Any, kwargs: Any) -> FakeTensorMode:
    """That of the tensors, where they are fake already: it does not mix with another one."""
    tensors = (*pytree.tree_leaves((args, kwargs)), *model.parameters(), *model.buffers())
    modes = (tensor.fake_mode for tensor in tensors if isinstance(tensor, FakeTensor))
    return next(modes, None) or FakeTensorMode(allow_non_fake_inputs=True)


def _faked(fake: FakeTensorMode, recorder: Recorder, values: Any) -> Any:
    def one(tensor: torch.Tensor) -> torch.Tensor:
        plain = tensor.detach()
        made = torch.empty_like(plain) if isinstance(tensor, FakeTensor) else fake.from_tensor(plain)
        made.requires_grad_(tensor.requires_grad)
        recorder.note(made)
        return made

    return pytree.tree_map_only(torch.Tensor, one, values)


@contextmanager
def _unhooked() -> Iterator[None]:
    """Without the hooks of an outer context on what is saved: a checkpoint counts what goes through its own."""
    hooks = []
    while (top := torch._C._autograd._top_saved_tensors_default_hooks(True)) is not None:
        hooks.append(top)
        torch._C._autograd._pop_saved_tensors_default_hooks()
    try:
        yield
    finally:
        for pack, unpack in reversed(hooks):
            torch._C._autograd._push_saved_tensors_default_hooks(pack, unpack)


@contextmanager
def _uncached() -> Iterator[None]:
    """Without the casts that autocast keeps: real ones before, fake ones afterwards."""
    torch.clear_autocast_cache()
    try:
        yield
    finally:
        torch.clear_autocast_cache()


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Modules get their attributes back: a forward may keep what it computes, and it would be fake here."""
    before = [(module, dict(vars(module)), _containers(module)) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes, containers in before:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            for container, content in containers:
                _refill(container, content)


def _containers(module: nn.Module) -> list[tuple[Any, Any]]:
    return [(value, copy.copy(value)) for value in vars(module).values() if isinstance(value, dict | list | set)]


def _refill(container: Any, content: Any) -> None:
    container.clear()
    if isinstance(container, list):
        container.extend(content)
    else:
        container.update(content)
