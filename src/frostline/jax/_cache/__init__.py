"""The feature cache: the values below the frost line, computed once for each sample."""
