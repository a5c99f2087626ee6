"""The guard, the audit of a loss and the report."""
