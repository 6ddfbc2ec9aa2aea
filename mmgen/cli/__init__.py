"""The command line: the app, and a file per verb."""
