"""Freezing and thawing in place."""
