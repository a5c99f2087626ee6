"""Holding a frozen module: its mode, its calls and its buffers."""
