"""Which modules a model calls before it reaches one of them, and which tensors are theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from frostline._core.errors import LineError
from frostline.torch._line.inputs import Inputs
from frostline.torch._line.proof import untouched
from frostline.torch._tensors import tensors


class Reached(Exception):  # noqa: N818 - no error: it carries the output of a module out of a model
    """A module was called.

    Attributes:
        output: what it returned.
    """

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


@contextmanager
def stopping(module: nn.Module) -> Iterator[None]:
    """Ends the call of a model as soon as it has called a module.

    Raises:
        Reached: inside the context, with what the module returned.
    """

    def reached(module: nn.Module, args: Any, output: Any) -> None:
        raise Reached(output)

    handle = module.register_forward_hook(reached)
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True)
class CallsBefore:
    """What happens up to a module, and after it.

    Attributes:
        output: what the module returned.
        trained: the names of the trainable parameters that the output depends on.
        changing: the path of a module before it that is random or has a state, if there is one.
        skipped: the modules that are called before it, and not by another such module, by path.
        below: parameters and buffers of all that is called before, and of what contains the module.
        above: the others, and those that are used again.
        words: what is called below, a line each.
    """

    output: Any
    trained: list[str]
    changing: str | None
    skipped: Mapping[str, nn.Module]
    below: Mapping[str, torch.Tensor]
    above: Mapping[str, torch.Tensor]
    words: tuple[str, ...]


class _Recorder:
    """Notes the calls of a model's modules, and which of them draw random numbers."""

    def __init__(self, cut: nn.Module) -> None:
        self.cut = cut
        self.before: list[nn.Module] = []
        self.after: set[nn.Module] = set()
        self.random: nn.Module | None = None
        self.outputs: list[Any] = []
        self._random_state = torch.get_rng_state()

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.outputs:
            self.after.add(module)
        else:
            self.before.append(module)
            now = torch.get_rng_state()
            if self.random is None and not torch.equal(now, self._random_state):
                self.random = module
            self._random_state = now
        if module is self.cut:
            self.outputs.append(output)


def calls_before(model: nn.Module, inputs: Inputs, cut: nn.Module, path: str, expression: str) -> CallsBefore:
    """Calls the model with the example, and leaves it as it was.

    Raises:
        LineError: the module is not called just once.
    """
    recorder, paths = _Recorder(cut), {module: name for name, module in model.named_modules()}
    handles = [module.register_forward_hook(recorder) for module in paths]
    args, kwargs = inputs.example
    try:
        with untouched(model) as written, torch.random.fork_rng():
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    if len(recorder.outputs) != 1:
        problem = f"calls {path!r} {len(recorder.outputs)} times, and a line is drawn behind one call."
        fix = "Cut behind a module that is called once: frostline(model, *example, at=...)."
        raise LineError(expression, problem, (), fix)
    called = {paths[module]: module for module in recorder.before if module in paths}
    around = {"", *(path.rsplit(".", depth)[0] for depth in range(1, path.count(".") + 1))}
    below, above = {}, {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        owner = name.rpartition(".")[0]
        if owner in called or (owner in around and not tensor.requires_grad):
            below[name] = tensor
        if owner not in called or called[owner] in recorder.after:
            above[name] = tensor
    changing = [paths[recorder.random]] if recorder.random is not None else []
    changing += [owner for name in written if (owner := name.rpartition(".")[0]) in called]
    inside = {name for name in called for outer in called if name.startswith(f"{outer}.")}
    return CallsBefore(
        output=recorder.outputs[0],
        trained=_trained(model, recorder.outputs[0]),
        changing=changing[0] if changing else None,
        skipped={p: m for p, m in called.items() if p not in {path, *inside} and not path.startswith(f"{p}.")},
        below=below,
        above=above,
        words=tuple(f"{p} {type(m).__qualname__} {m.extra_repr()}" for p, m in called.items()),
    )


def _trained(model: nn.Module, output: Any) -> list[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    waiting = [tensor.grad_fn for tensor in tensors(output)]
    seen, found = set[Any](), list[str]()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            found.append(names.get(id(variable), "a tensor that is no parameter"))
        waiting += [following for following, _ in node.next_functions]
    return found
