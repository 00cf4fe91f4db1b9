"""What moves between stages: frozen values, checked on construction; no I/O."""
