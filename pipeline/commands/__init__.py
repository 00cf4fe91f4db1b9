"""The commands that need no Ray, one a file: each has `main(argv) -> int`, the exit code."""
