"""frostline for JAX: hold part of a network still while the rest learns, in any pytree.

Example:
    >>> import frostline.jax as fj
    >>> params = {"body": {"w": jnp.ones((4, 4))}, "head": {"w": jnp.ones((4, 2))}}
    >>> trained, rest = fj.split(params, "head")
    >>> sorted(fj.trainable(trained)), sorted(fj.trainable(rest))
    (['head.w'], ['body.w'])
"""

import typing

from frostline._core.audit import Audit as Audit
from frostline._core.names import no_such_name as _no_such_name
from frostline.jax._cache.cache import FeatureCache as FeatureCache
from frostline.jax._cost.cost import cost as cost
from frostline.jax._freezing.freezing import follow as follow
from frostline.jax._freezing.freezing import freeze as freeze
from frostline.jax._freezing.freezing import mask as mask
from frostline.jax._freezing.freezing import plan as plan
from frostline.jax._freezing.freezing import thaw as thaw
from frostline.jax._freezing.freezing import trainable as trainable
from frostline.jax._freezing.gradient import grad as grad
from frostline.jax._freezing.gradient import value_and_grad as value_and_grad
from frostline.jax._freezing.marked import strip as strip
from frostline.jax._freezing.parts import join as join
from frostline.jax._freezing.parts import split as split
from frostline.jax._freezing.preview import blocks as blocks
from frostline.jax._freezing.preview import select as select
from frostline.jax._freezing.ties import tie as tie
from frostline.jax._inspection.audit import audit as audit
from frostline.jax._inspection.guard import guard as guard
from frostline.jax._inspection.report import report as report
from frostline.jax._lean.lean import lean as lean
from frostline.jax._line.line import FrostLine as FrostLine
from frostline.jax._line.line import frostline as frostline
from frostline.jax._training.delta import load_delta as load_delta
from frostline.jax._training.delta import save_delta as save_delta
from frostline.jax._training.driver import Driver as Driver
from frostline.jax._training.optimizer import optimizer as optimizer
from frostline.jax._training.run import load_run as load_run
from frostline.jax._training.run import save_run as save_run
from frostline.jax._uses.use import Frozen as Frozen

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

if not typing.TYPE_CHECKING:  # a type checker would take each name for one that there is

    def __getattr__(name: str) -> object:
        raise _no_such_name(__name__, name, __all__)
