"""Selectors, from the text of a pattern to the parameters that it names."""
