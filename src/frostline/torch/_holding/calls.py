"""The call of a held module, which leaves nothing behind in the module."""

from __future__ import annotations

import functools
import types
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from frostline.torch._holding.backup import Call, Swap, called_on_copies, is_covered, owner_of
from frostline.torch._holding.classes import HOLD, Hold, Method
from frostline.torch._holding.known import is_stock_class, runs_forward_of_class
from frostline.torch._holding.writable import parts, renormalises, writable_in_a_trace

# Looked up once, because each call asks.
_peek_interpreter_stack = torch._C._functorch.peek_interpreter_stack
_len_torch_dispatch_stack = torch._C._len_torch_dispatch_stack


def needs_held_calls(module: nn.Module, mode: str) -> bool:
    """Whether calls of a frozen module may write something, now or in another mode."""
    if isinstance(module, nn.RNNBase) or renormalises(module):
        return True
    if mode == "follow" and module._buffers:
        return True
    if "parametrizations" in module._modules:  # what computes its weights may count, and more may be appended
        return True
    is_known = is_stock_class(type(module)) and runs_forward_of_class(module)  # type: ignore[arg-type]
    return not is_known and any(part._parameters or part._buffers for part in parts(module))


def held_call(
    module: nn.Module,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    swaps: Callable[[], Iterable[Swap]] | None = None,
) -> Any:
    """Returns ``function(module, *args, **kwargs)``, and leaves the module's tensors and modes as they were.

    What the call returns to be run later, a generator or a coroutine, runs in held calls too.

    Args:
        module: the module.
        function: the call of the module, or a method of it.
        args: the arguments.
        kwargs: the keyword arguments.
        swaps: returns what the call must find in place of tensors of the module, when its turn has come.
    """
    if is_traced():
        with called_on_copies(writable_in_a_trace(module)):
            return function(module, *args, **kwargs)
    if isinstance(module, nn.RNNBase) and not module.training and runs_on_cudnn(module) and torch.is_grad_enabled():
        with _differentiable(module):
            return function(module, *args, **kwargs)
    if swaps is None and is_covered(module):
        out = function(module, *args, **kwargs)
    else:
        out = _owned(Call(module, swaps), function, args, kwargs)
    resumed = _RESUMED.get(type(out))
    return out if resumed is None else resumed(module, out)


