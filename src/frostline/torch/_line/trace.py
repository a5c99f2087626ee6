"""One trace of a model: the graph of its operations for one batch size, in its current mode."""

from __future__ import annotations

import operator
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from frostline._core.errors import LineError, UntraceableError
from frostline._core.errors.base import first_line
from frostline.torch._tensors import storage_identity, storages


@dataclass(frozen=True)
class ModelTrace:
    """The result of ``torch.export``.

    Attributes:
        graph: inputs, parameters and buffers (``get_attr``) and operators; the only in-place operators are those that
            write into buffers of the model.
        tensors: the target of each ``get_attr`` -> its value: the model's own objects, constants of the trace,
            and parts that have a graph of their own.
        result: the structure of the model's output, made of the outputs of the graph.
        rewritten: the names of functions with a user-defined backward; the graph has the operators of their forward.
    """

    graph: fx.Graph
    tensors: Mapping[str, Any]
    result: pytree.TreeSpec
    rewritten: frozenset[str] = frozenset()


def trace(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], expression: str) -> ModelTrace:
    """Traces a call of a model in its current mode, without computing and without changing the model.

    Only the shape, dtype and device of a tensor among the arguments matter.

    Raises:
        LineError: the model returns an object in which ``torch.export`` finds no tensors.
        UntraceableError: ``torch.export`` cannot follow the model.
    """
    with warnings.catch_warnings(), _same_attributes(model), _functions() as rewritten:
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(model, args, dict(kwargs), strict=False)
            module = _without_guards(program)
            if not _without_in_place(module.graph):
                module = _without_guards(program.run_decompositions({}))
        except Exception as error:
            if found := re.match(r"Found <class '[\w.]*?(\w+)'> in output", str(error)):
                problem = f"cannot be drawn: the model returns a {found[1]}, in which a trace finds no tensors."
                fix = "If it is a cache of keys and values, switch it off: model.config.use_cache = False."
                raise LineError(expression, problem, (), fix) from error
            raise UntraceableError(expression, first_line(error)) from error
    graph = module.graph
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.view.default):
        # A kernel may choose another memory layout than the trace has; `reshape` is a view where one is possible.
        node.target = torch.ops.aten.reshape.default
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output") or bool(written_by(node)))
    targets = {node.target: operator.attrgetter(node.target)(module) for node in graph.nodes if node.op == "get_attr"}
    return ModelTrace(graph, targets, program.call_spec.out_spec, frozenset(rewritten))


def _without_guards(program: Any) -> fx.GraphModule:
    module = program.module()
    for node in list(module.graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":  # it would refuse other numbers
            module.graph.erase_node(node)
    return module


@contextmanager
def _same_attributes(model: nn.Module) -> Iterator[None]:
    """Restores plain attributes, because a model may have cached tensors of the trace there."""
    held: list[Any] = [vars(module) for module in model.modules()]
    held += [inner for attributes in held for inner in attributes.values() if isinstance(inner, dict | list)]
    before = [(each, each.copy()) for each in held]
    try:
        yield
    finally:
        for each, content in before:
            now, then = (some.values() if isinstance(some, dict) else some for some in (each, content))
            if len(now) == len(then) and all(map(operator.is_, now, then)):
                continue
            each.clear()
            each.update(content) if isinstance(each, dict) else each.extend(content)


@contextmanager
def _functions() -> Iterator[set[str]]:
    """Collects the names of the functions with a user-defined backward that run in this context."""
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


def written_by(node: fx.Node) -> list[fx.Node]:
    """Returns the arguments that an operator writes to."""
    if not isinstance(node.target, torch._ops.OpOverload) or not node.target._schema.is_mutable:
        return []
    arguments = node.target._schema.arguments
    named: dict[str, Any] = {argument.name: value for argument, value in zip(arguments, node.args, strict=False)}
    named.update(node.kwargs)
    written = [named.get(a.name) for a in arguments if a.alias_info is not None and a.alias_info.is_write]
    return [leaf for leaf in pytree.tree_leaves(written) if isinstance(leaf, fx.Node)]


def storage_of(node: fx.Node) -> tuple[int, ...]:
    """Returns the storages of a value, which it shares with its views; none if it is not a tensor."""
    value = node.meta.get("val")
    return tuple(map(storage_identity, storages(value))) if isinstance(value, torch.Tensor) else ()


def _without_in_place(graph: fx.Graph) -> bool:
    """Replaces in-place operators by operators that return a new value, and returns whether that is possible.

    Operators that write into a buffer of the model stay.
    """
    order = {node: place for place, node in enumerate(graph.nodes)}
    sharing: dict[tuple[int, ...], list[fx.Node]] = defaultdict(list)
    for node in graph.nodes:
        sharing[storage_of(node)].append(node)
    for node in list(graph.nodes):
        for target in written_by(node):
            if target.op == "get_attr":
                continue
            now, functional = order[node], _functional(node, target)
            # A view of the target, or its base, that is read after the write would miss the write.
            earlier = (other for other in sharing[storage_of(target)] if order[other] < now and other is not target)
            if functional is None or any(order[user] > now for other in earlier for user in other.users):
                return False
            node.target = functional
            for user in [user for user in target.users if order[user] > now]:
                user.replace_input_with(target, node)
    return True


def _functional(node: fx.Node, target: fx.Node) -> Any:
    """Returns the operator that returns the value that this one writes into its first argument, or None."""
    in_place = node.target
    assert isinstance(in_place, torch._ops.OpOverload)
    namespace, _, name = in_place._schema.name.partition("::")
    if not name.endswith("_") or written_by(node) != [node.args[0]]:
        return None
    twin = getattr(getattr(getattr(torch.ops, namespace), name[:-1], None), in_place._overloadname, None)
    kinds = [[str(argument.type) for argument in each._schema.arguments] for each in (twin, in_place) if each]
    # An in-place operator keeps the dtype and shape of its target, whatever is added to it.
    mine, others = target.meta["val"], [read.meta.get("val") for read in node.all_input_nodes]
    keeps = all(isinstance(o, torch.Tensor) and o.dtype == mine.dtype and o.numel() <= mine.numel() for o in others)
    return twin if keeps and len(kinds) == 2 and kinds[0] == kinds[1] else None
