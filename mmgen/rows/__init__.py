"""Rows in bulk, each with whatever it has: q(z | x_S) of its own S, what it lacks, log p(x_S)."""
