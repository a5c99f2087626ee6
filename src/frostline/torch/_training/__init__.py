"""Optimizers, drivers and delta checkpoints that follow the frozen set."""
