"""The demo: a real network learns on real scans with a part of it frozen, and proves that the part stayed still."""

from frostline.demo.program import perform as perform
from frostline.demo.program import run as run

__all__ = ["perform", "run"]
