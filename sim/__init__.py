"""Simulators: functional, cycle-accurate, and the bench of the RTL."""
