"""The recipes of the shipped weights, one YAML file each: the complete run that made them."""
