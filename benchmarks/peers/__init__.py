"""Other programs that benchmarks compare with, each behind a few lines."""
