"""Optimizers, drivers and delta checkpoints that follow what is frozen."""
