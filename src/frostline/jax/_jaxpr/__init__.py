"""Readings of a jaxpr: dependence, operations, saved values, and its division in two."""
