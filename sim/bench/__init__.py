"""The RTL bench: the machine's Verilog in Verilator, on the DRAM model of `covta.sim.dram`.

`build.py` makes a shared library of a configuration (cached by `cache.py`), `bench.cpp` drives
the model inside it, `model.py` is that library for Python.
`covta.runtime.rtl` makes a device of it.
"""
