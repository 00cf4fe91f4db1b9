"""Pixels in and out: sources, timeline, decoding, encoding, segments; the only place that imports av."""
