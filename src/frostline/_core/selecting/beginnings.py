"""Patterns that match nothing because their beginning is another one: ``model.``, ``module.``, or none at all."""

from __future__ import annotations

from frostline._core.selecting.match import nodes_of
from frostline._core.selecting.pattern import Key, parse, spell
from frostline._core.tree import NameTree


def with_another_beginning(pattern: str, tree: NameTree) -> list[str]:
    """Returns the pattern with as few of its first keys replaced as it takes for it to match something.

    The rest of it stays as its author wrote it, indices and wildcards included.
    """
    rest = pattern
    while True:
        steps = parse(rest)
        first = steps[0]
        if not isinstance(first, Key):
            return []
        above = [node.keys[:-1] for node in tree.by_key.get(first.key, ())]
        if rest != pattern and len(steps) == 1:
            above = [keys for keys in above if not keys]  # a last name alone, such as weight, says little
        written = (f"{spell(keys)}.{rest}" if keys else rest for keys in above)
        if found := [each for each in dict.fromkeys(written) if each != pattern and nodes_of(each, tree)]:
            return found
        key, dot, rest = rest.partition(".")
        if not dot or key != first.key or not rest:
            return []
