"""Discovery and loading of plugins, and the registry of modality kinds."""
