"""Freezing and thawing trees: marks, selections and gradients of the trainable part."""
