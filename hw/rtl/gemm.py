"""The GEMM engine: one micro-op a cycle through the multiplier array, whatever the order of dst."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from covta.hw.isa import isa
from covta.hw.microarchitecture import GEMM_RESULT_CYCLES
from covta.hw.params import Config
from covta.hw.rtl.interfaces import layout_of
from covta.hw.rtl.mac_array import MacArray
from covta.hw.rtl.scratchpads import ACC_BANKS


def gemm_layout(cfg: Config) -> data.StructLayout:
    """What one GEMM instruction needs of its fields."""
    u, a, i, w = cfg.log2_uop_depth, cfg.log2_acc_depth, cfg.log2_inp_depth, cfg.log2_wgt_depth
    return data.StructLayout(
        {
            "reset": 1,
            "uop_bgn": u,
            "uop_end": u + 1,
            "iter_out": 14,
            "iter_in": 14,
            "dst_factor_out": a,
            "dst_factor_in": a,
            "src_factor_out": i,
            "src_factor_in": i,
            "wgt_factor_out": w,
            "wgt_factor_in": w,
        }
    )


class LoopNest(wiring.Component):
    """Counts ``for y: for x: for u`` and the affine offsets of some operands, one step a cycle.

    A start accepted in cycle ``t`` makes its first step in ``t + 1``; the next start is accepted in
    the cycle of the last step, so instructions follow each other without a bubble.

    Parameters
    ----------
    uop_bits : int
        Width of a micro-op address.
    operands : dict of str to int
        Name and offset width of each operand.

    Members
    -------
    start, ready, load : ``start`` with the fields below, taken while ``ready``
    step : the consumer takes this step
    active, uop, first, last, <operand>_offset : the step
    """

    def __init__(self, *, uop_bits: int, operands: dict[str, int]) -> None:
        self.operands = operands
        members: dict[str, object] = {
            "start": In(1),
            "ready": Out(1),
            "uop_bgn": In(uop_bits),
            "uop_end": In(uop_bits + 1),
            "iter_out": In(14),
            "iter_in": In(14),
            "step": In(1),
            "active": Out(1),
            "uop": Out(uop_bits),
            "last": Out(1),
        }
        for name, bits in operands.items():
            members |= {
                f"{name}_factor_out": In(bits),
                f"{name}_factor_in": In(bits),
                f"{name}_offset": Out(bits),
            }
        self.uop_bits = uop_bits
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bgn = Signal(self.uop_bits)
        final = Signal(self.uop_bits)
        x_left = Signal(14)
        y_left = Signal(14)
        iter_in = Signal(14)
        u_end = Signal()
        x_end = Signal()
        y_end = Signal()
        advance = self.active & self.step
        m.d.comb += [
            u_end.eq(self.uop == final),
            x_end.eq(x_left == 1),
            y_end.eq(y_left == 1),
            self.last.eq(self.active & u_end & x_end & y_end),
            self.ready.eq(~self.active | (self.last & self.step)),
        ]
        with m.If(advance):
            m.d.sync += self.uop.eq(Mux(u_end, bgn, self.uop + 1))
            with m.If(u_end):
                m.d.sync += x_left.eq(Mux(x_end, iter_in, x_left - 1))
                with m.If(x_end):
                    m.d.sync += y_left.eq(y_left - 1)
            with m.If(self.last):
                m.d.sync += self.active.eq(0)
        load = self.start & self.ready
        with m.If(load):
            m.d.sync += [
                self.active.eq(1),
                bgn.eq(self.uop_bgn),
                self.uop.eq(self.uop_bgn),
                final.eq(self.uop_end - 1),
                x_left.eq(self.iter_in),
                iter_in.eq(self.iter_in),
                y_left.eq(self.iter_out),
            ]
        for name, bits in self.operands.items():
            factor_out = Signal(bits, name=f"{name}_fo")
            factor_in = Signal(bits, name=f"{name}_fi")
            row = Signal(bits, name=f"{name}_row")
            offset = getattr(self, f"{name}_offset")
            total = Signal(bits, name=f"{name}_next")
            m.d.comb += total.eq(Mux(x_end, row, offset) + Mux(x_end, factor_out, factor_in))
            with m.If(load):
                m.d.sync += [
                    factor_out.eq(getattr(self, f"{name}_factor_out")),
                    factor_in.eq(getattr(self, f"{name}_factor_in")),
                    row.eq(0),
                    offset.eq(0),
                ]
            with m.Elif(advance & u_end):
                m.d.sync += offset.eq(total)
                with m.If(x_end):
                    m.d.sync += row.eq(total)
        return m


class GemmEngine(wiring.Component):
    """Executes GEMM instructions, one micro-op a cycle, no stalls, back to back.

    A start accepted in cycle ``t`` issues its first micro-op in ``i = t + 1``. Of a micro-op
    issued in ``i``: inp and wgt addresses are presented in ``i + 3`` (``i + 4`` with
    ``cfg.dsp_pack``), the acc address in ``i + 7``, the result in ``i + 8`` and, out of a register,
    in ``i + 9``. `done` follows the last result by one cycle (``i_last + 10``).

    Members
    -------
    start : ``In(stream of gemm_layout)``, not empty, within bounds
    uop_addr, uop_data : port A of the uop scratchpad
    inp_addr, inp_data, wgt_addr, wgt_data : operand scratchpads, latency 1
    rd_en, rd_addr, rd_data : acc, latency 1; data of both banks
    wr_en, wr_addr, wr_data : acc
    out_en, out_addr, out_data : the same one cycle later
    active : a micro-op is issued
    last : it is the last of its instruction
    uop_bgn, uop_end : of the instruction being issued
    done : strobe an instruction
    """

    OPERAND_CYCLE = 3
    """Cycles from issue to the earliest operand addresses."""

    SUM_CYCLE = 8
    """Cycles from issue to the array's sum and the accumulator's old value."""

    RESULT_CYCLE = GEMM_RESULT_CYCLES

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        u = cfg.log2_uop_depth
        super().__init__(
            {
                "start": In(stream.Signature(gemm_layout(cfg))),
                "uop_addr": Out(u),
                "uop_data": In(cfg.uop_bits),
                "inp_addr": Out(cfg.log2_inp_depth),
                "inp_data": In(cfg.inp_elem_bits),
                "wgt_addr": Out(cfg.log2_wgt_depth),
                "wgt_data": In(cfg.wgt_elem_bits),
                "rd_en": Out(1),
                "rd_addr": Out(cfg.log2_acc_depth),
                "rd_data": In(data.ArrayLayout(cfg.acc_elem_bits, ACC_BANKS)),
                "wr_en": Out(1),
                "wr_addr": Out(cfg.log2_acc_depth),
                "wr_data": Out(cfg.acc_elem_bits),
                "out_en": Out(1),
                "out_addr": Out(cfg.log2_acc_depth),
                "out_data": Out(cfg.acc_elem_bits),
                "active": Out(1),
                "last": Out(1),
                "uop_bgn": Out(u),
                "uop_end": Out(u + 1),
                "done": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._issue(m)
        self._operands(m)
        self._accumulate(m)
        return m

    def _issue(self, m: Module) -> None:
        cfg, start = self.cfg, self.start
        operands = {
            "dst": cfg.log2_acc_depth,
            "src": cfg.log2_inp_depth,
            "wgt": cfg.log2_wgt_depth,
        }
        m.submodules.loops = loops = LoopNest(uop_bits=cfg.log2_uop_depth, operands=operands)
        m.d.comb += [
            loops.start.eq(start.valid),
            start.ready.eq(loops.ready),
            loops.step.eq(1),
            self.uop_addr.eq(loops.uop),
            self.active.eq(loops.active),
            self.last.eq(loops.last),
        ]
        for field in ("uop_bgn", "uop_end", "iter_out", "iter_in"):
            m.d.comb += getattr(loops, field).eq(getattr(start.p, field))
        reset = Signal()
        with m.If(start.valid & start.ready):
            m.d.sync += [
                reset.eq(start.p.reset),
                self.uop_bgn.eq(start.p.uop_bgn),
                self.uop_end.eq(start.p.uop_end),
            ]
        for name in operands:
            for factor in ("out", "in"):
                field = f"{name}_factor_{factor}"
                m.d.comb += getattr(loops, field).eq(getattr(start.p, field))
        # Stages 1 and 2: the micro-op is on its way out of its scratchpad.
        stage = [loops.dst_offset, loops.src_offset, loops.wgt_offset, reset, loops.last]
        valid = loops.active
        for k in (1, 2):
            following = [
                Signal.like(s, name=f"s{k}_{n}", reset_less=True) for n, s in enumerate(stage)
            ]
            next_valid = Signal(name=f"s{k}_valid")
            m.d.sync += [n.eq(s) for n, s in zip(following, stage, strict=True)]
            m.d.sync += next_valid.eq(valid)
            stage, valid = following, next_valid
        self._stage2 = stage
        self._valid2 = valid

    def _operands(self, m: Module) -> None:
        """Stage 3: addresses of inp, wgt and acc, from where they wait for their turn."""
        cfg = self.cfg
        uop = data.View(layout_of(isa(cfg).uop), self.uop_data)
        dst_offset, src_offset, wgt_offset, reset, last = self._stage2
        m.submodules.array = array = MacArray(cfg)
        m.d.comb += [array.inp.eq(self.inp_data), array.wgt.eq(self.wgt_data)]
        self._array = array
        # stage 3: data is there one stage after its address, the sum `latency` stages later
        first = self.OPERAND_CYCLE
        waits = self.SUM_CYCLE - array.latency - 1 - first
        for address, value in (
            (self.inp_addr, uop.src + src_offset),
            (self.wgt_addr, uop.wgt + wgt_offset),
        ):
            m.d.comb += address.eq(
                _delayed(m, value[: len(address)], 1 + waits, name=address.name)[-1]
            )
        self._dst, self._reset, self._last, self._valid = (
            dict(enumerate(_delayed(m, value, 8, name=name, reset_less=name != "valid"), first))
            for name, value in (
                ("dst", (uop.dst + dst_offset)[: cfg.log2_acc_depth]),
                ("reset", reset),
                ("last", last),
                ("valid", self._valid2),
            )
        )

    def _accumulate(self, m: Module) -> None:
        """Stages 7 to 9: read or forward, add and write acc, write out.

        A result is written to acc in stage 8, when only the next micro-op has read what it
        replaces: that takes it from `newest`. The addend is chosen by two bits beside the data, so
        that one LUT of five inputs is all there is between memory and adder. A reset makes both
        addend and sum 0.
        """
        cfg = self.cfg
        dst, valid, reset = self._dst, self._valid, self._reset
        out, written = self.RESULT_CYCLE, self.RESULT_CYCLE + 1
        # In stage 7: is this micro-op's dst that of the one before it?
        again = Signal()
        m.d.sync += again.eq(valid[7] & (dst[7] == dst[6]))
        # In stage 8: 0, the first bank, the second, or the result before.
        source = Signal(2)
        with m.If(reset[7] | ~valid[7]):
            m.d.sync += source.eq(0)
        with m.Elif(again):
            m.d.sync += source.eq(3)
        with m.Else():
            m.d.sync += source.eq(Mux(dst[7][-1], 2, 1))
        m.d.comb += [
            self._array.clear.eq(reset[7]),
            self.rd_addr.eq(dst[7]),
            self.rd_en.eq(valid[7] & ~again & ~reset[7]),
        ]
        newest = Signal(cfg.acc_elem_bits, reset_less=True)
        first, second = self.rd_data
        old = Mux(source[1], Mux(source[0], newest, second), Mux(source[0], first, 0))
        w = cfg.acc_bits
        for lane in range(cfg.lanes):
            addend = old.word_select(lane, w)
            if self._array.deficit:
                # sum - ~old is sum + old + 1, and the 1 is the adder's carry in
                total = self._array.sum[lane] - (~addend).as_signed()
            else:
                total = self._array.sum[lane] + addend.as_signed()
            m.d.comb += self.wr_data.word_select(lane, w).eq(total[:w])
        m.d.sync += newest.eq(self.wr_data)
        m.d.comb += [
            self.wr_addr.eq(dst[out - 1]),
            self.wr_en.eq(valid[out - 1]),
            self.out_addr.eq(dst[out]),
            self.out_en.eq(valid[out]),
            self.out_data.eq(newest),
            self.done.eq(self._last[written] & valid[written]),
        ]


def _delayed(
    m: Module, value: Value, stages: int, *, name: str, reset_less: bool = True
) -> list[Signal]:
    """Registers that hold `value` 1, 2, ... `stages` cycles later."""
    registers = []
    for k in range(stages):
        register = Signal(len(value), name=f"{name}_{k + 1}", reset_less=reset_less)
        m.d.sync += register.eq(value)
        registers.append(register)
        value = register
    return registers
