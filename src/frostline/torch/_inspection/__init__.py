"""Reports, checks and proofs of what is frozen."""
