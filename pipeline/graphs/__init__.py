"""The logical graphs that come with Limpid."""
