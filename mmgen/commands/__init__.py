"""The verbs of the command line, a file each; torch is imported when a verb runs."""
