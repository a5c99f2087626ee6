"""The tensors of a file by name, and how two files differ; no framework."""
