"""Operators that work in place, and the same graph without them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree


def writes(node: fx.Node) -> list[fx.Node]:
    """The arguments that an operator writes into."""
    if not isinstance(node.target, torch._ops.OpOverload) or not node.target._schema.is_mutable:
        return []
    arguments = node.target._schema.arguments
    named: dict[str, Any] = {argument.name: value for argument, value in zip(arguments, node.args, strict=False)}
    named.update(node.kwargs)
    written = [named.get(a.name) for a in arguments if a.alias_info is not None and a.alias_info.is_write]
    return [leaf for leaf in pytree.tree_leaves(written) if isinstance(leaf, fx.Node)]


def storage(node: fx.Node) -> int | None:
    """What the values of two nodes have in common when one is a view of the other."""
    value = node.meta.get("val")
    return value.untyped_storage()._cdata if isinstance(value, torch.Tensor) else None


def taken_out(graph: fx.Graph) -> bool:
    """Puts operators that make a new value in the place of those that work in place; whether that could be done.

    Those that write into a buffer of the model stay: they are meant to.
    """
    order = {node: place for place, node in enumerate(graph.nodes)}
    views = _views(graph)
    for node in list(graph.nodes):
        for target in writes(node):
            if target.op == "get_attr":
                continue
            functional = _functional(node, target)
            if functional is None or _is_read_later(order, node, target, views):
                return False
            node.target = functional
            later = [user for user in target.users if order[user] > order[node]]
            for user in later:
                user.replace_input_with(target, node)
    return True


def _functional(node: fx.Node, target: fx.Node) -> Any:
    """The operator that gives what this one writes into its first argument."""
    operator = node.target
    assert isinstance(operator, torch._ops.OpOverload)
    namespace, _, name = operator._schema.name.partition("::")
    if not name.endswith("_") or writes(node) != [node.args[0]]:
        return None
    twin = getattr(getattr(torch.ops, namespace), name[:-1], None)
    overload = getattr(twin, operator._overloadname, None)
    fits = overload is not None and _kinds(overload) == _kinds(operator) and _keeps_type(node, target)
    return overload if fits else None


def _kinds(operator: Any) -> list[str]:
    return [str(argument.type) for argument in operator._schema.arguments]


def _keeps_type(node: fx.Node, target: fx.Node) -> bool:
    # In place keeps the dtype and shape of what it writes into, whatever is added to it.
    mine, others = target.meta["val"], [read.meta.get("val") for read in node.all_input_nodes]
    return all(isinstance(o, torch.Tensor) and o.dtype == mine.dtype and o.numel() <= mine.numel() for o in others)


def _views(graph: fx.Graph) -> dict[int | None, list[fx.Node]]:
    """The nodes that share a storage."""
    views = defaultdict(list)
    for node in graph.nodes:
        views[storage(node)].append(node)
    return views


def _is_read_later(
    order: Mapping[fx.Node, int], write: fx.Node, target: fx.Node, views: Mapping[int | None, list[fx.Node]]
) -> bool:
    """Whether a view of what is written, or a base of it, is read after the write."""
    now = order[write]
    return any(
        order[node] < now and node is not target and any(order[user] > now for user in node.users)
        for node in views[storage(target)]
    )
