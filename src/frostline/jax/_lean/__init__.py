"""Losses whose frozen parts keep less for the backward pass."""
