"""The cycle-accurate simulator: what the machine does, and when."""
