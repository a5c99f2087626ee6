"""What selectors would take, and the parts of a model by depth."""

from __future__ import annotations

from torch import nn

from frostline._core.reporting.preview import Selection, preview
from frostline._core.selecting.blocks import blocks as blocks_of
from frostline.torch._freezing import selection
from frostline.torch._freezing.selection import Choice
from frostline.torch._freezing.survey import survey


def select(model: nn.Module, *selectors: Choice) -> Selection:
    """Returns what selectors would take, and changes nothing.

    Args:
        model: the model, or a part of it.
        selectors: as in :func:`freeze`; without them, the whole model.

    Returns:
        A value with the ``paths`` of the parameters, which prints as a small table.

    Raises:
        NoMatchError, TiedError, SelectorError, UnsupportedError: as in :func:`freeze`.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2))
        >>> print(select(model, "[:2]", "![0].bias"))
                          parameters  params  memory
        0.weight  float32[8, 4]            1      32   128 B
        1  Linear                          2      72   288 B
        3 of 6 parameters (104 of 130 params, 416 B).
    """
    read = survey(model)
    chosen = selection.chosen(selectors, read, expect=None, allow_empty=False)
    return preview(read.inventory, chosen.paths, {path for path, is_chosen in chosen.buffers.items() if is_chosen})


def blocks(model: nn.Module) -> list[str]:
    """Returns the parts of a model by depth, as selectors.

    First comes what stands before the repeated blocks, such as an embedding or a stem; then each block, such as a layer
    of a transformer or a block of a ResNet; then the rest, such as a norm and a head. The order is that in which the
    modules were registered. Each parameter is in exactly one block, a tied one in that of its first name. Schedules
    take the list, too.

    Example:
        >>> model = nn.Transformer(8, 2, num_encoder_layers=2, num_decoder_layers=2, batch_first=True)
        >>> blocks(model)
        ['encoder.layers.0', 'encoder.layers.1', 'encoder.norm', 'decoder.layers.0', 'decoder.layers.1', 'decoder.norm']
        >>> handle = freeze(model, *blocks(model)[:-2])
        >>> len(frozen(model)), len(trainable(model))
        (44, 20)
    """
    return blocks_of(survey(model).inventory)
