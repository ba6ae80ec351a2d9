"""The ALU engine: element-wise operations on the accumulator."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from covta.hw.isa import AluOp, isa
from covta.hw.params import Config, log2_exact
from covta.hw.rtl.alu_lane import STAGE1_LAYOUT, AluLane, LaneMultiplier

__all__ = ["AluEngine", "alu_start_layout"]

_OPERATION = {"alu_opcode": 3, "use_imm": 1, "imm": signed(16), "last": 1}


def alu_start_layout(cfg: Config) -> data.StructLayout:
    """What the engine needs of an ALU instruction, under the names of the instruction set."""
    fields = isa(cfg).alu.fields
    names = (
        *("uop_bgn", "uop_end", "iter_out", "iter_in", "dst_factor_out", "dst_factor_in"),
        *("src_factor_out", "src_factor_in", "alu_opcode", "use_imm", "imm"),
    )
    return data.StructLayout(
        {
            name: signed(fields[name][2].width_bits)
            if fields[name][2].signed
            else fields[name][2].width_bits
            for name in names
        }
    )


class AluEngine(wiring.Component):
    """Execute ALU instructions, one after the other, without a bubble between them.

    Legality, bounds and ``iter_out, iter_in, uop_end - uop_bgn > 0`` were checked before.

    A generator walks the loops, one operation a cycle, reads micro-ops and puts resolved
    operations into a queue of ``QUEUE`` entries. Operations leave it in order: read src (unless
    `use_imm`), read dst, two stages of execution, write. Nothing is forwarded: an operation waits
    until every earlier write to its dst or src is visible.

    **Timing.** Number the operations of all instructions 0, 1, ...; for operation ``k``: ``s`` is
    the cycle of the start handshake of its instruction, ``g`` the cycle in which its micro-op
    address is presented (or would be), ``e`` and ``f`` the cycles in which the first and the last
    read address are presented, ``w`` the cycle in which the write is.
    ``reads`` is 1 with `use_imm`, else 2.
    ``occ`` is ``cfg.mul_cycles`` for MUL, else 1. ::

        g[k] = max(g[k-1] + 1, s + START_TO_GENERATE, e[k-QUEUE] + 1)
        f[k] = max(g[k] + GENERATE_TO_READ + reads[k] - 1,
                   f[k-1] + max(reads[k], occ[k-1]),
                   max(w[j] for j < k with dst[j] in {dst[k], src[k] if reads[k] == 2}) + reads[k])
        e[k] = f[k] - reads[k] + 1
        w[k] = f[k] + READ_TO_WRITE + occ[k] - 1

    An instruction is accepted from ``g`` of the last operation of the one before it on (any time if
    idle). `busy` is high from ``s + 1`` to the last ``w``; `done` is high in ``w + 1`` of the last
    operation of each instruction; `issue` is high in every ``e``. `uop_hold` is high from ``s + 1``
    to ``g + 2``, where ``g`` is that of the first operation if there is one micro-op, else of the
    last.

    Parameters
    ----------
    cfg : Config

    Members
    -------
    start : ``In(stream of alu_start_layout)``
    uop_en, uop_addr : ``Out``
        Read port of the uop scratchpad, ours while `uop_hold`; data two cycles after the address.
    uop_data : ``In(32)``
    uop_hold : ``Out(1)``
    rd_en, rd_addr : ``Out``
        acc read port; `rd_data` is valid two cycles after the address.
    rd_data : ``In(acc_elem_bits)``
    wr_en, wr_addr, wr_data : ``Out``
        acc write port; a read presented one cycle later sees the write.
    busy, done, issue : ``Out(1)``
    """

    START_TO_GENERATE = 1
    GENERATE_TO_READ = 3
    READ_TO_WRITE = 4
    QUEUE = 8

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        super().__init__(
            {
                "start": In(stream.Signature(alu_start_layout(cfg))),
                "uop_addr": Out(cfg.log2_uop_depth),
                "uop_en": Out(1),
                "uop_data": In(cfg.uop_bits),
                "uop_hold": Out(1),
                "rd_addr": Out(cfg.log2_acc_depth),
                "rd_en": Out(1),
                "rd_data": In(cfg.acc_elem_bits),
                "wr_en": Out(1),
                "wr_addr": Out(cfg.log2_acc_depth),
                "wr_data": Out(cfg.acc_elem_bits),
                "busy": Out(1),
                "done": Out(1),
                "issue": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        """Generate, resolve, queue, issue, execute."""
        m = Module()
        self._queued = data.StructLayout(
            {"dst": self.cfg.log2_acc_depth, "src": self.cfg.log2_acc_depth, **_OPERATION}
        )
        self._pop = Signal()
        self._generate(m)
        self._resolve(m)
        self._queue(m)
        self._issue(m)
        self._control(m)
        self._lanes(m)
        stages = [stage.valid for stage in self._stages]
        m.d.comb += self.busy.eq(
            self._active
            | Cat(p.valid for p in self._pending).any()
            | (self._level != 0)
            | self._second
            | Cat(stages).any()
        )
        m.d.sync += self.done.eq(self._stages[3].valid & self._stages[3].last)
        return m

    # ---- micro-ops and loops ---------------------------------------------------------------
    def _generate(self, m: Module) -> None:
        """Walk ``for y, for x, for u``; one operation a cycle while the queue has room."""
        cfg = self.cfg
        loop = Signal(alu_start_layout(cfg), reset_less=True)
        self._active = Signal()
        room = Signal(range(self.QUEUE + 1), init=self.QUEUE)
        u = Signal(cfg.log2_uop_depth + 1, reset_less=True)
        x_left = Signal.like(loop.iter_in, name="x_left", reset_less=True)
        y_left = Signal.like(loop.iter_out, name="y_left", reset_less=True)
        must_read = Signal()
        fire, last_u, last_x, last = Signal(), Signal(), Signal(), Signal()
        first_of_all = Signal(reset_less=True)
        m.d.comb += [
            fire.eq(self._active & (room != 0)),
            last_u.eq(u + 1 == loop.uop_end),
            last_x.eq(x_left == 1),
            last.eq(last_u & last_x & (y_left == 1)),
            self.start.ready.eq(~self._active | (fire & last)),
        ]
        m.d.sync += room.eq(room - fire + self._pop)

        layout = data.StructLayout(
            {
                "valid": 1,
                "fresh": 1,
                "dst": cfg.log2_acc_depth,
                "src": cfg.log2_acc_depth,
                **_OPERATION,
            }
        )
        first, second = (Signal(layout, name=f"pending_{k}") for k in (1, 2))
        self._pending = (first, second)
        m.d.sync += second.eq(first)
        m.d.sync += [
            first.valid.eq(fire),
            first.fresh.eq(fire & must_read),
            first.alu_opcode.eq(loop.alu_opcode),
            first.use_imm.eq(loop.use_imm),
            first.imm.eq(loop.imm),
            first.last.eq(last),
        ]
        with m.If(fire):
            m.d.sync += u.eq(Mux(last_u, loop.uop_bgn, u + 1))
            m.d.sync += first_of_all.eq(0)
            with m.If(first_of_all & last_u):  # the only micro-op: it is kept
                m.d.sync += must_read.eq(0)
            with m.If(last_u):
                m.d.sync += x_left.eq(Mux(last_x, loop.iter_in, x_left - 1))
                with m.If(last_x):
                    m.d.sync += y_left.eq(y_left - 1)
            with m.If(last):
                m.d.sync += [self._active.eq(0), must_read.eq(0)]
        begin = self.start.valid & self.start.ready
        for name in ("dst", "src"):
            row = Signal(cfg.log2_acc_depth, name=f"{name}_row", reset_less=True)
            offset = Signal(cfg.log2_acc_depth, name=f"{name}_offset", reset_less=True)
            following = Signal(cfg.log2_acc_depth, name=f"{name}_following")
            m.d.comb += following.eq(
                Mux(last_x, row, offset)
                + Mux(last_x, loop[f"{name}_factor_out"], loop[f"{name}_factor_in"])
            )
            with m.If(fire & last_u):
                m.d.sync += offset.eq(following)
                with m.If(last_x):
                    m.d.sync += row.eq(following)
            with m.If(begin):
                m.d.sync += [row.eq(0), offset.eq(0)]
            m.d.sync += first[name].eq(offset)
        with m.If(begin):
            payload = self.start.payload
            m.d.sync += [
                loop.eq(payload),
                u.eq(payload.uop_bgn),
                x_left.eq(payload.iter_in),
                y_left.eq(payload.iter_out),
                first_of_all.eq(1),
                must_read.eq(1),
                self._active.eq(1),
            ]
        m.d.comb += [
            self.uop_addr.eq(u),
            self.uop_hold.eq(must_read | first.fresh | second.fresh),
            self.uop_en.eq(self.uop_hold),
        ]

    def _resolve(self, m: Module) -> None:
        """Add loop offsets to the micro-op that arrives, or to the only one of its instruction."""
        cfg = self.cfg
        pending = self._pending[1]
        kept = Signal(2 * cfg.log2_acc_depth, reset_less=True)
        fields = isa(cfg).uop.positions
        arrived = Cat(
            self.uop_data[fields[name][0] :][: cfg.log2_acc_depth] for name in ("dst", "src")
        )
        with m.If(pending.fresh):
            m.d.sync += kept.eq(arrived)
        micro_op = Mux(pending.fresh, arrived, kept)
        self._resolved = Signal(self._queued)
        m.d.comb += [
            self._resolved.dst.eq(micro_op[: cfg.log2_acc_depth] + pending.dst),
            self._resolved.src.eq(micro_op[cfg.log2_acc_depth :] + pending.src),
            *(self._resolved[name].eq(pending[name]) for name in _OPERATION),
        ]

    def _queue(self, m: Module) -> None:
        """A queue in distributed memory; the generator never fills it beyond its depth."""
        m.submodules.queue = memory = Memory(shape=self._queued, depth=self.QUEUE, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        push = self._pending[1].valid
        self._level = Signal(range(self.QUEUE + 1))
        m.d.sync += self._level.eq(self._level + push - self._pop)
        with m.If(push):
            m.d.sync += write.addr.eq(write.addr + 1)
        with m.If(self._pop):
            m.d.sync += read.addr.eq(read.addr + 1)
        m.d.comb += [write.en.eq(push), write.data.eq(self._resolved)]
        self._head = read.data

    # ---- issue and execution ---------------------------------------------------------------
    def _issue(self, m: Module) -> None:
        """Let the head go once its operands are in the scratchpad and the stages are free."""
        cfg = self.cfg
        head = self._head
        stage_layout = data.StructLayout({"valid": 1, "dst": cfg.log2_acc_depth, **_OPERATION})
        self._stages = [Signal(stage_layout, name=f"stage_{k}") for k in range(1, 5)]
        self._second = Signal()
        waiting = Signal(stage_layout, reset_less=True)  # src is being read, dst comes next
        cooldown = Signal(range(max(cfg.mul_cycles, 2)))

        def clashes(address):
            return Cat(s.valid & (s.dst == address) for s in self._stages).any()

        clear, free = Signal(), Signal()
        m.d.comb += [
            clear.eq(~clashes(head.dst) & (head.use_imm | ~clashes(head.src))),
            free.eq(~self._second & ((cooldown == 0) | ((cooldown == 1) & ~head.use_imm))),
            self._pop.eq((self._level != 0) & free & clear),
            self.issue.eq(self._pop),
        ]
        entering = Signal(stage_layout)  # the operation whose last read is presented
        with m.If(self._second):
            m.d.comb += [
                entering.eq(waiting),
                entering.imm.eq(0),
                entering.valid.eq(1),
                self.rd_addr.eq(waiting.dst),
            ]
        with m.Else():
            m.d.comb += [
                *(entering[name].eq(head[name]) for name in ("dst", *_OPERATION)),
                entering.valid.eq(self._pop & head.use_imm),
                self.rd_addr.eq(Mux(head.use_imm, head.dst, head.src)),
            ]
        m.d.comb += self.rd_en.eq(self._pop | self._second)
        m.d.sync += self._second.eq(self._pop & ~head.use_imm)
        with m.If(self._pop):
            m.d.sync += [waiting[name].eq(head[name]) for name in ("dst", *_OPERATION)]
        with m.If(entering.valid & (entering.alu_opcode == AluOp.MUL)):
            m.d.sync += cooldown.eq(cfg.mul_cycles - 1)
        with m.Elif(cooldown != 0):
            m.d.sync += cooldown.eq(cooldown - 1)
        m.d.sync += self._stages[0].eq(entering)

    def _control(self, m: Module) -> None:
        """Stages 1 to 4: read, operands there, result there (``mul_cycles`` times), write."""
        cfg = self.cfg
        s1, s2, s3, s4 = self._stages
        self._group = Signal(range(max(cfg.mul_cycles, 2)))
        # known from registers, for the multipliers' operands: MUL in stage 3, whether it remains
        # there, and the group whose products start
        mul3, stays, starting = Signal(), Signal(), Signal.like(self._group)
        last = cfg.mul_cycles - 1
        self._stays_next = Signal()
        m.d.sync += [s2.eq(s1), stays.eq(self._stays_next)]
        with m.If(stays):
            m.d.comb += self._stays_next.eq(starting != last)
            m.d.sync += [
                self._group.eq(self._group + 1),
                starting.eq(Mux(starting != last, starting + 1, 0)),
            ]
        with m.Else():
            mul2 = s2.valid & (s2.alu_opcode == AluOp.MUL)
            m.d.sync += [self._group.eq(0), s3.eq(s2), mul3.eq(mul2)]
            if last:
                m.d.comb += self._stays_next.eq(mul2)
                m.d.sync += starting.eq(mul2)
        m.d.sync += [s4.eq(s3), s4.valid.eq(s3.valid & ~stays)]
        m.d.comb += [self.wr_en.eq(s4.valid), self.wr_addr.eq(s4.dst)]
        self._mul3, self._stays, self._starting = mul3, stays, starting

    def _lanes(self, m: Module) -> None:
        cfg = self.cfg
        s1, s2, s3, _ = self._stages
        op = Signal(STAGE1_LAYOUT, reset_less=True)
        code = s1.alu_opcode
        shr, rqt, mul2 = Signal(), Signal(), Signal(reset_less=True)
        m.d.comb += [
            shr.eq(code == AluOp.SHR),
            rqt.eq((code == AluOp.RQT) if cfg.has("requantize") else 0),
        ]
        log2_n = log2_exact(cfg.acc_bits)
        in_reach = s1.imm[log2_n:] == s1.imm[-1].replicate(len(s1.imm) - log2_n)
        far = Signal()
        m.d.comb += far.eq(shr & ~in_reach)
        if cfg.has("requantize") and log2_n < 5:
            with m.If(rqt):
                m.d.comb += far.eq(s1.imm[log2_n:5].any())
        m.d.sync += [
            op.subtract.eq((code == AluOp.MIN) | (code == AluOp.MAX)),
            op.min.eq(code == AluOp.MIN),
            op.max.eq(code == AluOp.MAX),
            op.add.eq(code == AluOp.ADD),
            op.shift.eq(shr | rqt),
            op.replace.eq((code == AluOp.ADD) | (code == AluOp.MUL) | (s1.use_imm & far)),
            mul2.eq(code == AluOp.MUL),
        ]
        # a lane's operand 2 is the union of its register and these, of which one is 0
        imm2, imm3 = (
            Signal(signed(s1.imm.shape().width), name=f"imm{k}", reset_less=True) for k in (2, 3)
        )
        rqt2, rqt3 = (Signal(name=f"rqt{k}", reset_less=True) for k in (2, 3))
        m.d.sync += [imm2.eq(s1.imm), rqt2.eq(rqt)]
        with m.If(~self._stays):
            m.d.sync += [rqt3.eq(rqt2), imm3.eq(imm2)]

        lanes = []
        for k in range(cfg.lanes):
            m.submodules[f"lane_{k}"] = lane = AluLane(cfg)
            lanes.append(lane)
            m.d.comb += [
                lane.a.eq(self.rd_data.word_select(k, cfg.acc_bits)),
                lane.capture.eq(s1.valid & ~s1.use_imm),
                lane.clear.eq(s1.valid & s1.use_imm),
                lane.shr.eq(shr),
                lane.rqt.eq(rqt),
                lane.amount.eq(s1.imm),
                lane.load.eq(s2.valid),
                lane.op.eq(op),
                lane.imm.eq(imm2),
                lane.store.eq(s3.valid & (~self._mul3 | (self._group == k // cfg.alu_mul_lanes))),
                lane.rqt2.eq(rqt3),
                lane.imm2.eq(imm3),
                self.wr_data.word_select(k, cfg.acc_bits).eq(lane.o),
            ]
        self._multiply(m, lanes, mul2)

    def _multiply(self, m: Module, lanes: list[AluLane], mul2) -> None:
        """Products of lane group 0 start in stage 2, of the other groups in stage 3."""
        cfg = self.cfg
        s1, s2 = self._stages[:2]
        width = cfg.alu_mul_lanes
        en = Signal()
        imm = Signal.like(s1.imm, name="imm_mul", reset_less=True)
        m.d.comb += en.eq((s2.valid & mul2) | self._stays)
        with m.If(~self._stays_next):
            m.d.sync += imm.eq(s1.imm)
        for j in range(width):
            m.submodules[f"multiplier_{j}"] = multiplier = LaneMultiplier(cfg)
            m.d.comb += multiplier.en.eq(en)
            b = Signal(cfg.acc_bits, name=f"b_{j}")
            with m.Switch(self._starting):
                for g in range(cfg.mul_cycles):
                    lane = lanes[g * width + j]
                    with m.Case(g) if g < cfg.mul_cycles - 1 else m.Default():
                        m.d.comb += [
                            multiplier.a.eq(lane.kept_a if g else lane.a),
                            b.eq(lane.kept_b),
                        ]
                    m.d.comb += lane.product.eq(multiplier.o)
            m.d.comb += multiplier.b.eq(b.as_signed() | imm)
