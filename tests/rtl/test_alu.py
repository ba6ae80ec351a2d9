"""The ALU engine against NumPy, and every cycle of it against its documented recurrence."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from amaranth.sim import Simulator

from covta.hw.isa import AluOp, isa
from covta.hw.params import Buffers, Bus, Config
from covta.hw.rtl.alu import AluEngine

MACHINES = {
    "mul2": {"alu_mul_lanes": 2},
    "mul4-rqt": {"alu_mul_lanes": 1, "extensions": ("requantize",)},
    "mul1-acc16-rqt": {"alu_mul_lanes": 4, "acc_bits": 16, "extensions": ("requantize",)},
    "batch2-mul8-acc16": {"alu_mul_lanes": 1, "acc_bits": 16, "batch": 2},
    "mul4-packed": {"alu_mul_lanes": 1, "dsp_pack": True},
}


def _machine(name: str) -> Config:
    cfg = {"batch": 1, "block_in": 4, "block_out": 4, "acc_bits": 32, **MACHINES[name]}
    lanes = cfg["batch"] * 4
    return Config(
        **cfg,
        buffers=Buffers(uop=128, inp=16 * lanes, wgt=64, acc=16 * lanes * cfg["acc_bits"] // 8),
        bus=Bus(data_bits=32),
    )


# ---- golden ----------------------------------------------------------------------------------
def golden_lane(cfg: Config, op: int, a: int, b: int) -> int:
    """One operation on Python integers, then wrapped to ``acc_bits``."""
    bits = cfg.acc_bits
    match AluOp(op):
        case AluOp.MIN:
            value = min(a, b)
        case AluOp.MAX:
            value = max(a, b)
        case AluOp.ADD:
            value = a + b
        case AluOp.MUL:
            value = a * b
        case AluOp.SHR:
            value = a >> min(b, 64) if b >= 0 else a << min(-b, 64)
        case AluOp.RQT:
            shift, rounds, relu = b & 31, b >> 5 & 1, b >> 6 & 1
            value = (a + (1 << (shift - 1) if rounds and shift else 0)) >> shift
            high = (1 << (cfg.out_bits - 1)) - 1
            value = min(max(value, 0 if relu else -high - 1), high)
    return (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


@dataclass
class Insn:
    """One ALU instruction and its resolved operations."""

    fields: dict[str, int]
    gap_cycles: int
    operations: list[tuple[int, int]] = field(default_factory=list)

    def resolve(self, uops) -> Insn:
        f = self.fields
        for y in range(f["iter_out"]):
            for x in range(f["iter_in"]):
                for u in range(f["uop_bgn"], f["uop_end"]):
                    dst, src = uops[u]
                    self.operations.append(
                        (
                            dst + y * f["dst_factor_out"] + x * f["dst_factor_in"],
                            src + y * f["src_factor_out"] + x * f["src_factor_in"],
                        )
                    )
        return self


def golden_run(cfg: Config, acc: np.ndarray, insns: list[Insn]) -> list[tuple[int, list[int]]]:
    """Writes in order: address and lanes."""
    writes = []
    for insn in insns:
        f = insn.fields
        for dst, src in insn.operations:
            other = [f["imm"]] * cfg.lanes if f["use_imm"] else acc[src]
            acc[dst] = [
                golden_lane(cfg, f["alu_opcode"], int(a), int(b))
                for a, b in zip(acc[dst], other, strict=True)
            ]
            writes.append((dst, acc[dst].tolist()))
    return writes


class Schedule:
    """The recurrence of the engine's docstring."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.g: list[int] = []
        self.e: list[int] = []
        self.f: list[int] = []
        self.w: list[int] = []
        self.mul: list[bool] = []
        self.last_write: dict[int, int] = {}

    def accepts(self) -> int:
        """First cycle in which an instruction can be accepted."""
        return self.g[-1] if self.g else 0

    def add(self, insn: Insn, start: int) -> None:
        mul, imm = insn.fields["alu_opcode"] == AluOp.MUL, insn.fields["use_imm"]
        kept = None
        for n, (dst, src) in enumerate(insn.operations):
            reads = 1 if (n if imm else src == kept) else 2
            kept = src if dst != src else None
            k = len(self.g)
            g = start + AluEngine.START_TO_GENERATE
            if k:
                g = max(g, self.g[-1] + 1)
            if k >= AluEngine.QUEUE:
                g = max(g, self.e[k - AluEngine.QUEUE] + 1)
            f = g + AluEngine.GENERATE_TO_READ + reads - 1
            if k:
                gap = self.cfg.mul_cycles if self.mul[-1] else 1
                if self.mul[-1] and not mul:
                    gap += AluEngine.MUL_EXTRA
                f = max(f, self.f[-1] + max(reads, gap))
            for address in {dst} | (set() if imm else {src}):
                f = max(f, self.last_write.get(address, -100) + reads)
            self.g.append(g)
            self.e.append(f - reads + 1)
            self.f.append(f)
            self.mul.append(mul)
            lasts = self.cfg.mul_cycles - 1 + AluEngine.MUL_EXTRA if mul else 0
            self.w.append(f + AluEngine.READ_TO_WRITE + lasts)
            self.last_write[dst] = self.w[-1]


