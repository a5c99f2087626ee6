"""Holding a frozen module still: its mode, its buffers and its calls."""
