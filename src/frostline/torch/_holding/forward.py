"""The forward of a module while it is frozen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import CodeType
from typing import Any

from torch import nn

from frostline.torch._holding.calls import Trusted, call_still

ATTRIBUTE = "_frostline_forward"
REPLICATE = "_replicate_for_data_parallel"


class StandIn(ABC):
    """Stands in for ``module.forward``.

    It is set on the instance, so it is copied and pickled with the module, and a direct call of
    ``module.forward`` goes through it too.

    Attributes:
        module: whose forward it is.
        earlier: what stood in for it before; None is the forward of its class.
    """

    def __init__(self, module: nn.Module, earlier: Callable[..., Any] | None) -> None:
        self.module, self.earlier = module, earlier

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The forward that this one stands for; ``inspect.signature`` reads it."""
        return self.earlier or type(self.module).forward.__get__(self.module)

    @property
    def __code__(self) -> CodeType:
        """Of the forward that this one stands for; ``torch.export`` says where it is."""
        return self.__wrapped__.__code__

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What a call computes."""


class StillForward(StandIn):
    """Stands in for ``module.forward`` while the module is frozen."""

    def __init__(self, module: nn.Module) -> None:
        earlier = module.__dict__.get("forward")
        super().__init__(module, earlier.earlier if isinstance(earlier, StillForward) else earlier)
        self.trusted: Trusted = set()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if ATTRIBUTE not in self.module.__dict__:  # removed, and still inside somebody's wrapper
            return self.__wrapped__(*args, **kwargs)
        return call_still(self.module, self.__wrapped__, self.trusted, args, kwargs)


class Replicate:
    """Stands in for what ``DataParallel`` calls to copy a module to another device.

    A replica gets the attributes of the original as they are, and so a forward that calls the
    original: on the wrong device, with the wrong weights.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self) -> nn.Module:
        replica: nn.Module = type(self.module)._replicate_for_data_parallel(self.module)
        del replica.__dict__[REPLICATE]
        install(replica)
        return replica


def install(module: nn.Module) -> None:
    """Makes every call of the module a still one, in place."""
    module.__dict__[ATTRIBUTE] = module.__dict__["forward"] = StillForward(module)
    module.__dict__[REPLICATE] = Replicate(module)


def remove(module: nn.Module) -> None:
    """Gives the module its own forward back, in place.

    Another library may have wrapped the forward since; inside its wrapper ours only passes on.
    """
    installed: StillForward | None = module.__dict__.pop(ATTRIBUTE, None)
    module.__dict__.pop(REPLICATE, None)
    in_place = module.__dict__.get("forward") is installed
    if installed is not None and in_place:
        del module.__dict__["forward"]
        if installed.earlier is not None:
            module.__dict__["forward"] = installed.earlier
