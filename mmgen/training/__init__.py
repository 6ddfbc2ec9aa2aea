"""A run from its plan to its end: memory, loop, folder, and what stopped being finite."""