def _owned(call: Call, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        try:
            call.begin()
            out = function(call.module, *args, **kwargs)
            call.is_complete = True
        finally:
            call.end()
    finally:
        if not call.is_ended:  # an interrupt has come in the first
            call.end()
    call.raise_if_late()
    return out


def held_hooks(module: nn.Module, hooks: Iterable[Callable[..., Any]]) -> list[Callable[..., Any]]:
    """Returns hooks that run in backward, after the call has ended, as held calls of what owned that call."""
    if torch.compiler.is_compiling():
        return list(hooks)
    owner = owner_of(module)
    return [functools.partial(_run_hook, owner, hook) for hook in hooks]


def _run_hook(owner: nn.Module, hook: Callable[..., Any], *args: Any) -> Any:
    if is_traced() or is_covered(owner):
        return hook(*args)
    return _owned(Call(owner, in_backward=True), lambda _, *args: hook(*args), args, {})


def is_traced() -> bool:
    """Whether calls are compiled, transformed by ``torch.func``, or run on tensors without data."""
    return torch.compiler.is_compiling() or _peek_interpreter_stack() is not None or _len_torch_dispatch_stack() > 0


def _resume(module: nn.Module, step: Callable[..., Any], *values: Any) -> Any:
    return held_call(module, lambda _, *args: step(*args), values, {})


def _generator(module: nn.Module, generator: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    step, value = generator.send, None
    while True:
        try:
            item = _resume(module, step, value)
        except StopIteration as end:
            return end.value
        try:
            step, value = generator.send, (yield item)
        except GeneratorExit:
            _resume(module, generator.close)
            raise
        except BaseException as error:  # noqa: BLE001 - it is the generator's to handle
            step, value = generator.throw, error


class _Awaitable:
    def __init__(self, module: nn.Module, awaited: Any) -> None:
        self.module, self.awaited = module, awaited

    def __await__(self) -> Generator[Any, Any, Any]:
        return _generator(self.module, self.awaited)


async def _coroutine(module: nn.Module, coroutine: Coroutine[Any, Any, Any]) -> Any:
    return await _Awaitable(module, coroutine)


async def _async_generator(module: nn.Module, generator: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
    value = None
    while True:
        try:
            item = await _Awaitable(module, generator.asend(value))
        except StopAsyncIteration:
            return
        try:
            value = yield item
        except GeneratorExit:
            await _Awaitable(module, generator.aclose())
            raise


_RESUMED: dict[type, Callable[..., Any]] = {
    types.GeneratorType: _generator,
    types.CoroutineType: _coroutine,
    types.AsyncGeneratorType: _async_generator,
}


def held_methods(original: type[nn.Module]) -> dict[str, Any]:
    """Returns the methods by which modules of a class are called while they are held."""
    # The methods of the class are looked up in each call, because tracers and kernels of others replace them.

    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        hold: Hold | None = self.__dict__.get(HOLD)
        if hold is None:
            return original.__call__(self, *args, **kwargs)
        if hold.checkpoints and hold.wanted and self.gradient_checkpointing and torch.is_grad_enabled():
            return _checkpointed(self, original.__call__, args, kwargs)
        return held_call(self, original.__call__, args, kwargs)

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return held_forward(self, original.forward, args, kwargs)

    def backward_hooks(self: nn.Module) -> tuple[list[Any], list[Any]]:
        full, others = original._get_backward_hooks(self)
        return (held_hooks(self, full), held_hooks(self, others)) if HOLD in self.__dict__ else (full, others)

    def backward_pre_hooks(self: nn.Module) -> list[Any]:
        hooks = original._get_backward_pre_hooks(self)
        return held_hooks(self, hooks) if HOLD in self.__dict__ else hooks

    held_forward, plain_forward = _held_forward, original.forward
    if isinstance(plain_forward, types.FunctionType):
        # TorchScript looks names up in the globals of the function, whose source is the original's.
        forward = types.FunctionType(forward.__code__, plain_forward.__globals__, closure=forward.__closure__)
    functools.update_wrapper(forward, plain_forward)

    def bound(module: nn.Module) -> Any:
        earlier = module.__dict__.get("forward")
        if torch.compiler.is_compiling():
            return functools.partial(original.forward, module) if earlier is None else earlier
        return types.MethodType(forward, module) if earlier is None else HeldForward(module, earlier)

    return {
        "__call__": call,
        "forward": Method("forward", bound, original),
        "_get_backward_hooks": backward_hooks,
        "_get_backward_pre_hooks": backward_pre_hooks,
    }


class HeldForward:
    """A forward that somebody has set on the instance of a held module, called as a held call."""

    def __init__(self, module: nn.Module, earlier: Callable[..., Any]) -> None:
        self.module, self.__wrapped__ = module, earlier

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _held_forward(self.module, lambda _, *args, **kwargs: self.__wrapped__(*args, **kwargs), args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)


def _held_forward(
    module: nn.Module, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    hold: Hold | None = module.__dict__.get(HOLD)
    if hold is None:
        return function(module, *args, **kwargs)
    if not (hold.checkpoints and module.training):
        return held_call(module, function, args, kwargs)
    module.training = False
    try:
        return held_call(module, function, args, kwargs)
    finally:
        module.training = True


def checkpoints_activations(module: nn.Module) -> bool:
    """Whether the module has the flag by which libraries compute activations again, and no module below it has."""
    if not _has_flag(module):
        return False
    return not any(_has_flag(inner) for inner in parts(module) if inner is not module)


def _has_flag(module: nn.Module) -> bool:
    name = "gradient_checkpointing"
    if type(module).__getattr__ is nn.Module.__getattr__:  # where it finds nothing, it makes a whole exception
        return name in module.__dict__ or hasattr(type(module), name)
    return hasattr(module, name)


def _checkpointed(module: Any, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a module whose activations are computed again during backward.

    Libraries do so in training mode alone, and a held module is in evaluation mode. Where the class
    does it around the call, it goes on doing it: the module is in training mode up to its forward.
    """
    if function is not nn.Module.__call__:
        module.training = True
        try:
            return held_call(module, function, args, kwargs)
        finally:
            module.training = False
    return run_again_in_backward(module, functools.partial(held_call, module, function), args, kwargs)


def run_again_in_backward(
    module: nn.Module, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Returns ``call(args, kwargs)``, which keeps nothing but its arguments; with the module's own function, if any."""
    run = getattr(module, "_gradient_checkpointing_func", functools.partial(checkpoint, use_reentrant=False))

    def again(*args: Any, **kwargs: Any) -> Any:
        return call(args, kwargs)

    return run(functools.partial(again, **kwargs), *args)


def runs_on_cudnn(module: nn.Module) -> bool:
    """Whether the module is a recurrent layer whose weights lie where cuDNN would run it."""
    return (
        isinstance(module, nn.RNNBase)
        and torch.backends.cudnn.enabled
        and any(p.is_cuda for p in module.parameters(recurse=False))
    )


@contextmanager
def _differentiable(module: nn.RNNBase) -> Iterator[None]:
    """Makes cuDNN differentiate a recurrent layer that is in evaluation mode.

    cuDNN keeps what its backward needs in training mode only. The modes of a recurrent layer differ
    in nothing but dropout, so training mode without dropout computes the same.

    Source: https://github.com/pytorch/pytorch/issues/8582
    """
    training, dropout = module.training, module.dropout
    module.training, module.dropout = True, 0.0
    try:
        yield
    finally:
        module.training, module.dropout = training, dropout
