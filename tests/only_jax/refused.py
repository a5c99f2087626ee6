"""Calls that the JAX front end refuses, with the whole text of each error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import frostline.jax as fj
from frostline import Plan, of_type


def net() -> dict[str, Any]:
    return {
        "trunk": {"w": jnp.ones((2, 2)), "b": jnp.ones(2)},
        "use": fj.Frozen({"w": jnp.ones((2, 2)), "b": jnp.ones(2)}),
        "head": {"w": jnp.ones((2, 2)), "b": jnp.ones(2)},
    }


def _same_path() -> dict[str, Any]:
    return {"a.b": jnp.ones(1), "a": {"b": jnp.ones(1)}}


def _under_jit(act: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda tree: jax.jit(lambda tree: act(tree) and None)(tree)


def _guarded_in_vain(tree: Any) -> None:
    with fj.guard(fj.freeze(tree, "trunk")):
        pass


def _join_of_two(tree: Any) -> object:
    return fj.join(fj.split(tree)[0], fj.split({"other": tree})[1])


EMPTY_FIX = "Fix the pattern, or pass allow_empty=True if matching nothing is what you want."
FOREIGN = "It is not, or no longer, part of this tree. Select it by name."
PINNED_FIX = "Build the model with layer in place of Frozen(layer), or train the layer where it is used as it is."
PARTS_FIX = "Join the two parts of one split: trainable, rest = split(tree)."
FIRST_ONLY = (
    "differentiates an argument other than the first, but only the first is split into a trainable part and the rest."
)

TEXTS: list[tuple[str, Callable[[Any], object], list[str]]] = [
    (
        "a typo",
        lambda tree: fj.freeze(tree, "trunc"),
        ["'trunc' matches none of the 6 parameters.", "Closest paths:", "  trunk", "  trunk.w", "  trunk.b", EMPTY_FIX],
    ),
    (
        "a class that is not there",
        lambda tree: fj.freeze(tree, of_type(int)),
        ["of_type(int) matches none of the 6 parameters.", "Classes in the model:", "  object", "  Frozen", EMPTY_FIX],
    ),
    (
        "rows",
        lambda tree: fj.freeze(tree, "trunk.w[:1]"),
        [
            "'trunk.w[:1]' names rows of 'trunk.w', a parameter of shape (2, 2): rows cannot be frozen yet.",
            "Freeze all of it with 'trunk.w', or leave it out.",
        ],
    ),
    (
        "another number",
        lambda tree: fj.freeze(tree, "trunk", expect=3),
        [
            "'trunk' selects 2 parameters, but expect=3.",
            "Selected:",
            "  trunk.b",
            "  trunk.w",
            "Fix the selectors, or pass expect=2 if that is what you want.",
        ],
    ),
    (
        "an array of another tree",
        lambda tree: fj.freeze(tree, jnp.ones(3)),
        ["<Array of shape (3,)> matches none of the 6 parameters.", FOREIGN, EMPTY_FIX],
    ),
    (
        "a part of another tree",
        lambda tree: fj.freeze(tree, {"w": jnp.ones(3)}),
        ["<dict> matches none of the 6 parameters.", FOREIGN, EMPTY_FIX],
    ),
    (
        "a mask, of another structure or of this one",
        lambda tree: fj.freeze(tree, {"trunk": True, "head": False}),
        [
            "<dict> matches none of the 6 parameters.",
            "It is a mask. Select by name instead; mask(tree) returns the mask of the trainable leaves.",
            EMPTY_FIX,
        ],
    ),
    (
        "an array from outside of jit",
        lambda tree: jax.jit(lambda other: fj.freeze(tree, other["trunk"]["w"]) and None)(tree),
        [
            "<Array of shape (2, 2)> matches none of the 6 parameters.",
            "It is being traced, and inside jit an array is another object. Select it by name.",
            EMPTY_FIX,
        ],
    ),
    (
        "a number as a selector",
        lambda tree: fj.freeze(tree, 3),
        [
            "3 is of type int; a selector is a string, a selector value, or a module or array of the tree.",
            "Write a path: freeze(tree, 'encoder').",
        ],
    ),
    (
        "a function as a selector",
        lambda tree: fj.freeze(tree, len),
        [
            "len is a function; a selector is a string, a selector value, or a module or array of the tree.",
            "Select by a condition: freeze(tree, where(lambda p: p.ndim == 1)).",
        ],
    ),
    (
        "thaw a frozen use",
        lambda tree: fj.thaw(tree, "use"),
        [
            "thaw(tree, 'use') names 2 parameters, all inside a frozen use, Frozen(layer).",
            "They are:",
            "  use.b",
            "  use.w",
            PINNED_FIX,
        ],
    ),
    (
        "thaw the object of a frozen use",
        lambda tree: fj.thaw(tree, tree["use"]),
        [
            "thaw(tree, <dict>) names 2 parameters, all inside a frozen use, Frozen(layer).",
            "They are:",
            "  use.b",
            "  use.w",
            PINNED_FIX,
        ],
    ),
    (
        "follow a plan that trains a frozen use",
        lambda tree: fj.follow(tree, Plan(frozenset(), fj.plan(tree).paths)),
        [
            "follow(tree, plan) names 2 parameters, all inside a frozen use, Frozen(layer).",
            "They are:",
            "  use.b",
            "  use.w",
            PINNED_FIX,
        ],
    ),
    (
        "follow the plan of another tree",
        lambda tree: fj.follow(tree, fj.plan(tree["trunk"])),
        [
            "The plan and what it is compared with have different paths: 2 missing, 6 unknown.",
            "Missing (only in the plan):",
            "  b",
            "  w",
            "Unknown (not in the plan):",
            "  head.b",
            "  head.w",
            "  trunk.b",
            "  trunk.w",
            "  use.b",
            "  ... and 1 more",
            "Make both from the same model, for example with plan(model).",
        ],
    ),
    (
        "two leaves of one path",
        lambda _: fj.freeze(_same_path()),
        [
            "'a.b' is the name of 2 leaves, and a plan could not distinguish them.",
            "They are:",
            "  a.b",
            "  ['a.b']",
            "Rename a key, for example without the dot, or give the node keys of its own: register_pytree_with_keys.",
        ],
    ),
    (
        "a use of nothing",
        lambda _: fj.Frozen(None),
        [
            "Frozen(None) holds None, but only a layer or an array can have a frozen use.",
            'Freeze a part of a tree where it is: freeze(model, "encoder.weight").',
        ],
    ),
    (
        "a call of what cannot be called",
        lambda tree: tree["use"](jnp.ones(2)),
        [
            "Frozen(layer)(...) calls a dict, which is not callable.",
            "Pass it to the function that uses it, apply(params, x): its items are frozen, too.",
        ],
    ),
    (
        "nothing left to train",
        lambda tree: fj.value_and_grad(lambda _: 0.0)(fj.freeze(tree)),
        [
            "value_and_grad(fn)(tree) has nothing to train.",
            "All 6 parameters are frozen, 2 of them inside frozen uses.",
            'Thaw what is to be trained: tree = thaw(tree, "head").',
        ],
    ),
    (
        "nothing left of one",
        lambda _: fj.grad(lambda _: 0.0)(fj.freeze({"w": jnp.ones(1)})),
        [
            "grad(fn)(tree) has nothing to train.",
            "The only parameter is frozen, 0 of them inside frozen uses.",
            'Thaw what is to be trained: tree = thaw(tree, "head").',
        ],
    ),
    (
        "nothing but frozen uses",
        lambda tree: fj.grad(lambda _: 0.0)([tree["use"]]),
        [
            "grad(fn)(tree) has nothing to train.",
            "All 2 parameters are frozen, 2 of them inside frozen uses.",
            "Build the model with layer in place of Frozen(layer), where it is to be trained.",
        ],
    ),
    (
        "nothing that could train",
        lambda _: fj.grad(lambda _: 0.0)({"steps": 3, "ids": jnp.arange(3)}),
        [
            "grad(fn)(tree) has nothing to train.",
            "None of the 2 leaves is a floating array.",
            "Hand it the model or its parameters as the first argument.",
        ],
    ),
    (
        "another argument",
        lambda _: fj.value_and_grad(lambda _: 0.0, argnums=1),
        [
            f"value_and_grad(fn, argnums=1) {FIRST_ONLY}",
            "Put everything that trains into one tree: "
            "value_and_grad(lambda models, batch: ...)((model, other), batch).",
        ],
    ),
    (
        "several arguments",
        lambda _: fj.grad(lambda _: 0.0, argnums=(0, 1)),
        [
            f"grad(fn, argnums=(0, 1)) {FIRST_ONLY}",
            "Put everything that trains into one tree: grad(lambda models, batch: ...)((model, other), batch).",
        ],
    ),
    (
        "parts of two trees",
        _join_of_two,
        [
            "join(trainable, rest) got two trees of different structures.",
            "  trainable: PyTreeDef({'head': {'b': *, 'w': *}, 'trunk': {'b': *, 'w': *}, "
            "'use': CustomNode(Frozen[PyTreeDef({'b': *, 'w': *})], [*, *])})",
            "  rest:      PyTreeDef({'other': {'head': {'b': *, 'w': *}, 'trunk': {'b': *, 'w': *}, "
            "'use': CustomNode(Frozen[PyTreeDef({'b': *, 'w': *})], [*, *])}})",
            PARTS_FIX,
        ],
    ),
    (
        "the same part twice",
        lambda tree: fj.join(fj.split(tree)[0], fj.split(tree)[0]),
        ["join(trainable, rest) got two trees that both have a leaf at 4 of 6 places.", PARTS_FIX],
    ),
    (
        "a guard in jit",
        _under_jit(lambda tree: fj.guard(tree).__enter__()),
        [
            "guard(tree) is called inside jit, where arrays have no bytes yet.",
            "Guard the loop around the compiled step: with guard(tree) as watching: tree = step(tree, batch).",
        ],
    ),
    (
        "a guard that was shown nothing",
        _guarded_in_vain,
        [
            "guard(tree) watched 4 frozen arrays and was left without a look at any.",
            "In JAX a step makes a new tree, so the guard must be shown it.",
            "Show it before the block ends: with guard(tree) as watching: ...; watching.verify(tree).",
        ],
    ),
]
