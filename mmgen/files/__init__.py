"""Safe files: written whole or not at all, by one process at a time, and read within bounds."""
