"""CSV files and folders of files, turned into modalities."""
