"""What a model is worth, in numbers: how large it grows, how well it explains held-out data."""
