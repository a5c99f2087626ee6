"""One trace of a model: a graph of what it computes for one batch size, in the mode that it is in."""

from __future__ import annotations

import operator
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from frostline._core.errors import UntraceableError
from frostline.torch._line import refusals
from frostline.torch._line.in_place import taken_out, writes


@dataclass(frozen=True)
class Trace:
    """What ``torch.export`` saw.

    Attributes:
        graph: inputs, parameters and buffers (``get_attr``) and operators; nothing in it works in place, but on
            buffers of the model.
        tensors: the target of each ``get_attr`` -> what is there: the model's own objects, constants of the trace,
            and parts that have a graph of their own.
        result: how the outputs of the graph make up what the model returns.
        rewritten: the names of functions with a backward of their own: the graph has what their forward does.
    """

    graph: fx.Graph
    tensors: Mapping[str, Any]
    result: pytree.TreeSpec
    rewritten: frozenset[str] = frozenset()


def trace(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], expression: str) -> Trace:
    """Traces a model in its present mode; nothing is computed, and nothing in the model moves.

    Args:
        model: the model.
        args: its positional arguments; of tensors only shape, dtype and device count.
        kwargs: its arguments by name.
        expression: what the user wrote, for the error.

    Raises:
        UntraceableError: ``torch.export`` cannot follow what the model does.
    """
    with _quiet(), _same_attributes(model), _functions() as rewritten:
        try:
            program = torch.export.export(model, args, dict(kwargs), strict=False)
            module = _opened(program)
            if not taken_out(module.graph):
                module = _opened(program.run_decompositions({}))
        except Exception as error:
            if found := re.match(r"Found <class '[\w.]*?(\w+)'> in output", str(error)):
                raise refusals.unknown_output(expression, found[1]) from error
            raise UntraceableError(expression, refusals.said(error)) from error
    for node in module.graph.find_nodes(op="call_function", target=torch.ops.aten.view.default):
        # A kernel may lay its result out otherwise than its trace did; where a view is possible this is one.
        node.target = torch.ops.aten.reshape.default
    module.graph.eliminate_dead_code(_is_effect)
    return Trace(module.graph, dict(_targets(module)), program.call_spec.out_spec, frozenset(rewritten))


def _opened(program: Any) -> fx.GraphModule:
    module = program.module()
    for node in list(module.graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":  # it would refuse other values of numbers
            module.graph.erase_node(node)
    return module


def _targets(module: fx.GraphModule) -> Iterator[tuple[str, Any]]:
    for node in module.graph.nodes:
        if node.op == "get_attr":
            yield node.target, operator.attrgetter(node.target)(module)


def _is_effect(node: fx.Node) -> bool:
    return node.op in ("placeholder", "output") or bool(writes(node))


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _same_attributes(model: nn.Module) -> Iterator[None]:
    """Caches that a model keeps in plain attributes would hold tensors of the trace afterwards."""
    held: list[Any] = [vars(module) for module in model.modules()]
    held += [inner for attributes in held for inner in attributes.values() if isinstance(inner, dict | list)]
    before = [(each, each.copy()) for each in held]
    try:
        yield
    finally:
        for each, content in before:
            _refill(each, content)


def _refill(held: Any, content: Any) -> None:
    same = len(held) == len(content) and all(map(operator.is_, *map(_items, (held, content))))
    if not same:
        held.clear()
        held.update(content) if isinstance(held, dict) else held.extend(content)


def _items(held: Any) -> Any:
    return held.values() if isinstance(held, dict) else held


@contextmanager
def _functions() -> Iterator[set[str]]:
    """The names of the functions with a backward of their own that run meanwhile."""
    apply = torch.autograd.Function.__dict__["apply"]
    met: set[str] = set()

    def noted(cls: type, *args: Any, **kwargs: Any) -> Any:
        met.add(cls.__name__)
        return apply.__get__(None, cls)(*args, **kwargs)

    torch.autograd.Function.apply = classmethod(noted)  # type: ignore[assignment, method-assign]
    try:
        yield met
    finally:
        torch.autograd.Function.apply = apply  # type: ignore[method-assign]
