"""Data sets: one format on disk, batches on the device, and the sources that write the format."""
