"""Checkpoint files: reading, comparing and merging them, and delta checkpoints; no framework."""
