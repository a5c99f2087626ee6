"""Bindings: an optimizer that frozen parameters leave, and thawed ones join, with their moments."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import LBFGS, Optimizer

from frostline._core.errors import BindError, UnsupportedError
from frostline._core.rules import Rule
from frostline._core.selecting.nearby import closest
from frostline.torch._freezing.held_modules import FOLLOWERS
from frostline.torch._freezing.selection import Choice, select
from frostline.torch._freezing.survey import Survey, survey
from frostline.torch._training.groups import assigned
from frostline.torch._training.moments import Moments, ParkedMoments, State
from frostline.torch._training.named_state import check_fits, load, saved
from frostline.torch._training.rates import Rates


class Binding:
    """Keeps an optimizer to the trainable parameters and saves its state by name; :func:`bind` returns it.

    Attributes:
        optimizer: the optimizer.
        names: the parameters that it is for, frozen or not, in model order.
    """

    def __init__(
        self, optimizer: Optimizer, read: Survey, names: tuple[str, ...], groups: dict[str, int], parked: ParkedMoments
    ) -> None:
        self.optimizer, self.names = optimizer, names
        self._groups, self._parked = groups, parked
        self._root, self._children = read.root, _children(read)
        self._sites = {path: read.sites[path][0] for path in names}
        self._owned: dict[str, torch.Tensor] = {path: read.parameters[path] for path in names}
        self._count = len(optimizer.param_groups)
        self._known: tuple[tuple[int, bool], ...] = ()
        self._rates = Rates()
        self._attach()

    def sync(self) -> None:
        """Makes the optimizer hold what trains now, and nothing else, in place; idempotent.

        This happens after each freezing and thawing, and before each step for what was frozen by hand. A module that
        replaces another one trains in its stead, without moments. Groups may be added by hand, and parameters moved
        among them; where some were removed, nothing is done, and the next step fails.
        """
        self._rates.take_back(self.optimizer)
        if len(self.optimizer.param_groups) < self._count:
            return
        replaced = self._find_again()
        present = self._present()
        known = tuple((id(tensor), _trains(tensor)) for tensor in present.values())
        if known == self._known:
            return
        if self._known:
            self._read_groups()
        self._known = known
        own = replaced.union(map(id, self._owned.values()), map(id, present.values()))
        # All are taken out first: tensors may have changed places.
        states = {path: self.optimizer.state.pop(self._owned[path], None) for path in present}
        for path, tensor in present.items():
            self._carry(path, tensor, states[path])
        for number, group in enumerate(self.optimizer.param_groups):
            # What else the optimizer has, such as a loss with parameters, stays where it is.
            others = [place for place, p in enumerate(group["params"]) if id(p) not in own]
            inside = [path for path in self.names if self._groups[path] == number and _trains(present[path])]
            if "param_names" in group:
                group["param_names"][:] = [*(group["param_names"][place] for place in others), *inside]
            group["params"][:] = [*(group["params"][place] for place in others), *(present[path] for path in inside)]

    def scale(self, factors: Mapping[str, float]) -> None:
        """Takes each later step at these factors of the learning rates; a later call replaces them.

        Between steps the groups have their own rates, the very same objects, so learning-rate schedulers and
        checkpoints never see a factor. Within a step, parameters of one group with several factors are several groups.

        Args:
            factors: path -> factor; a path that is not in it has 1.

        Raises:
            BindError: a path is not one that the optimizer is for.
        """
        if unknown := [path for path in factors if path not in self._sites]:
            problem = (
                f"names {len(unknown)} of {len(factors)} paths that are not among the {len(self.names)} bound ones:"
            )
            near = closest(unknown[0], self.names) or list(self.names[:3])
            raise BindError("binding.scale(factors)", problem, tuple(unknown), f"Write one of binding.names: {near}.")
        self._rates.factors = {path: factor for path, factor in factors.items() if factor != 1.0}

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the optimizer by name: options of the groups, and moments, of frozen parameters too.

        Another frozen set, another order or another machine can load it, where PyTorch's own state dict assigns
        moments by position.
        """
        self.sync()
        self._check_groups("binding.state_dict()")
        return saved(self.optimizer, self._owned, self._groups, self._parked)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a state that was saved by name, whatever was frozen then and is frozen now.

        Moments of trainable parameters go into the optimizer; those of frozen ones are kept, moved or released, as
        `bind` was told. A parameter without moments starts with fresh ones.

        Raises:
            BindError: it is not such a state, or it speaks of other parameters or groups. Nothing is changed then.
        """
        self.sync()
        check_fits(self.optimizer, self._owned, self._groups, state)
        load(self.optimizer, self._owned, self._parked, state)

    def __repr__(self) -> str:
        inside = sum(trains for _, trains in self._known)
        return f"Binding({type(self.optimizer).__name__}, {inside} of {len(self.names)} parameters in it)"

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Optimizers leave their hooks out of copies and pickles.
        self.__dict__.update(state, _known=())
        self._attach()

    def _attach(self) -> None:
        # The hooks keep the binding alive as long as the optimizer is.
        self.optimizer.register_step_pre_hook(lambda *_: self._begin_step())
        self.optimizer.register_step_post_hook(lambda *_: self._rates.take_back(self.optimizer))
        # A step that failed has given nothing back.
        self.optimizer.register_state_dict_pre_hook(lambda *_: self._rates.take_back(self.optimizer))
        FOLLOWERS.add(self)
        _LIVE.add(self)

    def _begin_step(self) -> None:
        self.sync()
        self._check_groups("optimizer.step()")
        self._parked.begin_step()
        self._rates.lend(self.optimizer, self._owned)

    def _check_groups(self, expression: str) -> None:
        # Not in `sync`, which is told of every freezing: that may be one of another model.
        if (count := len(self.optimizer.param_groups)) < self._count:
            problem = f"finds {count} parameter groups, and there were {self._count}."
            raise BindError(expression, problem, (), "Leave groups where they are; they may be empty.")

    def _find_again(self) -> set[int]:
        """Follows modules that replaced others, in place, and returns the ``id`` of each earlier tensor."""
        if all(module._modules.get(local) is child for module, local, child in self._children):
            return set()
        try:
            read = survey(self._root)
        except UnsupportedError:
            return set()  # A lazy layer, which gets its shape from the first batch.
        self._children = _children(read)
        before = dict(self._owned)
        for path in self.names:
            if path in read.sites and self._sites[path] not in read.sites[path]:
                self._sites[path], self._owned[path] = read.sites[path][0], read.parameters[path]
                self._parked.take(path)
        present = {id(tensor) for tensor in self._owned.values()}
        for tensor in before.values():
            if id(tensor) not in present:
                self.optimizer.state.pop(tensor, None)
        return set(map(id, before.values()))

    def _present(self) -> dict[str, torch.Tensor | None]:
        """Returns the tensors that are there now; of names that were tied since, the first one has the tensor."""
        found: dict[str, torch.Tensor | None] = {}
        seen: set[int] = set()
        for path, (module, local) in self._sites.items():
            tensor = module._parameters[local]
            found[path] = None if id(tensor) in seen else tensor
            seen.add(id(tensor))
        return found

    def _read_groups(self) -> None:
        """Takes note of groups that were added by hand and of parameters that were moved among them, in place."""
        groups = self.optimizer.param_groups
        self._count = len(groups)
        places = {id(p): number for number, group in enumerate(groups) for p in group["params"]}
        for path, tensor in self._owned.items():
            self._groups[path] = places.get(id(tensor), self._groups[path])

    def _carry(self, path: str, tensor: torch.Tensor | None, state: State | None) -> None:
        """Carries the state of one parameter to where it belongs now, in place."""
        if tensor is not None and tensor.shape != self._owned[path].shape:
            # Moments of another shape are of no use.
            state = None
            self._parked.take(path)
        if tensor is None or not tensor.requires_grad:
            self._parked.park(path, state)
        elif moments := state or self._parked.take(path):
            self.optimizer.state[tensor] = moments
        if tensor is not None:
            self._owned[path] = tensor


def bind(
    optimizer: Optimizer, model: nn.Module, *selectors: Choice, rules: Sequence[Rule] = (), moments: Moments = "keep"
) -> Binding:
    """Makes an optimizer follow what is frozen in a model, from now on.

    Frozen parameters leave the optimizer, and join it again when they thaw, in the group that they had or that a rule
    names. Groups are never added or removed later, so learning-rate schedulers stay in step; make them after binding.

    Args:
        optimizer: any optimizer of PyTorch except L-BFGS.
        model: the model.
        selectors: the part of the model that the optimizer is for; without them, all of it. They are needed where
            there are several optimizers.
        rules: options by selector, ``Rule("**.bias", weight_decay=0.0)``; `layerwise` makes those of layer-wise
            learning-rate decay. Of two rules the later one decides, option by option.
        moments: what happens to the moments of frozen parameters. ``"keep"``: they stay, and are there again after a
            thaw, bitwise. ``"cpu"``: the same, in main memory. ``"release"``: they are dropped, and AdamW holds exactly
            8 bytes for each trainable float32 value, beside its counters.

    Returns:
        A binding, which saves and loads the optimizer's state by name.

    Raises:
        BindError: the optimizer is bound already, or two would have one parameter; a rule has an option that the
            optimizer lacks, or comes too late for a scheduler; `moments` is not one of the three.
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
    if isinstance(optimizer, LBFGS):
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
    if _conflict(optimizer, read, names) is not None:
        gc.collect()  # an optimizer that nothing refers to but its own hooks is in nobody's way
        if error := _conflict(optimizer, read, names):
            raise error
    binding = Binding(optimizer, read, names, assigned(optimizer, read, names, rules), parked)
    binding.sync()
    return binding


_LIVE: weakref.WeakSet[Binding] = weakref.WeakSet()


def _trains(tensor: torch.Tensor | None) -> bool:
    return tensor is not None and tensor.requires_grad


def _children(read: Survey) -> tuple[tuple[nn.Module, str, nn.Module | None], ...]:
    return tuple((module, *entry) for module in read.modules.values() for entry in module._modules.items())


def _conflict(optimizer: Optimizer, read: Survey, names: Sequence[str]) -> BindError | None:
    wanted = {id(read.parameters[path]): path for path in names}
    for other in _LIVE:
        if other.optimizer is optimizer:
            return BindError(
                "bind(optimizer, model)",
                f"binds an optimizer that is bound already, to {len(other.names)} parameters.",
                (),
                "Bind once, and keep what it returns: binding = bind(optimizer, model).",
            )
        if both := [wanted[id(tensor)] for tensor in other._owned.values() if id(tensor) in wanted]:
            return BindError(
                "bind(optimizer, model)",
                f"would give {len(both)} of {len(names)} parameters to two optimizers.",
                tuple(both),
                'Say which part each is for: bind(optimizer, model, "generator").',
            )
    return None
