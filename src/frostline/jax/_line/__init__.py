"""The frost line and the two parts of a function that it divides."""
