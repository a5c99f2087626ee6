"""Folding of frozen batch norms into the frozen convolutions before them."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, final

import torch
from torch import nn

from frostline.torch._holding.classes import WRITABLE, WRITABLE_IN_BACKWARD
from frostline.torch._holding.patch import Patch, remove_all
from frostline.torch._lean.folded import Folded
from frostline.torch._lean.pairs import pairs


class _FoldedCalls(threading.local):
    """The pairs that the running forward of this thread calls folded, with the results of their convolutions."""

    def __init__(self) -> None:
        self.results: dict[int, torch.Tensor | None] = {}


_running = _FoldedCalls()


@final
class CallingForward(Patch):
    """The forward of a module that calls pairs; they are folded only in such a call."""

    def __init__(self, module: nn.Module, folded: list[Folded]) -> None:
        super().__init__(module)
        self.folded = folded
        self.traits = _traits(module)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Computes the module's own forward, with its pairs folded if that is possible now."""
        outer = _running.results
        _running.results = mine = dict.fromkeys(map(id, self._possible()))
        try:
            result = self.__wrapped__(*args, **kwargs)
        finally:
            _running.results = outer
        # No norm has taken the result of a convolution: the forward took a path that was not traced.
        lost = {key for key, left in mine.items() if left is not None}
        self.folded = [one for one in self.folded if id(one) not in lost]
        return self.call(*args, **kwargs) if lost else result

    def _possible(self) -> list[Folded]:
        # Another path through the forward than the traced one may read the result of the convolution.
        if torch._C._functorch.peek_interpreter_stack() is not None or _traits(self.module) != self.traits:
            return []
        return [one for one in self.folded if one.is_possible]


@final
class ConvForward(Patch):
    """The forward of the convolution of a pair."""

    def __init__(self, folded: Folded) -> None:
        super().__init__(folded.conv)
        self.folded = folded

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Computes the result of the norm if the pair is folded."""
        if id(self.folded) not in _running.results or not _is_folded(self.folded, args):
            return self.__wrapped__(*args, **kwargs)
        result = _running.results[id(self.folded)] = self.folded.call(*args, **kwargs)
        return result


@final
class NormForward(Patch):
    """The forward of the norm of a pair."""

    def __init__(self, folded: Folded) -> None:
        super().__init__(folded.norm)
        self.folded = folded

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Returns its input if the convolution has computed the result."""
        if args and args[0] is _running.results.get(id(self.folded), ()):
            _running.results[id(self.folded)] = None
            return args[0]
        if self.module.training:
            self.folded.forget()
        return self.__wrapped__(*args, **kwargs)


def _traits(module: nn.Module) -> dict[str, Any]:
    """Returns the plain attributes of a module, which may decide the path of its forward; both modes were traced."""
    plain = (bool, int, float, str, type(None))
    ours = ("training", WRITABLE, WRITABLE_IN_BACKWARD)
    return {name: value for name, value in vars(module).items() if isinstance(value, plain) and name not in ours}


def _is_folded(folded: Folded, args: tuple[Any, ...]) -> bool:
    """Whether a call of the convolution gets a batch in float32."""
    x = args[0] if args else None
    return (
        isinstance(x, torch.Tensor)
        and x.dtype is torch.float32
        and x.dim() == folded.conv.weight.dim()
        and not torch.is_autocast_enabled(x.device.type)
    )


def folded_weights(model: nn.Module) -> Iterator[torch.Tensor]:
    """Returns the folded weights that a model keeps between steps, like parameters."""
    for module in model.modules():
        forward = module.__dict__.get("forward")
        while forward is not None:
            if isinstance(forward, ConvForward):
                yield from (t for t in (forward.folded.weight, forward.folded.bias) if t is not None)
            forward = getattr(forward, "earlier", None)


def attach(model: nn.Module) -> Callable[[], None]:
    """Folds frozen batch norms into the frozen convolutions before them, in place.

    In a call of the module that calls both, the convolution computes with folded weights and the norm returns its
    input. State dict, parameters and buffers are the originals. After a write to one of them the weights are folded
    again, except after a write through ``weight.data.mul_(...)``. Results equal those of the unfolded pair, up to
    rounding.

    A pair is folded while both are frozen and the norm is in evaluation mode, in float32 outside autocast; thawing one
    ends it. Some pairs are never folded: modules with two places in the model or a tied tensor, a convolution whose
    result is read by anything but the norm, subclasses, modules with hooks or a replaced forward, and pairs in a
    forward that ``torch.fx`` cannot trace.

    Args:
        model: the model in which to look for pairs.

    Returns:
        A function that undoes it.

    Source: Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 3.2.

    Example:
        >>> from frostline.torch._lean.folding import attach
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval().requires_grad_(False)
        >>> x = torch.ones(1, 3, 8, 8)
        >>> before = model(x)
        >>> detach = attach(model)
        >>> torch.allclose(model(x), before)
        True
        >>> detach()
        >>> torch.equal(model(x), before)
        True
    """
    callers: dict[nn.Module, list[Folded]] = defaultdict(list)
    for pair in pairs(model):
        callers[pair.caller].append(Folded(pair))
    patches: list[Patch] = []
    for caller, folded in callers.items():
        patches.append(CallingForward(caller, folded))
        patches += [ConvForward(one) for one in folded] + [NormForward(one) for one in folded]
    return lambda: remove_all(patches)
