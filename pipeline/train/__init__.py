"""Learning: losses, data, the training loop and the metrics that judge it."""
