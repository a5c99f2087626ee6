"""Frozen parts that keep less for the backward pass."""
