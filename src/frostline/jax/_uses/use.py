"""A frozen use of a layer."""

from __future__ import annotations

from typing import Any, ClassVar, final

from jax import export
from jax.tree_util import PyTreeDef, register_pytree_with_keys, tree_unflatten

from frostline._core.errors import LayerError
from frostline.jax._arrays import ARRAYS, described
from frostline.jax._uses.mode import in_evaluation
from frostline.jax._uses.opaque import check_transparent
from frostline.jax._uses.window import THROUGH, CallableWindow, WindowContent, inner_of, is_window, stopped, window_of


@final
class Frozen(CallableWindow):
    """A frozen use of a layer: differentiable with respect to its input, constant with respect to the layer.

    It is a pytree node with the layer as its visible child, so it can be mapped, traced, moved and saved. Its paths are
    those of the layer. A call stops the gradients of the layer's own leaves and nothing else, and puts the layer in
    evaluation mode: bool leaves called ``inference``, as in Equinox, are true. The same layer trains wherever it is
    used without ``Frozen``. ``Frozen(Frozen(layer))`` is ``Frozen(layer)``.

    Args:
        layer: a pytree that can be called, or a container of arrays; its items are frozen, too.

    Raises:
        LayerError: `layer` is an array, None, not a pytree, or a function that closes over traced arrays.

    Source:
        https://github.com/FluxML/Flux.jl/issues/1931

    Example:
        >>> layer = {"w": jnp.ones((2, 2))}
        >>> def loss(layer, x):
        ...     return (x @ Frozen(layer)["w"]).sum()
        >>> over_layer, over_input = jax.grad(loss, argnums=(0, 1))(layer, jnp.ones(2))
        >>> over_layer["w"].tolist(), over_input.tolist()
        ([[0.0, 0.0], [0.0, 0.0]], [2.0, 2.0])
    """

    __slots__ = ()

    def __new__(cls, layer: Any) -> Frozen:
        """Returns a use unchanged, and the use of the tree inside a marked one."""
        if is_window(layer):
            return layer if type(layer) is Frozen else cls(inner_of(layer))
        if layer is None or isinstance(layer, ARRAYS):
            raise LayerError(
                f"Frozen({'None' if layer is None else 'array'})",
                f"holds {described(layer)}, but only a layer can have a frozen use.",
                "Stop the gradient of an array with jax.lax.stop_gradient(x), or freeze it where it is: "
                'freeze(model, "encoder.weight").',
            )
        check_transparent(layer)
        return _made(layer)

    def __repr__(self) -> str:
        return f"Frozen({inner_of(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (inner_of(self),)


@final
class FrozenContent(WindowContent):
    """A layer in which everything is frozen."""

    __slots__ = ("child",)

    pins: ClassVar[bool] = True
    marks = frozenset()
    ties = ()

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.child = layer

    @property
    def inner(self) -> Any:
        """The layer."""
        return self.child

    def made_ready(self, leaves: list[Any], structure: PyTreeDef) -> Any:
        """The layer in evaluation mode, without gradients."""
        return in_evaluation(tree_unflatten(structure, map(stopped, leaves)))


def _made(layer: Any) -> Frozen:
    # JAX may put any object in the place of a child, so nothing is checked here.
    use: Frozen = window_of(Frozen, FrozenContent(layer))
    return use


register_pytree_with_keys(
    Frozen,
    lambda use: (((THROUGH, use._frostline.child),), None),
    lambda _, below: _made(*below),
    lambda use: ((use._frostline.child,), None),
)
export.register_pytree_node_serialization(
    Frozen,
    serialized_name="frostline.jax.Frozen",
    serialize_auxdata=lambda _: b"",
    deserialize_auxdata=lambda _: None,
)
