"""An array of a vendor's multipliers computes what the generic one does, in the same cycles."""

import pytest
from amaranth.hdl import Assert, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from covta.hw.generate.cells import cell_models
from covta.hw.params import Config
from covta.hw.rtl.mac_array import MacArray

from .prove import ProofError, prove

pytestmark = pytest.mark.formal

CELLS = Config.model_construct(
    batch=1,
    block_in=2,
    block_out=1,
    inp_bits=4,
    wgt_bits=2,
    acc_bits=16,
    dsp_pack=False,
    dsp_cell="mult18x18d",
)


class SameSums(wiring.Component):
    """Both arrays on the same operands; `late` cycles more of one make the claim false."""

    def __init__(self, late: int = 0) -> None:
        self.late = late
        super().__init__(
            {"inp": In(CELLS.inp_elem_bits), "wgt": In(CELLS.wgt_elem_bits), "clear": In(1)}
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.cells = cells = MacArray(CELLS)
        m.submodules.generic = generic = MacArray(CELLS.model_copy(update={"dsp_cell": "generic"}))
        wgt = self.wgt
        for _ in range(self.late):
            m.d.sync += (delayed := Signal.like(self.wgt)).eq(wgt)
            wgt = delayed
        m.d.comb += [
            *(array.inp.eq(self.inp) for array in (cells, generic)),
            *(array.clear.eq(self.clear) for array in (cells, generic)),
            cells.wgt.eq(self.wgt),
            generic.wgt.eq(wgt),
        ]
        # The registers of the cells begin with anything.
        age = Signal(range(cells.latency + 1))
        filled = Signal()
        m.d.comb += filled.eq(age == cells.latency)
        with m.If(~filled):
            m.d.sync += age.eq(age + 1)
        m.d.comb += Assert(~filled | (cells.sum.as_value() == generic.sum.as_value()))
        return m


def test_cells_multiply_like_the_generic_array(tmp_path):
    prove(SameSums(), tmp_path, cells=cell_models(CELLS), max_steps=8)


def test_a_late_operand_is_found(tmp_path):
    with pytest.raises(ProofError, match="proof did fail"):
        prove(SameSums(late=1), tmp_path, cells=cell_models(CELLS), max_steps=8)
