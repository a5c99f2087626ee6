"""The demo: a network learns handwritten digits with its trunk frozen, and a guard proves that it never moved."""

from frostline.demo.program import run as run

__all__ = ["run"]
