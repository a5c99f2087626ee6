"""Matching a pattern against the tree of names of a model."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from frostline._core.errors import UnsupportedError
from frostline._core.errors.base import counted
from frostline._core.selecting.pattern import Deep, Item, Key, Step, parse, spell
from frostline._core.tree import NameNode, NameTree


def nodes_of(pattern: str, tree: NameTree) -> list[NameNode]:
    """Returns the nodes that `pattern` names, each once.

    Raises:
        UnsupportedError: the pattern names rows of a parameter, or of the parameters below a module.
    """
    return walk(parse(pattern), tree, pattern)


def walk(steps: Iterable[Step], tree: NameTree, pattern: str) -> list[NameNode]:
    """Returns the nodes that `steps` reach from the root; a last ``**`` adds nothing, as a node includes all below."""
    nodes, deep = [tree.root], False
    for step in steps:
        if isinstance(step, Deep):
            deep = True
        elif isinstance(step, Item):
            if deep:
                nodes = _modules_below(nodes, tree)
            else:
                _check_no_rows(nodes, tree, pattern)
            nodes = [child for node in nodes for child in node.at(step.index)]
            deep = False
        else:
            keys = _keys(step, tree)
            nodes = _below(nodes, keys, tree) if deep else _children(nodes, keys)
            deep = False
    return nodes


def _keys(step: Step, tree: NameTree) -> list[str]:
    if isinstance(step, Key):
        return [step.key]
    assert not isinstance(step, Deep | Item), "only a segment has keys"
    return [key for key in tree.by_key if step.keys.fullmatch(key)]


def _children(nodes: list[NameNode], keys: list[str]) -> list[NameNode]:
    if len(keys) == 1:
        return [node.children[keys[0]] for node in nodes if keys[0] in node.children]
    chosen = frozenset(keys)
    return [child for node in nodes for key, child in node.children.items() if key in chosen]


def _below(nodes: list[NameNode], keys: list[str], tree: NameTree) -> list[NameNode]:
    found = (node for key in keys for node in tree.by_key.get(key, ()))
    if nodes == [tree.root]:
        return list(found)
    tops = outermost(nodes)
    starts = [node.start for node in tops]
    return [node for node in found if (i := bisect_left(starts, node.start)) and node.start < tops[i - 1].stop]


def outermost(nodes: Sequence[NameNode]) -> list[NameNode]:
    """Returns the nodes that are not below another one of them, in pre-order."""
    tops: list[NameNode] = []
    for node in sorted(nodes, key=lambda node: node.start):
        if not tops or node.start >= tops[-1].stop:
            tops.append(node)
    return tops


def _modules_below(nodes: list[NameNode], tree: NameTree) -> list[NameNode]:
    inside = (tree.nodes[top.start : top.stop] for top in outermost(nodes))
    return [node for nodes in inside for node in nodes if node.param is None]


def _check_no_rows(nodes: Iterable[NameNode], tree: NameTree, pattern: str) -> None:
    for node in nodes:
        if node.param is not None:
            reason = f"names rows of {spell(node.keys)!r}, a parameter of shape {node.param.shape}: {_NOT_YET}"
            raise UnsupportedError(
                repr(pattern), reason, f"Freeze all of it with {spell(node.keys)!r}, or leave it out."
            )
        if node.positions is not None:
            continue
        below = [name.param for name in tree.names[node.first : node.last] if name.param is not None]
        axes = {param.shape[:1] for param in below}
        if len(axes) == 1 and () not in axes:
            whole = repr(spell(node.keys)) if node.keys else "the model"
            reason = (
                f"names rows of {whole}, which has no positions, and {counted(len(below), 'parameter')} with a first "
                f"axis of {below[0].shape[0]}: {_NOT_YET}"
            )
            children = ", ".join([repr(spell(child.keys)) for child in node.children.values()][:5])
            fix = f"Name what is below it: {children}."
            if len(below) > 1:
                name = node.keys[-1] if node.keys and node.keys[-1].isidentifier() else "layers"
                fix += (
                    f" Or split stacked layers into a list: [{{name: array[i] for name, array in {name}.items()}} "
                    f"for i in range({below[0].shape[0]})]."
                )
            raise UnsupportedError(repr(pattern), reason, fix)


_NOT_YET = "rows cannot be frozen yet."
