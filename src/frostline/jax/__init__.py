"""frostline for JAX: hold part of a network still while the rest learns, in any pytree.

Example:
    >>> import frostline.jax as fj
    >>> params = {"body": {"w": jnp.ones((4, 4))}, "head": {"w": jnp.ones((4, 2))}}
    >>> trained, rest = fj.split(params, "head")
    >>> sorted(fj.trainable(trained)), sorted(fj.trainable(rest))
    (['head.w'], ['body.w'])
"""

import importlib
import typing

from frostline._core.names import no_such_name as _no_such_name
from frostline.jax._freezing.freezing import follow, freeze, mask, plan, thaw, trainable
from frostline.jax._freezing.gradient import grad, value_and_grad
from frostline.jax._freezing.marked import strip
from frostline.jax._freezing.parts import join, split
from frostline.jax._uses.use import Frozen

if typing.TYPE_CHECKING:
    from frostline._core.audit import Audit
    from frostline.jax._cache.cache import FeatureCache
    from frostline.jax._cost.cost import cost
    from frostline.jax._freezing.preview import blocks, select
    from frostline.jax._freezing.ties import tie
    from frostline.jax._inspection.audit import audit
    from frostline.jax._inspection.guard import guard
    from frostline.jax._inspection.report import report
    from frostline.jax._lean.lean import lean
    from frostline.jax._line.line import FrostLine, frostline
    from frostline.jax._training.delta import load_delta, save_delta
    from frostline.jax._training.driver import Driver
    from frostline.jax._training.optimizer import optimizer
    from frostline.jax._training.run import load_run, save_run

__all__ = [
    "Audit",
    "Driver",
    "FeatureCache",
    "FrostLine",
    "Frozen",
    "audit",
    "blocks",
    "cost",
    "follow",
    "freeze",
    "frostline",
    "grad",
    "guard",
    "join",
    "lean",
    "load_delta",
    "load_run",
    "mask",
    "optimizer",
    "plan",
    "report",
    "save_delta",
    "save_run",
    "select",
    "split",
    "strip",
    "thaw",
    "tie",
    "trainable",
    "value_and_grad",
]


_LATER = {
    "Audit": "_core.audit",
    "Driver": "jax._training.driver",
    "FeatureCache": "jax._cache.cache",
    "FrostLine": "jax._line.line",
    "audit": "jax._inspection.audit",
    "blocks": "jax._freezing.preview",
    "cost": "jax._cost.cost",
    "frostline": "jax._line.line",
    "guard": "jax._inspection.guard",
    "lean": "jax._lean.lean",
    "load_delta": "jax._training.delta",
    "load_run": "jax._training.run",
    "optimizer": "jax._training.optimizer",
    "report": "jax._inspection.report",
    "save_delta": "jax._training.delta",
    "save_run": "jax._training.run",
    "select": "jax._freezing.preview",
    "tie": "jax._freezing.ties",
}
"""What is imported when it is asked for: most programs use a few of these names, and pay for no other."""


if not typing.TYPE_CHECKING:  # a type checker would take each name for one that there is

    def __getattr__(name: str) -> typing.Any:
        if name in _LATER:
            return getattr(importlib.import_module(f"frostline.{_LATER[name]}"), name)
        raise _no_such_name(__name__, name, __all__)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
