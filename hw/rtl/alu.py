"""The ALU engine: element-wise operations on the accumulator."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from covta.hw.isa import AluOp, isa
from covta.hw.microarchitecture import (
    ALU_GENERATE_TO_READ_CYCLES,
    ALU_QUEUE_DEPTH,
    ALU_READ_TO_WRITE_CYCLES,
    ALU_START_TO_GENERATE_CYCLES,
)
from covta.hw.params import Config
from covta.hw.rtl.alu_lane import STAGE1_LAYOUT, AluLane, LaneMultiplier

__all__ = ["AluEngine", "alu_start_layout"]


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
    operations into a queue of ``QUEUE`` entries. Operations leave it in order: read src, read dst,
    two stages of execution, write. Operand 2 is kept: an operation whose src is that of the one
    before it in the same instruction, and was not written by that, reads only dst. With `use_imm`,
    the first operation of an instruction takes the immediate in the place of src, and the others
    read only dst. Nothing is forwarded: an operation waits until every earlier write to its dst or
    src is visible.

    **Timing.** Number the operations of all instructions 0, 1, ...; for operation ``k``: ``s`` is
    the cycle of the start handshake of its instruction, ``g`` the cycle in which its micro-op
    address is presented (or would be), ``e`` and ``f`` the cycles in which the first and the last
    read address are presented, ``w`` the cycle in which the write is.
    ``reads`` is 1 where operand 2 is kept, else 2: in the first operation of an instruction and,
    without `use_imm`, where ``src[k] != src[k-1]`` or ``dst[k-1] == src[k-1]``.
    ``occ`` is ``cfg.mul_cycles`` for MUL, else 1; ``extra`` is ``MUL_EXTRA`` for MUL, else 0;
    ``gap[k]`` is ``occ[k]``, plus ``extra[k]`` if operation ``k + 1`` is no MUL. ::

        g[k] = max(g[k-1] + 1, s + START_TO_GENERATE, e[k-QUEUE] + 1)
        f[k] = max(g[k] + GENERATE_TO_READ + reads[k] - 1,
                   f[k-1] + max(reads[k], gap[k-1]),
                   max(w[j] for j < k with dst[j] in {dst[k], src[k] unless use_imm}) + reads[k])
        e[k] = f[k] - reads[k] + 1
        w[k] = f[k] + READ_TO_WRITE + occ[k] - 1 + extra[k]

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
    imm_en, imm : ``Out``
        `imm` is wanted as `rd_data` of all lanes in the next cycle.
    wr_en, wr_addr, wr_data : ``Out``
        acc write port; a read presented one cycle later sees the write.
    busy, done, issue : ``Out(1)``
    clock_request : ``Out(1)``, see `covta.hw.rtl.clocks`
    """

    START_TO_GENERATE = ALU_START_TO_GENERATE_CYCLES
    GENERATE_TO_READ = ALU_GENERATE_TO_READ_CYCLES
    READ_TO_WRITE = ALU_READ_TO_WRITE_CYCLES
    MUL_EXTRA = LaneMultiplier.LATENCY - 1
    QUEUE = ALU_QUEUE_DEPTH

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
                "imm_en": Out(1),
                "imm": Out(signed(16)),
                "wr_en": Out(1),
                "wr_addr": Out(cfg.log2_acc_depth),
                "wr_data": Out(cfg.acc_elem_bits),
                "busy": Out(1),
                "done": Out(1),
                "issue": Out(1),
                "clock_request": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        """Generate, resolve, queue, issue, execute."""
        m = Module()
        # An operation; `new_b` is set if operand 2 is not that of the operation before.
        self._queued = data.StructLayout(
            {
                "dst": self.cfg.log2_acc_depth,
                "src": self.cfg.log2_acc_depth,
                "new_b": 1,
                "last": 1,
            }
        )
        self._pop = Signal()
        self._generate(m)
        self._resolve(m)
        self._queue(m)
        self._remember(m)
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
        m.d.sync += self.done.eq(self._stages[-1].valid & self._stages[-1].last)
        m.d.comb += self.clock_request.eq(self.start.valid | self.busy | (self._cooldown != 0))
        return m

    # ---- micro-ops and loops ---------------------------------------------------------------
    def _generate(self, m: Module) -> None:
        """Walk ``for y, for x, for u``; one operation a cycle while the queue has room."""
        cfg = self.cfg
        loop = Signal(alu_start_layout(cfg), reset_less=True)
        self._active = Signal()
        room = Signal(range(self.QUEUE + 1), init=self.QUEUE)
        u, final = (
            Signal(cfg.log2_uop_depth, name=name, reset_less=True) for name in ("u", "final")
        )
        x_left = Signal.like(loop.iter_in, name="x_left", reset_less=True)
        y_left = Signal.like(loop.iter_out, name="y_left", reset_less=True)
        must_read = Signal()
        fire = Signal()
        last_u = Signal()
        last_x = Signal()
        last = Signal()
        first_of_all = Signal(reset_less=True)
        m.d.comb += [
            fire.eq(self._active & (room != 0)),
            last_u.eq(u == final),
            last_x.eq(x_left == 1),
            last.eq(last_u & last_x & (y_left == 1)),
            self.start.ready.eq(~self._active | (fire & last)),
        ]
        m.d.sync += room.eq(room - fire + self._pop)

        layout = data.StructLayout({"valid": 1, "fresh": 1, "use_imm": 1, **self._queued.members})
        first, second = (Signal(layout, name=f"pending_{k}") for k in (1, 2))
        self._pending = (first, second)
        m.d.sync += second.eq(first)
        m.d.sync += [
            first.valid.eq(fire),
            first.fresh.eq(fire & must_read),
            first.use_imm.eq(loop.use_imm),
            first.new_b.eq(first_of_all),
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
        self._begin = begin = Signal()
        m.d.comb += begin.eq(self.start.valid & self.start.ready)
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
                final.eq(payload.uop_end - 1),
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
        """Add loop offsets to the micro-op that arrives, or to the only one of its instruction.

        Find out, too, whether operand 2 is that of the operation before.
        """
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
        self._resolved = resolved = Signal(self._queued)
        last_src = Signal(cfg.log2_acc_depth, reset_less=True)
        overwritten = Signal(reset_less=True)
        other = (resolved.src != last_src) | overwritten
        m.d.comb += [
            resolved.dst.eq(micro_op[: cfg.log2_acc_depth] + pending.dst),
            resolved.src.eq(micro_op[cfg.log2_acc_depth :] + pending.src),
            resolved.last.eq(pending.last),
            resolved.new_b.eq(pending.new_b | (~pending.use_imm & other)),
        ]
        with m.If(pending.valid):
            m.d.sync += [
                last_src.eq(resolved.src),
                overwritten.eq(resolved.dst == resolved.src),
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

    def _remember(self, m: Module) -> None:
        """What is the same in all operations of an instruction, from its start to its last issue.

        Besides the instruction whose loops are walked, each has an operation in the queue or on
        its way there.
        """
        members = alu_start_layout(self.cfg).members
        shape = data.StructLayout({n: members[n] for n in ("alu_opcode", "use_imm", "imm")})
        m.submodules.insns = memory = Memory(shape=shape, depth=2 * self.QUEUE, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(self._begin),
            *(write.data[name].eq(self.start.p[name]) for name in shape.members),
        ]
        with m.If(self._begin):
            m.d.sync += write.addr.eq(write.addr + 1)
        with m.If(self._pop & self._head.last):
            m.d.sync += read.addr.eq(read.addr + 1)
        self._insn = read.data

    # ---- issue and execution ---------------------------------------------------------------
    def _issue(self, m: Module) -> None:
        """Let the head go once its operands are in the scratchpad and the stages are free."""
        cfg = self.cfg
        head, insn = self._head, self._insn
        stage_layout = data.StructLayout(
            {"valid": 1, "dst": cfg.log2_acc_depth, "alu_opcode": 3, "new_b": 1, "last": 1}
        )
        count = self.READ_TO_WRITE + self.MUL_EXTRA
        self._stages = [Signal(stage_layout, name=f"stage_{k + 1}") for k in range(count)]
        self._second = Signal()
        waiting = Signal(stage_layout, reset_less=True)  # operand 2 comes, then dst is read
        # counts to the first read of a MUL that may follow a MUL, and MUL_EXTRA cycles on
        self._cooldown = cooldown = Signal(range(cfg.mul_cycles + self.MUL_EXTRA))
        near = Signal(3)

        def clashes(address):
            return Cat(s.valid & (s.dst == address) for s in self._stages).any()

        clear = Signal()
        free = Signal()
        head_mul = Signal()
        m.d.comb += [
            clear.eq(~clashes(head.dst) & (insn.use_imm | ~clashes(head.src))),
            head_mul.eq(insn.alu_opcode == AluOp.MUL),
            near.eq(Cat(cooldown <= 1, cooldown <= self.MUL_EXTRA, cooldown <= self.MUL_EXTRA + 1)),
            free.eq(~self._second & Mux(head_mul, Mux(head.new_b, near[2], near[1]), near[0])),
            self._pop.eq((self._level != 0) & free & clear),
            self.issue.eq(self._pop),
        ]
        entering = Signal(stage_layout)  # the operation whose last read is presented
        uses_imm = Signal(reset_less=True)
        with m.If(self._second):
            m.d.comb += [
                entering.eq(waiting),
                entering.valid.eq(1),
                self.rd_addr.eq(waiting.dst),
            ]
        with m.Else():
            m.d.comb += [
                *(entering[name].eq(head[name]) for name in ("dst", "new_b", "last")),
                entering.alu_opcode.eq(insn.alu_opcode),
                entering.valid.eq(self._pop & ~head.new_b),
                self.rd_addr.eq(Mux(head.new_b & ~insn.use_imm, head.src, head.dst)),
            ]
        m.d.comb += [
            self.rd_en.eq(self._pop | self._second),
            self.imm_en.eq(self._second & uses_imm),
        ]
        m.d.sync += self._second.eq(self._pop & head.new_b)
        with m.If(self._pop):
            m.d.sync += [waiting[name].eq(head[name]) for name in ("dst", "new_b", "last")]
            m.d.sync += waiting.alu_opcode.eq(insn.alu_opcode)
            m.d.sync += [uses_imm.eq(insn.use_imm), self.imm.eq(insn.imm)]
        with m.If(entering.valid & (entering.alu_opcode == AluOp.MUL)):
            m.d.sync += cooldown.eq(cfg.mul_cycles + self.MUL_EXTRA - 1)
        with m.Elif(cooldown != 0):
            m.d.sync += cooldown.eq(cooldown - 1)
        m.d.sync += self._stages[0].eq(entering)

    def _control(self, m: Module) -> None:
        """Stages: operand 2 there, dst there, result (of MUL: ``mul_cycles`` times), write.

        A MUL takes `MUL_EXTRA` more between the last two; dispatch leaves room behind it.
        """
        cfg = self.cfg
        s1, s2, s3, *extra, written = self._stages
        mul2 = Signal(reset_less=True)
        mul3 = Signal()
        stays = Signal()
        # the group of lanes whose operands enter the multipliers, in stages 2 and 3
        group = Signal(range(max(cfg.mul_cycles, 2)))
        last = cfg.mul_cycles - 1
        self._multiplies = Signal()
        stays_next = Signal()
        m.d.comb += self._multiplies.eq((s2.valid & mul2) | stays)
        m.d.sync += [s2.eq(s1), mul2.eq(s1.alu_opcode == AluOp.MUL), stays.eq(stays_next)]
        with m.If(stays):
            m.d.comb += stays_next.eq(group != last)
            m.d.sync += group.eq(Mux(group != last, group + 1, 0))
        with m.Else():
            m.d.sync += [s3.eq(s2), mul3.eq(mul2)]
            if last:
                m.d.comb += stays_next.eq(s2.valid & mul2)
                m.d.sync += group.eq(s2.valid & mul2)
        for before, after in zip((s3, *extra), extra, strict=False):
            m.d.sync += [after.eq(before)]
        m.d.sync += [extra[0].valid.eq(s3.valid & mul3 & ~stays)]
        m.d.sync += written.eq(extra[-1])
        with m.If(~extra[-1].valid):
            m.d.sync += [written.eq(s3), written.valid.eq(s3.valid & ~mul3)]
        m.d.comb += [self.wr_en.eq(written.valid), self.wr_addr.eq(written.dst)]
        # which lanes take a result: all, or in turn, LATENCY cycles behind their operands
        self._store = Signal(cfg.mul_cycles)
        turn = Const(1, cfg.mul_cycles) << group
        turns = Mux(self._multiplies, turn, 0)[: cfg.mul_cycles]
        for k in range(LaneMultiplier.LATENCY - 1):
            following = Signal(cfg.mul_cycles, name=f"turns_{k + 1}")
            m.d.sync += following.eq(turns)
            turns = following
        m.d.sync += self._store.eq(turns | (s2.valid & ~mul2).replicate(cfg.mul_cycles))
        self._group, self._mul2 = group, mul2

    def _lanes(self, m: Module) -> None:
        cfg = self.cfg
        s1, s2 = self._stages[:2]
        op = Signal(STAGE1_LAYOUT, reset_less=True)
        code = s1.alu_opcode
        shr = Signal()
        rqt = Signal()
        m.d.comb += [
            shr.eq(code == AluOp.SHR),
            rqt.eq((code == AluOp.RQT) if cfg.has("requantize") else 0),
            op.mul.eq(self._mul2),
        ]
        m.d.sync += [
            op.min.eq(code == AluOp.MIN),
            op.max.eq(code == AluOp.MAX),
            op.add.eq(code == AluOp.ADD),
            op.shift.eq(shr | rqt),
        ]
        rqt2, rqt3 = (Signal(name=f"rqt{k}", reset_less=True) for k in (2, 3))
        m.d.sync += [rqt2.eq(rqt), rqt3.eq(s2.valid & rqt2)]
        lanes = []
        for k in range(cfg.lanes):
            m.submodules[f"lane_{k}"] = lane = AluLane(cfg)
            lanes.append(lane)
            m.d.comb += [
                lane.a.eq(self.rd_data.word_select(k, cfg.acc_bits)),
                lane.capture.eq(s1.valid & s1.new_b),
                lane.shr.eq(shr),
                lane.rqt.eq(rqt),
                lane.load.eq(s2.valid),
                lane.op.eq(op),
                lane.store.eq(self._store[k // cfg.alu_mul_lanes]),
                lane.rqt2.eq(rqt3),
                self.wr_data.word_select(k, cfg.acc_bits).eq(lane.o),
            ]
        self._multiply(m, lanes)

    def _multiply(self, m: Module, lanes: list[AluLane]) -> None:
        """Operands of lane group 0 enter in stage 2, of the other groups in stage 3."""
        cfg = self.cfg
        width = cfg.alu_mul_lanes
        for j in range(width):
            m.submodules[f"multiplier_{j}"] = multiplier = LaneMultiplier(cfg)
            m.d.comb += multiplier.en.eq(self._multiplies)
            with m.Switch(self._group):
                for g in range(cfg.mul_cycles):
                    lane = lanes[g * width + j]
                    with m.Case(g) if g < cfg.mul_cycles - 1 else m.Default():
                        m.d.comb += [
                            multiplier.a.eq(lane.kept_a if g else lane.a),
                            multiplier.b.eq(lane.kept_b),
                        ]
                    m.d.comb += lane.product.eq(multiplier.o)
