"""The demo in PyTorch."""

from frostline.demo.with_torch.learner import alone as alone
from frostline.demo.with_torch.learner import beginner as beginner
from frostline.demo.with_torch.network import new_head as new_head
from frostline.demo.with_torch.sharing import share as share
from frostline.demo.with_torch.words import WORDS as WORDS

__all__ = ["WORDS", "alone", "beginner", "new_head", "share"]
