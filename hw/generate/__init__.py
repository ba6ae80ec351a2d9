"""From a configuration to files that FPGA and ASIC flows take.

Start in `bundle.py`: it lists every file and writes them at once. `verilog.py` turns a component
into Verilog text; `wrappers.py`, `constraints.py` and `fusesoc.py` write what stands around it.
"""
