"""What freezing costs, as ratios to freezing by hand: ``python -m benchmarks``."""
