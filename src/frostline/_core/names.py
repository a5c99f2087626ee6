"""What a public name that does not exist is called here."""

from __future__ import annotations

from collections.abc import Sequence

from frostline._core.selecting.nearby import closest

_CALLED: dict[str, str] = {
    "unfreeze": "thaw",
    "unlock": "thaw",
    "lock": "freeze",
    "fix": "freeze",
    "freeze_layers": "freeze",
    "freeze_module": "freeze",
    "freeze_params": "freeze",
    "disable": "freeze",
    "stop_gradient": "frozen_call",
    "is_frozen": "frozen",
    "trainable_parameters": "trainable",
    "summary": "report",
    "unbind": "bind",
    "combine": "join",
    "merge": "join",
    "partition": "split",
}
"""What other libraries call it -> our name."""

_OF_FRONT_ENDS = frozenset({"Frozen", "bind", "blocks", "check", "cost", "freeze", "guard", "report", "select", "thaw"})


def no_such_name(module: str, name: str, public: Sequence[str]) -> AttributeError:
    """Returns the error for a name that a module does not have, with the name that is meant, if that is plain.

    Example:
        >>> print(no_such_name("frostline.torch", "unfreeze", ["freeze", "thaw"]))
        module 'frostline.torch' has no attribute 'unfreeze'. It is called 'thaw' here.
    """
    problem = f"module {module!r} has no attribute {name!r}."
    ours = _CALLED.get(name.lower(), name)
    if ours in _OF_FRONT_ENDS - {*public}:
        fix = "The verbs are in the front ends: import frostline.torch as ft, or import frostline.jax as fj."
        return AttributeError(f"{problem} {fix}", name=name)
    if ours in public:
        return AttributeError(f"{problem} It is called {ours!r} here.", name=name)
    if found := closest(name, public):
        return AttributeError(f"{problem} There is: {', '.join(map(repr, found))}.", name=name)
    return AttributeError(problem, name=name)
