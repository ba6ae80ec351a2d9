"""The GEMM engine: one micro-op a cycle through the multiplier array, whatever the order of dst."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from covta.hw.isa import isa
from covta.hw.params import Config
from covta.hw.rtl.interfaces import layout_of
from covta.hw.rtl.mac_array import MacArray


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
        bgn, final = Signal(self.uop_bits), Signal(self.uop_bits)
        x_left, y_left, iter_in = Signal(14), Signal(14), Signal(14)
        u_end, x_end, y_end = Signal(), Signal(), Signal()
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
    issued in ``i``: inp and wgt addresses are presented in ``i + 3``, the acc address in ``i +
    7``, the result in ``i + 10``. `done` follows the last result by one cycle (``i_last + 11``).

    Members
    -------
    start : ``In(stream of gemm_layout)``, not empty, within bounds
    uop_addr, uop_data : port A of the uop scratchpad
    inp_addr, inp_data, wgt_addr, wgt_data : operand scratchpads
    rd_en, rd_addr, rd_data, wr_en, wr_addr, wr_data : acc
    active : a micro-op is issued
    last : it is the last of its instruction
    uop_bgn, uop_end : of the instruction being issued
    done : strobe an instruction
    """

    RESULT_CYCLE = 10

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
                "rd_data": In(cfg.acc_elem_bits),
                "wr_en": Out(1),
                "wr_addr": Out(cfg.log2_acc_depth),
                "wr_data": Out(cfg.acc_elem_bits),
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
            following = [Signal.like(s, name=f"s{k}_{n}") for n, s in enumerate(stage)]
            next_valid = Signal(name=f"s{k}_valid")
            m.d.sync += [n.eq(s) for n, s in zip(following, stage, strict=True)]
            m.d.sync += next_valid.eq(valid)
            stage, valid = following, next_valid
        self._stage2 = stage
        self._valid2 = valid

    def _operands(self, m: Module) -> None:
        """Stage 3: addresses of inp and wgt; the array's sum is there in stage 9."""
        cfg = self.cfg
        uop = data.View(layout_of(isa(cfg).uop), self.uop_data)
        dst_offset, src_offset, wgt_offset, reset, last = self._stage2
        dst = Signal(cfg.log2_acc_depth)
        reset3, last3, valid3 = Signal(), Signal(), Signal()
        m.d.sync += [
            dst.eq(uop.dst + dst_offset),
            self.inp_addr.eq(uop.src + src_offset),
            self.wgt_addr.eq(uop.wgt + wgt_offset),
            reset3.eq(reset),
            last3.eq(last),
            valid3.eq(self._valid2),
        ]
        m.submodules.array = array = MacArray(cfg)
        assert array.latency == 4
        m.d.comb += [array.inp.eq(self.inp_data), array.wgt.eq(self.wgt_data)]
        self._sum = array.sum
        # dst, reset, last, valid from stage 3 to stage 10
        pipe: dict[int, tuple[Signal, ...]] = {3: (dst, reset3, last3, valid3)}
        for k in range(4, 12):
            pipe[k] = tuple(
                Signal.like(s, name=f"{n}{k}")
                for n, s in zip(("dst", "reset", "last", "valid"), pipe[k - 1], strict=True)
            )
            m.d.sync += [n.eq(s) for n, s in zip(pipe[k], pipe[k - 1], strict=True)]
        self._pipe = pipe

    def _accumulate(self, m: Module) -> None:
        """Stages 7 to 10: read, forward, add, write."""
        cfg, pipe = self.cfg, self._pipe
        m.d.comb += [self.rd_addr.eq(pipe[7][0]), self.rd_en.eq(pipe[7][3])]
        # Results of the last three micro-ops, newest first: stages 10, 11, 12.
        newest = Signal(cfg.acc_elem_bits)
        older, oldest = Signal.like(newest), Signal.like(newest)
        m.d.sync += [older.eq(newest), oldest.eq(older)]
        # Compare one stage early: dst in stage 8 with what will then be one stage further.
        select = Signal(2)
        dst8 = pipe[8][0]
        with m.If(pipe[9][3] & (pipe[9][0] == dst8)):
            m.d.sync += select.eq(1)
        with m.Elif(pipe[10][3] & (pipe[10][0] == dst8)):
            m.d.sync += select.eq(2)
        with m.Elif(pipe[11][3] & (pipe[11][0] == dst8)):
            m.d.sync += select.eq(3)
        with m.Else():
            m.d.sync += select.eq(0)
        old = Signal(cfg.acc_elem_bits)
        with m.Switch(select):
            with m.Case(0):
                m.d.comb += old.eq(self.rd_data)
            with m.Case(1):
                m.d.comb += old.eq(newest)
            with m.Case(2):
                m.d.comb += old.eq(older)
            with m.Case(3):
                m.d.comb += old.eq(oldest)
        w = cfg.acc_bits
        with m.If(pipe[9][1]):
            m.d.sync += newest.eq(0)
        with m.Else():
            m.d.sync += newest.eq(
                Cat((old.word_select(lane, w) + self._sum[lane])[:w] for lane in range(cfg.lanes))
            )
        m.d.comb += [
            self.wr_addr.eq(pipe[10][0]),
            self.wr_en.eq(pipe[10][3]),
            self.wr_data.eq(newest),
            self.done.eq(pipe[11][2] & pipe[11][3]),
        ]
