"""Likelihoods in nats: estimators, and the tables of what was estimated."""
