"""Bindings: an optimizer that frozen parameters leave, and thawed ones join, with their moments."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from torch import Tensor
from torch.optim import Optimizer

from frostline._core.errors import BindError
from frostline._core.selecting.nearby import closest
from frostline.torch._freezing.held_modules import FOLLOWERS
from frostline.torch._freezing.survey import Survey
from frostline.torch._training.blank import blank_moments
from frostline.torch._training.groups import check_any, check_grouped
from frostline.torch._training.layout import BuiltLayout, asked_by_position, by_name, by_position, in_layout, put_back
from frostline.torch._training.members import Members, trains
from frostline.torch._training.moments import ParkedMoments, State
from frostline.torch._training.named_state import FORMAT, check_fits, load, saved
from frostline.torch._training.rates import Rates


class Binding:
    """Keeps an optimizer to the trainable parameters and saves its state by name; :func:`bind` returns it.

    It lasts as long as the optimizer, or until `release`, or to the end of a ``with`` block.

    Attributes:
        optimizer: the optimizer.
        names: the parameters that it is for, frozen or not, in model order.
    """

    def __init__(
        self,
        chain: Sequence[Any],
        read: Survey,
        names: tuple[str, ...],
        groups: dict[str, int],
        parked: ParkedMoments,
        layout: BuiltLayout,
    ) -> None:
        self._chain: tuple[Any, ...] = tuple(chain)
        self.optimizer: Optimizer = chain[-1]
        self.names = names
        self._groups, self._parked, self._layout = groups, parked, layout
        self._members = Members(read, names)
        self._count = len(self.optimizer.param_groups)
        self._known: tuple[tuple[int, bool], ...] = ()
        self._rates = Rates()
        self._released = False
        self._attach()

    def sync(self) -> None:
        """Makes the optimizer hold what trains now, and nothing else, in place; idempotent.

        This happens after each freezing and thawing, and before each step for what was frozen by hand. A module that
        replaces another one trains in its stead, without moments. Groups may be added by hand, and parameters moved
        among them; where some were removed, nothing is done, and the next step fails.
        """
        if self._released:
            return
        self._rates.take_back(self.optimizer)
        if len(self.optimizer.param_groups) < self._count:
            return
        replaced = self._members.find_again(self.optimizer, self._parked)
        present = self._members.present()
        known = tuple((id(tensor), trains(tensor)) for tensor in present.values())
        if known == self._known:
            return
        if self._known:
            self._read_groups()
        self._known = known
        own = replaced.union(map(id, self._members.owned.values()), map(id, present.values()))
        self._layout.notice(self.optimizer, own)
        # All are taken out first: tensors may have changed places.
        states = {path: self.optimizer.state.pop(self._members.owned[path], None) for path in present}
        for path, tensor in present.items():
            self._members.carry(self.optimizer, self._parked, path, tensor, states[path])
        for number, group in enumerate(self.optimizer.param_groups):
            # What else the optimizer has, such as a loss with parameters, stays where it is.
            others = [place for place, p in enumerate(group["params"]) if id(p) not in own]
            inside = [path for path in self.names if self._groups[path] == number and trains(present[path])]
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
        if unknown := [path for path in factors if path not in self._members.sites]:
            problem = (
                f"names {len(unknown)} of {len(factors)} paths that are not among the {len(self.names)} bound ones:"
            )
            near = closest(unknown[0], self.names) or list(self.names[:3])
            raise BindError("binding.scale(factors)", problem, tuple(unknown), f"Write one of binding.names: {near}.")
        self._rates.factors = {path: factor for path, factor in factors.items() if factor != 1.0}

    def rates(self) -> dict[str, float]:
        """Returns the learning rate at which each parameter moves in the next step: 0 for a frozen one.

        Example:
            >>> from frostline.torch import bind, freeze
            >>> model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.Linear(8, 2, bias=False))
            >>> binding = bind(torch.optim.SGD(model.parameters(), lr=0.1), model)
            >>> handle = freeze(model, "[0]")
            >>> binding.scale({"1.weight": 0.5})
            >>> binding.rates()
            {'0.weight': 0.0, '1.weight': 0.05}
        """
        self.sync()
        rate = {id(p): float(group["lr"]) for group in self.optimizer.param_groups for p in group["params"]}
        inside = self._members.owned.items()
        return {path: rate.get(id(tensor), 0.0) * self._rates.factor(path) for path, tensor in inside}

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the optimizer by name: options of the groups, and moments, of frozen parameters too.

        Another frozen set, another order or another machine can load it, where PyTorch's own state dict assigns
        moments by position. An optimizer without moments gets places for them, so that
        ``torch.distributed.checkpoint`` has something to read into.
        """
        state = self._saved("binding.state_dict()")
        if not state["state"]:
            state["state"] = blank_moments(self.optimizer, self._members.owned)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over a state that was saved by name, whatever was frozen then and is frozen now.

        Moments of trainable parameters go into the optimizer; those of frozen ones are kept, moved or released, as
        `bind` was told. A parameter without moments starts with fresh ones.

        Args:
            state: of `state_dict`, or of the optimizer's own ``state_dict()``. One of an optimizer that was not bound
                has no names, and is taken where its positions are surely those of this one.

        Raises:
            BindError: it is not such a state, or it speaks of other parameters or groups. Nothing is changed then.
        """
        self._load("binding.load_state_dict(state)", state)

    def check_bound(self, expression: str) -> Mapping[str, Tensor]:
        """Returns the tensors that the optimizer has by name, frozen or not.

        Raises:
            BindError: the binding was released.
        """
        self._check_bound(expression)
        self.sync()
        return {**self._members.owned, **self._layout.others}

    def check_fits(self, expression: str, state: Any) -> dict[str, Any]:
        """Returns a state by name, once it is known to fit.

        Args:
            expression: the call that loads it, for errors.
            state: as for `load_state_dict`.

        Raises:
            BindError: as in `load_state_dict`.
        """
        self._check_bound(expression)
        self.sync()
        others = self._layout.others
        if isinstance(state, Mapping) and state.get("format") != FORMAT and {"state", "param_groups"} <= state.keys():
            tensors = {**self._members.owned, **others}
            state = by_name(expression, self._layout, self.optimizer, state, tensors, self._groups)
        check_fits(expression, self.optimizer, self._members.owned, others, self._groups, state)
        return state

    def release(self) -> None:
        """Ends the binding: the optimizer gets back all that it was built with, moments too, and follows no longer.

        What is frozen stays frozen. The optimizer can be bound again, and another one can be bound to the parameters.
        """
        if self._released:
            return
        self.sync()
        self._released = True
        for handle in self._hooks:
            handle.remove()
        FOLLOWERS.discard(self)
        LIVE.discard(self)
        put_back(self._layout, self.optimizer, self._members.owned, self._groups)
        for path, tensor in self._members.owned.items():
            if moments := self._parked.take(path):
                self.optimizer.state[tensor] = moments

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        inside = sum(is_in for _, is_in in self._known)
        return f"Binding({type(self.optimizer).__name__}, {inside} of {len(self.names)} parameters in it)"

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_hooks", "_states")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Optimizers leave their hooks out of copies and pickles.
        self.__dict__.update(state, _known=())
        if not self._released:
            self._attach()

    def _attach(self) -> None:
        # The hooks keep the binding alive as long as the optimizer is.
        self._states: dict[Any, State] = {}
        self._hooks = [
            self.optimizer.register_step_pre_hook(lambda *_: self._begin_step()),
            self.optimizer.register_step_post_hook(lambda *_: self._rates.take_back(self.optimizer)),
            # A step that failed has given nothing back.
            self.optimizer.register_state_dict_pre_hook(lambda *_: self.sync()),
        ]
        for each in self._chain:
            # Most that wrap an optimizer ask it for its state; SAM saves its own parameter groups, and loads them.
            if isinstance(each, Optimizer) and type(each).state_dict is Optimizer.state_dict:
                self._hooks += [
                    each.register_state_dict_post_hook(lambda _, state: self._in_layout(state)),
                    each.register_load_state_dict_pre_hook(lambda each, state: self._begin_load(each, state)),
                    each.register_load_state_dict_post_hook(lambda _: self._end_load()),
                ]
        FOLLOWERS.add(self)
        LIVE.add(self)

    def _in_layout(self, state: dict[str, Any]) -> dict[str, Any]:
        if asked_by_position():
            return state
        return in_layout(self._layout, self._saved("optimizer.state_dict()"), state)

    def _saved(self, expression: str) -> dict[str, Any]:
        self._check_bound(expression)
        self.sync()
        self._check_groups(expression)
        return saved(self.optimizer, self._members.owned, self._layout.others, self._groups, self._parked)

    def _begin_load(self, each: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
        self._load("optimizer.load_state_dict(state)", state)
        self._states = dict(self.optimizer.state)
        return by_position(each)

    def _end_load(self) -> None:
        # PyTorch casts moments to the dtype of their parameter.
        self.optimizer.state.update(self._states)
        self._states = {}

    def _load(self, expression: str, state: Any) -> None:
        fitting = self.check_fits(expression, state)
        load(self.optimizer, self._members.owned, self._layout.others, self._parked, fitting)

    def _begin_step(self) -> None:
        self.sync()
        self._check_groups("optimizer.step()")
        check_grouped(self.optimizer, self._members.owned, self._groups)
        if not any(group["params"] for group in self.optimizer.param_groups) and not asked_by_position():
            check_any(self._members.root, self.names, [each.optimizer for each in LIVE])
        self._parked.begin_step()
        self._rates.lend(self.optimizer, self._members.owned)

    def _check_bound(self, expression: str) -> None:
        if self._released:
            problem = f"asks a binding that was released, of {len(self.names)} parameters."
            raise BindError(expression, problem, (), "Bind again: binding = bind(optimizer, model).")

    def _check_groups(self, expression: str) -> None:
        # Not in `sync`, which is told of every freezing: that may be one of another model.
        if (count := len(self.optimizer.param_groups)) < self._count:
            problem = f"finds {count} parameter groups, and there were {self._count}."
            raise BindError(expression, problem, (), "Leave groups where they are; they may be empty.")

    def _read_groups(self) -> None:
        """Takes note of groups that were added by hand and of parameters that were moved among them, in place."""
        groups = self.optimizer.param_groups
        self._count = len(groups)
        places = {id(p): number for number, group in enumerate(groups) for p in group["params"]}
        for path, tensor in self._members.owned.items():
            self._groups[path] = places.get(id(tensor), self._groups[path])


LIVE: weakref.WeakSet[Binding] = weakref.WeakSet()
