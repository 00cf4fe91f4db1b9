"""The model files that come with Limpid."""
