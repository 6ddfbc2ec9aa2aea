"""Sources of data sets: built in, synthetic, or fetched."""
