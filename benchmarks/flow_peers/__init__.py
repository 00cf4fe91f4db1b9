"""The same stages for every contestant of flow.py: a source, one that makes frames, four that work, one that counts."""
