"""A frozen use of a layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, TypeVar, cast, final

from jax import export
from jax.tree_util import PyTreeDef, register_pytree_with_keys, tree_unflatten

from frostline._core.errors import LayerError
from frostline.jax._arrays import ARRAYS
from frostline.jax._uses.flax_states import serialized
from frostline.jax._uses.layout import children
from frostline.jax._uses.mode import in_evaluation
from frostline.jax._uses.opaque import check_transparent
from frostline.jax._uses.structure import from_bytes, to_bytes
from frostline.jax._uses.window import (
    CallableWindow,
    Window,
    WindowContent,
    inner_of,
    is_window,
    stopped,
    window_of,
)

Layer = TypeVar("Layer")


@final
class Frozen(CallableWindow):
    """A frozen use of a layer: differentiable with respect to its input, constant with respect to the layer.

    It is a pytree node with the layer as its visible child, so it can be mapped, traced, moved and saved. Its paths are
    those of the layer. A call stops the gradients of the layer's own leaves and nothing else, and puts the layer in
    evaluation mode: bool leaves called ``inference``, as in Equinox, are true. The same layer trains wherever it is
    used without ``Frozen``. ``Frozen(Frozen(layer))`` is ``Frozen(layer)``.

    ``Frozen(array)`` freezes one array where it is built. A function that `value_and_grad` differentiates gets the
    array itself. Everywhere else take it out, ``jnp.asarray(tree["scale"])``, or call the function with
    ``strip(tree)``, because functions of JAX accept nothing that stands for an array.

    Args:
        layer: a pytree that can be called, a container of arrays, whose items are frozen, too, or an array.

    Raises:
        LayerError: `layer` is None, not a pytree, or a function that closes over traced arrays.

    Source:
        https://github.com/FluxML/Flux.jl/issues/1931

    Example:
        >>> layer = {"w": jnp.ones((2, 2))}
        >>> def loss(layer, x):
        ...     return (x @ Frozen(layer)["w"]).sum()
        >>> over_layer, over_input = jax.grad(loss, argnums=(0, 1))(layer, jnp.ones(2))
        >>> over_layer["w"].tolist(), over_input.tolist()
        ([[0.0, 0.0], [0.0, 0.0]], [2.0, 2.0])
        >>> trainable({"w": jnp.ones(2), "scale": Frozen(jnp.ones(2))}).keys()
        dict_keys(['w'])
    """

    __slots__ = ()

    def __new__(cls, layer: Layer) -> Layer:  # type: ignore[misc] # it looks like the layer
        """Returns a use unchanged, and the use of the tree inside a marked one."""
        if is_window(layer):
            return layer if type(layer) in (Frozen, FrozenArray) else cls(inner_of(layer))
        if isinstance(layer, ARRAYS):
            return cast(Layer, _made_array(layer))
        if layer is None:
            raise LayerError(
                "Frozen(None)",
                "holds None, but only a layer or an array can have a frozen use.",
                'Freeze a part of a tree where it is: freeze(model, "encoder.weight").',
            )
        check_transparent(layer)
        return cast(Layer, _made(layer, alone=children(layer) is None))

    def __repr__(self) -> str:
        return f"Frozen({inner_of(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(_made, alone=self._frostline.alone), (inner_of(self),)


@final
class FrozenArray(Window):
    """A frozen array: the result of ``Frozen(array)``. It has none of the attributes of an array."""

    __slots__ = ()

    # An object that passes for an array breaks inside JAX.
    __class__ = property(lambda self: FrozenArray)

    def __jax_array__(self) -> Any:
        return self._frostline.seen()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def __repr__(self) -> str:
        return f"Frozen({inner_of(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_array, (inner_of(self),)


@final
class FrozenContent(WindowContent):
    """A layer in which everything is frozen."""

    __slots__ = ("alone", "child")

    pins: ClassVar[bool] = True
    marks = frozenset()
    thawed = frozenset()
    ties = ()

    def __init__(self, layer: Any, *, alone: bool) -> None:
        super().__init__()
        self.child, self.alone = layer, alone

    @property
    def inner(self) -> Any:
        """The layer."""
        return self.child

    def made_ready(self, leaves: list[Any], structure: PyTreeDef) -> Any:
        """The layer in evaluation mode, without gradients."""
        return in_evaluation(tree_unflatten(structure, map(stopped, leaves)))


def _made(layer: Any, *, alone: bool) -> Frozen:
    # JAX may put any object in the place of a child, so nothing is checked here.
    use: Frozen = window_of(Frozen, FrozenContent(layer, alone=alone))
    return use


def _made_array(array: Any, *, alone: bool = True) -> FrozenArray:
    use: FrozenArray = window_of(FrozenArray, FrozenContent(array, alone=alone))
    return use


def _register(kind: type[Window], make: Callable[..., Any]) -> None:
    register_pytree_with_keys(
        kind,
        lambda use: use._frostline.flat_with_keys(),
        lambda level, below: make(level.filled(below), alone=level.structure is None),
        lambda use: use._frostline.flat(),
    )
    export.register_pytree_node_serialization(
        kind,
        serialized_name=f"frostline.jax.{kind.__name__}",
        serialize_auxdata=to_bytes,
        deserialize_auxdata=from_bytes,
    )

    serialized(
        kind,
        lambda flax, use: flax.to_state_dict(inner_of(use)),
        lambda flax, use, state: make(flax.from_state_dict(inner_of(use), state), alone=use._frostline.alone),
    )


_register(Frozen, _made)
_register(FrozenArray, _made_array)
