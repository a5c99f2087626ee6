"""The guard, the check with its findings, and the report."""
