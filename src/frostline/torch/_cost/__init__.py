"""The cost of a step, in operations and bytes."""
