"""Selectors: reading patterns, and finding the parameters that they match."""
