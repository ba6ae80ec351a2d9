"""Differential testing: random programs, run on every device, compared to the byte and cycle."""
