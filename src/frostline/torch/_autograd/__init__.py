"""Readings of autograd's graph: saved tensors, operations and runs without data."""
