"""Reading a Flax NNX model as a tree for ``frostline.jax``, and writing the frozen set back as notes at its modules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import jax
import numpy as np
from flax import nnx
from flax.nnx.pytreelib import PytreeState

import frostline.jax as fj
from frostline._core.errors import LayerError, UnsupportedError
from frostline.integrations._nnx_constant import plain_class, sharing
from frostline.integrations._nnx_graph import is_parameter, modules, named, parameters
from frostline.integrations._nnx_use import Frozen, hold
from frostline.jax._arrays import bytes_of, described, nbytes, plain
from frostline.jax._freezing.ties import tied_by_identity
from frostline.jax._uses.layout import children

# A static attribute of NNX: it stays with the module, and a function is traced once for each value.
# Names with this prefix are not items of an nnx.Dict.
NOTE = "_pytree__frostline"

Variables = dict[int, tuple[Any, Any]]


@dataclass(frozen=True)
class Reading:
    """A model with a placeholder for each of its variables.

    A placeholder is an array without memory. Two variables with one array, as after ``nnx.clone``, get two
    placeholders, and a variable at two places gets one, so the ties are those of NNX.

    Attributes:
        model: the model.
        variables: each variable and its placeholder, by the identity of the variable.
        tree: the model with placeholders for variables, and with the frozen set of the model.
    """

    model: Any
    variables: Variables
    tree: Any

    @classmethod
    def of(cls, model: Any) -> Self:
        """Reads a model, or a container of models."""
        variables: Variables = {}
        tree = tied_by_identity(_with_placeholders(model, variables))
        sides: tuple[set[int], set[int]] = set(), set()
        for module, name, variable in parameters(model):
            sides[name in vars(module).get(NOTE, ())].add(id(variable))
        frozen = [variables[number][1] for number in sides[True] - sides[False]]
        return cls(model, variables, fj.freeze(tree, *frozen) if frozen else tree)

    @classmethod
    def to_change(cls, verb: str, model: Any) -> Self:
        """Reads a model in order to freeze or thaw it.

        Raises:
            LayerError: the model is not a module, or is a frozen use.
            UnsupportedError: the model is being traced.
        """
        if not isinstance(model, nnx.Module) or isinstance(model, Frozen):
            problem = f"got {described(model)}, but only an nnx.Module can be frozen in place."
            raise LayerError(f"{verb}(model)", problem, f"Call it with each module: {verb}(module).")
        return cls.untraced(verb, model)

    @classmethod
    def untraced(cls, verb: str, model: Any) -> Self:
        """Reads a model with real arrays.

        Raises:
            UnsupportedError: the model is being traced.
        """
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(model)):
            problem = "is called inside a transformation, where the model is a temporary copy without bytes."
            raise UnsupportedError(
                f"{verb}(model)", problem, f"Call it outside: {verb}(model) before step(model, batch)."
            )
        return cls.of(model)

    def named(self, choices: Iterable[Any]) -> list[Any]:
        """Returns the choices, with modules and variables of the model as selectors of their paths."""
        return [named(self.model, c) if isinstance(c, nnx.Module | nnx.Variable) else c for c in choices]

    def moving(self, tree: Any) -> frozenset[int]:
        """Returns the identities of the variables that training moves with the frozen set of the tree."""
        moving = {id(placeholder) for placeholder in fj.trainable(tree).values()}
        return frozenset(number for number, (_, placeholder) in self.variables.items() if id(placeholder) in moving)

    def note(self, tree: Any) -> Any:
        """Notes the frozen set of the tree at the modules, and holds the modules whose parameters are all frozen."""
        moving = self.moving(tree)
        held: dict[int, tuple[Any, bool]] = {}
        for module, is_whole in modules(self.model, moving):
            # A module without parameters at several places is held if it is held at all of them.
            held[id(module)] = module, is_whole and held.get(id(module), (module, True))[1]
        for module, is_held in held.values():
            vars(module).pop(NOTE, None)
            hold(module, is_held=is_held)
        for module, name, variable in parameters(self.model):
            if id(variable) not in moving:
                vars(module)[NOTE] = vars(module).get(NOTE, frozenset()) | {name}
        return self.model

    def values(self) -> Any:
        """Returns the tree with the values of the variables: parameters as arrays, all others as bytes."""
        values = {id(placeholder): _value(variable) for variable, placeholder in self.variables.values()}
        return jax.tree.map(lambda placeholder: values[id(placeholder)], self.tree)


def _with_placeholders(node: Any, variables: Variables) -> Any:
    if isinstance(node, Frozen):
        return fj.Frozen(_with_placeholders(sharing(node, plain_class(type(node))), variables))
    if isinstance(node, nnx.Variable):
        has_array = hasattr(node.get_raw_value(), "dtype")
        return variables.setdefault(id(node), (node, _placeholder(node)))[1] if has_array else None
    if children(node) is None and isinstance(node, nnx.Pytree):
        name = type(node).__name__
        problem = "is in the model but is not a pytree, so the leaves below it have no names."
        raise UnsupportedError(f"{name}(...)", problem, f"Define it without pytree=False: class {name}(nnx.Module).")
    if isinstance(node, PytreeState) or children(node) is None:
        return None
    return jax.tree.map(
        lambda child: _with_placeholders(child, variables), node, is_leaf=lambda child: child is not node
    )


def _placeholder(variable: Any) -> Any:
    raw = variable.get_raw_value()
    if is_parameter(variable):
        return np.broadcast_to(np.zeros((), raw.dtype), raw.shape)
    return np.broadcast_to(np.uint8(0), nbytes(raw))


def _value(variable: Any) -> Any:
    raw = variable.get_raw_value()
    # A new view, so that two variables with one array stay two.
    return plain(raw).view() if is_parameter(variable) else np.asarray(bytes_of(raw))
