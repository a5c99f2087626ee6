"""Runtimes for the part below the frost line."""
