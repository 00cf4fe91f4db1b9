"""What stays: model files, segments, tables, manifests."""
