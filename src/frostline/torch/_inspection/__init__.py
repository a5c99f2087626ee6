"""Reports, checks and proofs of the frozen set."""
