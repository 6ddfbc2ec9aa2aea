"""Tables whose empty cells are filled, CSV and Parquet, row by row."""
