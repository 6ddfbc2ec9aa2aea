"""The building blocks of every network: layers, replicated nets, Gaussian posteriors."""
