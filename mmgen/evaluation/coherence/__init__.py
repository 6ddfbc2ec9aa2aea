"""Coherence: whether what is generated is recognised as what was given."""
