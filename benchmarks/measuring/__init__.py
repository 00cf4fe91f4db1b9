"""What the benchmarks of the dataflow share: contestants in processes of their own, their memory, the plain loop."""
