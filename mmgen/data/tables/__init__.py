"""Import of CSV files and folders of files as modalities."""
