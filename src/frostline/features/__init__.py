"""The place of the cut at the frost line, and the files of a feature cache; no framework."""
