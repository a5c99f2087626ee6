"""What is behind the frost line: where a network is cut, and the store of what was computed there. No framework."""
