"""Not learned: arrays in, arrays out; one algorithm a file."""
