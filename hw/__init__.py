"""The machine: parameters, instruction set, control registers."""
