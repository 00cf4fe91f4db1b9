"""The commands that may use Ray, one a file."""
