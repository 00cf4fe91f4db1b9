"""The streamer's side: `limpid publish` encodes, pushes, watches, trains and uploads. It needs no Ray."""
