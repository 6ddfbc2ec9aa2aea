"""Files that are whole or not there, read within bounds, written by one process."""
