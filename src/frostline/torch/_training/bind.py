"""Binding an optimizer to a model, so that it follows what is frozen."""

from __future__ import annotations

import gc
from collections.abc import Sequence

from torch import nn
from torch.optim import LBFGS, Optimizer

from frostline._core.errors import BindError, UnsupportedError
from frostline._core.rules import Rule
from frostline.torch._freezing.selection import Choice, select
from frostline.torch._freezing.survey import Survey, survey
from frostline.torch._training.binding import LIVE, Binding
from frostline.torch._training.groups import Grouping, assigned
from frostline.torch._training.layout import EXTRA, BuiltLayout, by_name, loaded_before
from frostline.torch._training.moments import Moments, ParkedMoments
from frostline.torch._training.named_state import check_fits, load
from frostline.torch._training.seen_through import chain_of

_EXPRESSION = "bind(optimizer, model)"


def bind(
    optimizer: Optimizer,
    model: nn.Module,
    *selectors: Choice,
    rules: Sequence[Rule] = (),
    groups: Grouping | None = None,
    moments: Moments = "keep",
) -> Binding:
    """Makes an optimizer follow what is frozen in a model, from now on.

    Frozen parameters leave the optimizer, and join it again when they thaw, in the group that they had or that a rule
    names. Groups are never added or removed later, so learning-rate schedulers stay in step; make them after binding.

    From then on the optimizer's own ``state_dict()`` has names, and the moments of frozen parameters, too; its
    ``load_state_dict()`` goes by name, whatever is frozen then and now. So the checkpoints of every trainer are right,
    with no line of yours. A state that was loaded before the optimizer was bound is taken over.

    Args:
        optimizer: any optimizer of PyTorch except L-BFGS. Those that wrap one, such as Accelerate's, are seen through.
        model: the model.
        selectors: the part of the model that the optimizer is for; without them, all of it. They are needed where
            there are several optimizers.
        rules: options by selector, ``Rule("**.bias", weight_decay=0.0)``; `layerwise` makes those of layer-wise
            learning-rate decay. Of two rules the later one decides, option by option.
        groups: a function that makes parameter groups of the model, as timm and most trainers have one. Parameters that
            the optimizer never had join the group that has those options, or a new one.
        moments: what happens to the moments of frozen parameters. ``"keep"``: they stay, and are there again after a
            thaw, bitwise. ``"cpu"``: the same, in main memory. ``"release"``: they are dropped, and AdamW holds exactly
            8 bytes for each trainable float32 value, beside its counters.

    Returns:
        A binding, which saves and loads the optimizer's state by name.

    Raises:
        BindError: the optimizer is bound already, or two would have one parameter; a rule has an option that the
            optimizer lacks, or comes too late for a scheduler; the optimizer has several groups, and nothing says which
            one a parameter joins that it never had; it was loaded with the moments of other parameters; `moments` is
            not one of the three.
        UnsupportedError: the optimizer keeps one state for all parameters, as L-BFGS does.
        NoMatchError, SelectorError, TiedError: as in :func:`freeze`, for `selectors` and `rules`.

    Source:
        https://github.com/pytorch/pytorch/issues/1489 (states by name), and the warning of
        ``torch.optim.Optimizer.load_state_dict``, which assigns by position.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        >>> binding = bind(optimizer, model, rules=[Rule("**.bias", weight_decay=0.0)])
        >>> handle = freeze(model, "0")
        >>> [len(group["params"]) for group in optimizer.param_groups]
        [1, 1]
        >>> handle.undo()
        >>> [len(group["params"]) for group in optimizer.param_groups]
        [2, 2]
    """
    chain = chain_of(optimizer)
    inner = chain[-1]
    if isinstance(inner, LBFGS):
        raise UnsupportedError(
            "bind(LBFGS, model)",
            "binds an optimizer that keeps one history for all parameters.",
            "Leave it unbound: frozen parameters are left out of its steps, and its history is dropped when they are.",
        )
    parked = ParkedMoments(moments)
    read = survey(model)
    chosen = select(selectors, read, expect=None, allow_empty=False)
    fixed = {param.path for param in read.inventory.params if param.pinned or not param.can_train}
    names = tuple(path for path in read.parameters if path in chosen - fixed)
    if _conflict(inner, read, names) is not None:
        gc.collect()  # an optimizer that nothing refers to but its own hooks is in nobody's way
        if error := _conflict(inner, read, names):
            raise error
    paths = {id(read.parameters[path]): path for path in names}
    layout = BuiltLayout(inner, paths)
    loaded = loaded_before(inner, layout, names)
    before = len(inner.param_groups)
    numbers = assigned(chain, read, names, rules, groups)
    tensors = {path: read.parameters[path] for path in names}
    if loaded is not None:
        state = by_name(_EXPRESSION, layout, inner, loaded, {**tensors, **layout.others}, numbers)
        try:
            check_fits(_EXPRESSION, inner, tensors, layout.others, numbers, state)
        except BindError:
            del inner.param_groups[before:]
            raise
        inner.state.pop(EXTRA, None)
        load(inner, tensors, layout.others, parked, state)
    binding = Binding(chain, read, names, numbers, parked, layout)
    binding.sync()
    return binding


def _conflict(optimizer: Optimizer, read: Survey, names: Sequence[str]) -> BindError | None:
    wanted = {id(read.parameters[path]): path for path in names}
    for other in LIVE:
        if other.optimizer is optimizer:
            return BindError(
                "bind(optimizer, model)",
                f"binds an optimizer that is bound already, to {len(other.names)} parameters.",
                (),
                "Bind once, and keep the binding that it returns; or end the other one first: binding.release().",
            )
        if both := [wanted[id(tensor)] for tensor in other._members.owned.values() if id(tensor) in wanted]:
            return BindError(
                "bind(optimizer, model)",
                f"would give {len(both)} of {len(names)} parameters to two optimizers.",
                tuple(both),
                'Say which part each is for, bind(optimizer, model, "generator"); or end the other: binding.release().',
            )
    return None
