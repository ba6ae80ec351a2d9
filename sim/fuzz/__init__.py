"""Differential testing: random programs, run on every device, compared byte by byte and cycle by cycle."""
