"""z of rows in bulk, and how unusual each is, as files of numbers."""
