"""Which modules a model calls before it reaches one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from frostline.torch._line import refusals
from frostline.torch._line.inputs import Inputs
from frostline.torch._line.proof import same_bits, untouched
from frostline.torch._line.tree import trained


class Reached(Exception):  # noqa: N818 - no error: it carries what was looked for out of a model
    """A module was called.

    Attributes:
        output: what it returned.
    """

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


@dataclass(frozen=True)
class Calls:
    """What happens up to a module, and after it.

    Attributes:
        skipped: the modules that are called before it and by nothing that is, by path.
        below: parameters and buffers of all that is called before, and of what contains the module.
        above: the others, and those that are used again.
        words: what is called below, a line each.
    """

    skipped: Mapping[str, nn.Module]
    below: Mapping[str, torch.Tensor]
    above: Mapping[str, torch.Tensor]
    words: tuple[str, ...]


@contextmanager
def stopping(module: nn.Module) -> Iterator[None]:
    """Meanwhile a call of a module ends what called it.

    Raises:
        Reached: inside of the context, with what the module returned.
    """

    def reached(module: nn.Module, args: Any, output: Any) -> None:
        raise Reached(output)

    handle = module.register_forward_hook(reached)
    try:
        yield
    finally:
        handle.remove()


class _Recorder:
    """Notes the calls of a model's modules, and which of them draw random numbers."""

    def __init__(self, model: nn.Module, cut: nn.Module) -> None:
        self.cut = cut
        self.paths = {module: path for path, module in model.named_modules()}
        self.before: list[nn.Module] = []
        self.after: set[nn.Module] = set()
        self.random: nn.Module | None = None
        self.arrivals, self.output = 0, None
        self._chance = torch.get_rng_state()

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.arrivals:
            self.after.add(module)
        else:
            self.before.append(module)
            self._look_for_chance(module)
        if module is self.cut:
            self.arrivals += 1
            self.output = output if self.output is None else self.output

    def _look_for_chance(self, module: nn.Module) -> None:
        now = torch.get_rng_state()
        if self.random is None and not torch.equal(now, self._chance):
            self.random = module
        self._chance = now


def calls_of(model: nn.Module, inputs: Inputs, cut: nn.Module, path: str, expression: str) -> Calls:
    """Calls the model once, and leaves it as it was.

    Raises:
        LineError: the module is not called just once, or what comes before it trains, is random or has a state.
    """
    recorder = _Recorder(model, cut)
    handles = [module.register_forward_hook(recorder) for module in recorder.paths]
    args, kwargs = inputs.example
    state = [(name, buffer, buffer.detach().clone()) for name, buffer in model.named_buffers()]
    try:
        with untouched(model), torch.random.fork_rng():
            model(*args, **kwargs)
            written = [name for name, buffer, before in state if not same_bits(buffer, before)]
    finally:
        for handle in handles:
            handle.remove()
    if recorder.arrivals != 1:
        raise refusals.not_once(expression, path, recorder.arrivals)
    called = {recorder.paths[module]: module for module in recorder.before if module in recorder.paths}
    calls = _calls(model, recorder, called, path)
    moved = trained(model).intersection(calls.below)
    refusals.refuse_trained(expression, path, sorted({*_trained(model, recorder.output), *moved}))
    moving = [recorder.paths[recorder.random]] if recorder.random is not None else []
    moving += [name.rpartition(".")[0] for name in written if name.rpartition(".")[0] in called]
    if moving:
        raise refusals.moving(model, expression, moving[0])
    return calls


def _calls(model: nn.Module, recorder: _Recorder, called: dict[str, nn.Module], path: str) -> Calls:
    around = {
        path.rpartition(".")[0] if depth == 0 else path.rsplit(".", depth + 1)[0] for depth in range(path.count("."))
    }
    held = dict(model.named_parameters()) | dict(model.named_buffers())
    below, above = {}, {}
    for name, tensor in held.items():
        owner = name.rpartition(".")[0]
        if owner in called or ((owner in around or not owner) and not tensor.requires_grad):
            below[name] = tensor
        if owner not in called or called[owner] in recorder.after:
            above[name] = tensor
    skipped = {p: m for p, m in called.items() if p != path and not _inside(p, called) and not path.startswith(f"{p}.")}
    words = tuple(f"{p} {type(m).__qualname__} {m.extra_repr()}" for p, m in called.items())
    return Calls(skipped, below, above, words)


def _inside(path: str, called: Mapping[str, nn.Module]) -> bool:
    names = path.split(".")
    return any(".".join(names[:depth]) in called for depth in range(1, len(names)))


def _trained(model: nn.Module, output: Any) -> list[str]:
    """The names of the trainable parameters that an output depends on."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    waiting = [t.grad_fn for t in torch.utils._pytree.tree_leaves(output) if isinstance(t, torch.Tensor)]
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
