"""Models of Keras on PyTorch, which are modules with names, flags and a training loop of their own."""

from __future__ import annotations

from torch import nn

from frostline._core.errors import UnsupportedError


def refuse_keras(model: nn.Module) -> None:
    """Refuses a Keras model. Frozen uses of one work, and so does a module with one in it.

    Raises:
        UnsupportedError: the model is one of Keras.
    """
    if any(kind.__module__.partition(".")[0] == "keras" for kind in type(model).__mro__):
        raise UnsupportedError(
            type(model).__name__,
            "is a model of Keras, which trains by flags of its own: statistics would move in what is frozen here, and "
            "dropout be active.",
            'Set those, before compile(): model.get_layer("body").trainable = False. ft.Frozen(model) works in a '
            "module of PyTorch.",
        )
