"""Frozen uses of a layer."""
