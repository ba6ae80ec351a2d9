"""The functional simulator: what a program does, without when."""