# ---- random programs -------------------------------------------------------------------------
def _value(rng: random.Random, bits: int) -> int:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice([-(1 << bits - 1), (1 << bits - 1) - 1, -1, 0, 1])
    if kind == 1:
        return rng.randrange(-40, 41)
    value = rng.getrandbits(bits) >> rng.randrange(bits)
    value = -value if rng.random() < 0.5 else value
    return max(min(value, (1 << bits - 1) - 1), -(1 << bits - 1))


def _program(cfg: Config, rng: random.Random, count: int):
    depth, uops = cfg.acc_depth, []
    for _ in range(cfg.uop_depth):
        dst = rng.randrange(depth // 2)
        kept = uops[-1][1] if uops else dst
        uops.append((dst, rng.choice([dst, kept, rng.randrange(depth // 2)])))
    for distance in range(1, 9):  # the reader follows the writer at every distance
        base = distance + 8
        uops[base] = (uops[base][0], uops[base - distance][0])
    insns = []
    while len(insns) < count:
        single = rng.random() < 0.4
        bgn = rng.randrange(cfg.uop_depth)
        end = bgn + 1 if single else rng.randrange(bgn + 1, min(bgn + 14, cfg.uop_depth) + 1)
        op = rng.choice(sorted(isa(cfg).alu_ops))
        fields = {
            "uop_bgn": bgn,
            "uop_end": end,
            "iter_out": rng.choice([1, 1, 2, 3]),
            "iter_in": rng.choice([1, 1, 2, 5]),
            "alu_opcode": int(op),
            "use_imm": rng.randrange(2),
            "imm": rng.choice([rng.randrange(-40, 128), _value(rng, 16)]),
            **{
                f"{name}_factor_{level}": rng.randrange(3)
                for name in ("dst", "src")
                for level in ("out", "in")
            },
        }
        insn = Insn(fields, rng.choice([0, 0, 0, 1, 7, 30])).resolve(uops)
        if len(insn.operations) <= 60 and max(map(max, insn.operations)) < depth:
            insns.append(insn)
    return uops, insns


# ---- bench -----------------------------------------------------------------------------------
def _unpack(cfg: Config, word: int) -> list[int]:
    mask, sign = (1 << cfg.acc_bits) - 1, 1 << cfg.acc_bits - 1
    lanes = [word >> k * cfg.acc_bits & mask for k in range(cfg.lanes)]
    return [(lane ^ sign) - sign for lane in lanes]


def _pack(cfg: Config, lanes) -> int:
    mask = (1 << cfg.acc_bits) - 1
    return sum((int(v) & mask) << k * cfg.acc_bits for k, v in enumerate(lanes))


@dataclass
class Observed:
    """What the engine did, by cycle."""

    starts: list[int] = field(default_factory=list)
    issues: list[int] = field(default_factory=list)
    writes: list[tuple[int, int, list[int]]] = field(default_factory=list)
    dones: list[int] = field(default_factory=list)
    busy: set[int] = field(default_factory=set)
    hold: set[int] = field(default_factory=set)


def simulate(cfg: Config, uops, insns: list[Insn], acc: np.ndarray, cycles: int) -> Observed:
    dut = AluEngine(cfg)
    seen = Observed()
    uop_words = [isa(cfg).uop.encode(dst=d, src=s) for d, s in uops]
    words = [_pack(cfg, row) for row in acc]
    garbage = random.Random(5)

    async def bench(ctx):
        uop_pipe, rd_pipe = [None, None], [None, None]
        pending, wait, t = list(insns), insns[0].gap_cycles, 0
        while len(seen.dones) < len(insns):
            assert t < cycles, "the engine hangs"
            # data of addresses presented two cycles ago; anything if nothing was read
            word = uop_pipe.pop(0)
            ctx.set(dut.uop_data, garbage.getrandbits(32) if word is None else word)
            word = rd_pipe.pop(0)
            ctx.set(dut.rd_data, garbage.getrandbits(cfg.acc_elem_bits) if word is None else word)
            ctx.set(dut.start.valid, bool(pending) and wait == 0)
            if pending:
                ctx.set(dut.start.payload, pending[0].fields)
            if ctx.get(dut.start.valid) and ctx.get(dut.start.ready):
                seen.starts.append(t)
                pending.pop(0)
                wait = pending[0].gap_cycles if pending else 0
            elif wait:
                wait -= 1
            if ctx.get(dut.uop_hold):
                seen.hold.add(t)
            if ctx.get(dut.uop_en):
                assert t in seen.hold
                address = ctx.get(dut.uop_addr)
                uop_pipe.append(uop_words[address])
            else:
                uop_pipe.append(None)
            rd_pipe.append(words[ctx.get(dut.rd_addr)] if ctx.get(dut.rd_en) else None)
            if ctx.get(dut.imm_en):
                rd_pipe[0] = _pack(cfg, [ctx.get(dut.imm)] * cfg.lanes)
            if ctx.get(dut.wr_en):
                address, word = ctx.get(dut.wr_addr), ctx.get(dut.wr_data)
                words[address] = word
                seen.writes.append((t, address, _unpack(cfg, word)))
            if ctx.get(dut.issue):
                seen.issues.append(t)
            if ctx.get(dut.done):
                seen.dones.append(t)
            if ctx.get(dut.busy):
                seen.busy.add(t)
            await ctx.tick()
            t += 1

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return seen


def check(cfg: Config, uops, insns: list[Insn], acc: np.ndarray) -> Observed:
    """Run, and compare data and every cycle with golden model and recurrence."""
    total = sum(len(i.operations) for i in insns)
    cycles = 100 + total * 20 + sum(i.gap_cycles for i in insns)
    seen = simulate(cfg, uops, insns, acc.copy(), cycles)
    wanted = golden_run(cfg, acc, insns)
    assert [(a, v) for _, a, v in seen.writes] == wanted

    schedule = Schedule(cfg)
    offered, busy, hold, dones = 0, set(), set(), []
    for insn, start in zip(insns, seen.starts, strict=True):
        first = len(schedule.g)
        offered += insn.gap_cycles
        assert start == max(offered, schedule.accepts())
        offered = start + 1
        schedule.add(insn, start)
        dones.append(schedule.w[-1] + 1)
        busy |= set(range(start + 1, schedule.w[-1] + 1))
        single = insn.fields["uop_end"] - insn.fields["uop_bgn"] == 1
        hold |= set(range(start + 1, schedule.g[first if single else -1] + 3))
    assert [t for t, _, _ in seen.writes] == schedule.w
    assert seen.issues == schedule.e
    assert seen.dones == dones
    assert seen.busy == busy
    assert seen.hold == hold
    return seen


def _random_acc(cfg: Config, rng: random.Random) -> np.ndarray:
    rows = [[_value(rng, cfg.acc_bits) for _ in range(cfg.lanes)] for _ in range(cfg.acc_depth)]
    return np.array(rows, dtype=np.int64)


# ---- tests -----------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("machine", MACHINES)
def test_random_programs_match_golden_and_recurrence(machine, seed):
    cfg = _machine(machine)
    rng = random.Random(seed)
    uops, insns = _program(cfg, rng, 30)
    check(cfg, uops, insns, _random_acc(cfg, rng))


@pytest.mark.parametrize("machine", MACHINES)
def test_every_operation_on_extremes(machine):
    """Two operands, lane by lane, from a product of extreme values and shift amounts."""
    cfg = _machine(machine)
    n = cfg.acc_bits
    low, high = -(1 << n - 1), (1 << n - 1) - 1
    left = [low, low + 1, -129, -128, -1, 0, 1, 127, 128, 255, high - 1, high, 0x5A5A, -0x5A5B]
    right = [*range(-n - 1, n + 2), low, high, -1 << 8, 1 << 8, 64 - n, *range(32, 128, 5)]
    pairs = [(a, b) for a in left for b in right]
    rows = (cfg.acc_depth // 2) * cfg.lanes
    rng = random.Random(1)
    for op in sorted(isa(cfg).alu_ops):
        chosen = rng.sample(pairs, rows * 4) if len(pairs) > rows * 4 else pairs
        for k in range(0, len(chosen) - rows + 1, rows):
            part = np.array(chosen[k : k + rows], dtype=np.int64)
            acc = np.concatenate([part[:, 0], part[:, 1]]).reshape(-1, cfg.lanes)
            half = cfg.acc_depth // 2
            fields = _fields(alu_opcode=int(op), iter_in=half, dst_factor_in=1, src_factor_in=1)
            uops = [(0, half)]
            check(cfg, uops, [Insn(fields, 0).resolve(uops)], acc)


def _fields(**changes: int) -> dict[str, int]:
    names = ("dst_factor_out", "dst_factor_in", "src_factor_out", "src_factor_in", "use_imm", "imm")
    base = {"uop_bgn": 0, "uop_end": 1, "iter_out": 1, "iter_in": 1, "alu_opcode": int(AluOp.ADD)}
    return {**base, **dict.fromkeys(names, 0), **changes}


@pytest.mark.parametrize("distance", range(1, 9))
@pytest.mark.parametrize("use_imm", [0, 1])
def test_reader_waits_for_the_writer_at_every_distance(distance, use_imm):
    """A chain through `distance` elements: every operation reads what one `distance` ago wrote."""
    cfg = _machine("mul2")
    uops = [(k % distance, (k + 1) % distance if distance > 1 else 0) for k in range(16)]
    insn = Insn(_fields(uop_end=16, use_imm=use_imm, imm=3), 0).resolve(uops)
    seen = check(cfg, uops, [insn], _random_acc(cfg, random.Random(distance)))
    if use_imm and distance >= 5:
        assert seen.issues[-1] - seen.issues[0] == 16  # the immediate, then one a cycle


@pytest.mark.parametrize(
    ("op", "use_imm", "interval"), [("ADD", 1, 1), ("ADD", 0, 2), ("MUL", 1, 4)]
)
def test_steady_rate_without_a_bubble_between_instructions(op, use_imm, interval):
    cfg = _machine("mul4-rqt")
    uops = [(0, 8)]
    fields = _fields(alu_opcode=int(AluOp[op]), use_imm=use_imm, imm=3)
    fields |= {"iter_in": 8, "dst_factor_in": 1, "src_factor_in": 1}
    insns = [Insn(dict(fields), 0).resolve(uops) for _ in range(3)]
    seen = check(cfg, uops, insns, _random_acc(cfg, random.Random(0)))
    steps = [interval] * 23
    if use_imm:  # the first operation of an instruction issues a cycle early, for the immediate
        steps[::8] = [interval + 1] * 3
        steps[7::8] = [max(interval - 1, 1)] * 2
    assert np.diff(seen.issues).tolist() == steps
