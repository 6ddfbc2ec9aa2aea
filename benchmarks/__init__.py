"""How fast mmgen is, against what else does the same: ``python -m benchmarks``."""
