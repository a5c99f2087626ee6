"""The demo in JAX, with Optax."""

from frostline.demo.with_jax.learner import alone as alone
from frostline.demo.with_jax.learner import beginner as beginner
from frostline.demo.with_jax.network import new_head as new_head
from frostline.demo.with_jax.sharing import share as share
from frostline.demo.with_jax.words import WORDS as WORDS

__all__ = ["WORDS", "alone", "beginner", "new_head", "share"]
