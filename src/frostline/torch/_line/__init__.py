"""The frost line and the two parts of a model that it divides."""
