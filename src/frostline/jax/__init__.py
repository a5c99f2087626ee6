"""frostline for JAX: hold part of a network still while the rest learns, in any pytree.

Example:
    >>> import frostline.jax as fj
    >>> params = {"body": {"w": jnp.ones((4, 4))}, "head": {"w": jnp.ones((4, 2))}}
    >>> params = fj.freeze(params, "body")
    >>> sorted(fj.trainable(params))
    ['head.w']
"""

from frostline.jax._audit import Audit as Audit
from frostline.jax._audit import audit as audit
from frostline.jax._cache import FeatureCache as FeatureCache
from frostline.jax._cost import cost as cost
from frostline.jax._delta import load_delta as load_delta
from frostline.jax._delta import save_delta as save_delta
from frostline.jax._driver import Driver as Driver
from frostline.jax._freezing import follow as follow
from frostline.jax._freezing import freeze as freeze
from frostline.jax._freezing import mask as mask
from frostline.jax._freezing import plan as plan
from frostline.jax._freezing import thaw as thaw
from frostline.jax._freezing import trainable as trainable
from frostline.jax._frozen import Frozen as Frozen
from frostline.jax._gradient import grad as grad
from frostline.jax._gradient import value_and_grad as value_and_grad
from frostline.jax._guard import guard as guard
from frostline.jax._lean import lean as lean
from frostline.jax._line import Line as Line
from frostline.jax._line import frostline as frostline
from frostline.jax._marked import strip as strip
from frostline.jax._optimizer import optimizer as optimizer
from frostline.jax._parts import join as join
from frostline.jax._parts import split as split
from frostline.jax._report import report as report

__all__ = [
    "Audit",
    "Driver",
    "FeatureCache",
    "Frozen",
    "Line",
    "audit",
    "cost",
    "follow",
    "freeze",
    "frostline",
    "grad",
    "guard",
    "join",
    "lean",
    "load_delta",
    "mask",
    "optimizer",
    "plan",
    "report",
    "save_delta",
    "split",
    "strip",
    "thaw",
    "trainable",
    "value_and_grad",
]
