"""What follows from any model's distributions: drawing z, importance weights, divergences."""
