"""Distributions of z, and how the posterior given a subset of modalities is computed."""
