"""Read engine, burst generator, loader and load unit against golden models, cycle by cycle."""

from collections import deque

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.sim import Simulator

from covta.hw.faults import FaultCause
from covta.hw.isa import MemoryType, Opcode, isa
from covta.hw.params import Config
from covta.hw.rtl.burst_generator import BurstGenerator
from covta.hw.rtl.interfaces import uop_banks
from covta.hw.rtl.load_unit import LoadUnit
from covta.hw.rtl.loader import IN_FLIGHT, Loader
from covta.hw.rtl.read_engine import ReadEngine

TINY = Config.from_dict(
    {
        "block_in": 4,
        "block_out": 4,
        "buffers": {"uop": 256, "inp": 256, "wgt": 512, "acc": 1024},
        "bus": {"data_bits": 32, "max_burst_beats": 4, "max_outstanding": 4},
        "extensions": ["pad_min"],
    }
)
MEDIUM = Config.from_dict(
    {
        "block_in": 8,
        "block_out": 8,
        "wgt_bits": 4,
        "buffers": {"uop": 1024, "inp": 1024, "wgt": 2048, "acc": 4096},
        "bus": {"data_bits": 64, "max_burst_beats": 16},
        "extensions": ["pad_min"],
    }
)
WIDE = Config.from_dict(
    {
        "inp_bits": 16,
        "buffers": {"uop": 2048, "inp": 2048, "wgt": 8192, "acc": 4096},
        "bus": {"data_bits": 128, "max_burst_beats": 256, "addr_bits": 40},
    }
)
CONFIGS = [pytest.param(c, id=n) for n, c in (("tiny", TINY), ("medium", MEDIUM), ("wide", WIDE))]
LOAD_TYPES = (MemoryType.INP, MemoryType.WGT)
COMPUTE_TYPES = (MemoryType.UOP, MemoryType.ACC, MemoryType.ACC_8BIT)
TYPES = [pytest.param(LOAD_TYPES, id="load"), pytest.param(COMPUTE_TYPES, id="compute")]
DRAM_BYTES = 1 << 16
WINDOW = (0x10000, 0x10000 + DRAM_BYTES - 1)


# ---- golden models -----------------------------------------------------------------------------
def split_rows(cfg, addr, rows, row_bytes, stride_bytes):
    """Bursts of a block, as (address, beats)."""
    bursts = []
    for y in range(rows):
        first = (addr + y * stride_bytes) // cfg.bus_bytes
        end = -(-(addr + y * stride_bytes + row_bytes) // cfg.bus_bytes)
        while first < end:
            page_end = (first * cfg.bus_bytes // 4096 + 1) * 4096 // cfg.bus_bytes
            beats = min(end, page_end, first + cfg.bus.max_burst_beats) - first
            bursts.append((first * cfg.bus_bytes, beats))
            first += beats
    return bursts


def byte_address(cfg, base_ptr, transfer):
    t = transfer["memory_type"]
    return base_ptr[t] + transfer["dram_base"] * isa(cfg).elem_bytes(t)


def transfer_bursts(cfg, base_ptr, transfer):
    if not (transfer["x_size"] and transfer["y_size"]):
        return []
    size = isa(cfg).elem_bytes(transfer["memory_type"])
    return split_rows(
        cfg,
        byte_address(cfg, base_ptr, transfer),
        transfer["y_size"],
        transfer["x_size"] * size,
        transfer["x_stride"] * size,
    )


def element_steps(cfg, base_ptr, transfer):
    """The Receiver's steps: (is data, elements completed) each."""
    t = transfer["memory_type"]
    size = isa(cfg).elem_bytes(t)
    if not (transfer["x_size"] and transfer["y_size"]):
        return [(False, 0)]
    total = transfer["x_pad_0"] + transfer["x_size"] + transfer["x_pad_1"]
    steps = [(False, 1)] * (transfer["y_pad_0"] * total)
    for y in range(transfer["y_size"]):
        start = byte_address(cfg, base_ptr, transfer) + y * transfer["x_stride"] * size
        end = start + transfer["x_size"] * size
        steps += [(False, 1)] * transfer["x_pad_0"]
        while start < end:
            beat_end = min(end, (start // cfg.bus_bytes + 1) * cfg.bus_bytes)
            elems = (beat_end - start) // size if t == MemoryType.UOP else beat_end % size == 0
            steps.append((True, int(elems)))
            start = beat_end
        steps += [(False, 1)] * transfer["x_pad_1"]
    return steps + [(False, 1)] * (transfer["y_pad_1"] * total)


def pad_element(cfg, t, pad_min):
    lanes, bits = {
        MemoryType.UOP: (1, 32),
        MemoryType.INP: (cfg.batch * cfg.block_in, cfg.inp_bits),
        MemoryType.WGT: (cfg.block_out * cfg.block_in, cfg.wgt_bits),
        MemoryType.ACC: (cfg.lanes, cfg.acc_bits),
        MemoryType.ACC_8BIT: (cfg.lanes, cfg.acc_bits),
    }[t]
    if not pad_min or t == MemoryType.UOP:
        return 0
    least = -128 if t == MemoryType.ACC_8BIT else -(1 << (bits - 1))
    return sum((least & ((1 << bits) - 1)) << (k * bits) for k in range(lanes))


def load_block(cfg, base_ptr, dram, transfer):
    """Elements of the dense block, as integers."""
    t = transfer["memory_type"]
    if not (transfer["x_size"] and transfer["y_size"]):
        return []
    size = isa(cfg).elem_bytes(t)
    pad = pad_element(cfg, t, transfer["pad_min"])
    total = transfer["x_pad_0"] + transfer["x_size"] + transfer["x_pad_1"]
    block = [pad] * (transfer["y_pad_0"] * total)
    for y in range(transfer["y_size"]):
        block += [pad] * transfer["x_pad_0"]
        for x in range(transfer["x_size"]):
            at = byte_address(cfg, base_ptr, transfer) - WINDOW[0]
            at += (y * transfer["x_stride"] + x) * size
            raw = dram[at : at + size].tobytes()
            if t == MemoryType.ACC_8BIT:
                wide = np.frombuffer(raw, np.int8).astype(np.int64)
                mask = (1 << cfg.acc_bits) - 1
                block.append(sum((int(v) & mask) << (k * cfg.acc_bits) for k, v in enumerate(wide)))
            else:
                block.append(int.from_bytes(raw, "little"))
        block += [pad] * transfer["x_pad_1"]
    return block + [pad] * (transfer["y_pad_1"] * total)


class Memory:
    """AXI read slave: latency, bursts in flight, random stalls, SLVERR at some addresses."""

    def __init__(self, cfg, dram, rng, *, latency=6, stall=0.0, errors=()):
        self.cfg, self.dram, self.rng = cfg, dram, rng
        self.latency, self.stall, self.errors = latency, stall, errors
        self.bursts = deque()
        self.taken = []
        self.holding = False

    def drive(self, ctx, axi, t):
        self.ar_ready = self.rng.random() >= self.stall
        ctx.set(axi.ar.ready, self.ar_ready)
        due = bool(self.bursts) and t >= self.bursts[0][2]
        self.valid = due and (self.holding or self.rng.random() >= self.stall)
        ctx.set(axi.r.valid, self.valid)
        if self.valid:
            addr, beats, _ = self.bursts[0]
            at = addr - WINDOW[0]
            word = int.from_bytes(self.dram[at : at + self.cfg.bus_bytes].tobytes(), "little")
            ctx.set(axi.r.p.data, word)
            ctx.set(axi.r.p.last, beats == 1)
            ctx.set(axi.r.p.resp, 2 if addr in self.errors else 0)

    def sample(self, ctx, axi, t):
        if self.valid:
            self.holding = not ctx.get(axi.r.ready)
            if not self.holding:
                addr, beats, due = self.bursts.popleft()
                if beats > 1:
                    self.bursts.appendleft((addr + self.cfg.bus_bytes, beats - 1, due))
        if self.ar_ready and ctx.get(axi.ar.valid):
            addr, beats = ctx.get(axi.ar.p.addr), ctx.get(axi.ar.p.beats_m1) + 1
            assert addr // 4096 == (addr + beats * self.cfg.bus_bytes - 1) // 4096
            self.taken.append((t, addr, beats))
            self.bursts.append((addr, beats, t + self.latency))


class Scratchpads:
    """Takes what a Loader writes; `sample` tells whether anything was written."""

    def __init__(self, cfg, loader):
        self.cfg, self.loader = cfg, loader
        self.content = {}

    def _slices(self, ctx, name, addr, mask, data, width):
        old = self.content.get((name, addr), 0)
        for k in range(mask.bit_length()):
            if mask >> k & 1:
                field = ((1 << width) - 1) << (k * width)
                old = old & ~field | data << (k * width)
        self.content[name, addr] = old

    def sample(self, ctx):
        cfg, written = self.cfg, False
        bus_bits = cfg.bus.data_bits
        for name in ("inp", "wgt"):
            port = getattr(self.loader, name, None)
            if port is not None and ctx.get(port.en):
                addr = ctx.get(port.addr)
                elem_bits = getattr(cfg, f"{name}_elem_bits")
                every = (1 << elem_bits // bus_bits) - 1
                mask = every if ctx.get(port.whole) else 1 << ctx.get(port.slice)
                self._slices(ctx, name, addr, mask, ctx.get(port.data), bus_bits)
                written = True
        if not hasattr(self.loader, "acc"):
            return written
        acc, uop = self.loader.acc, self.loader.uop
        if ctx.get(acc.en):
            self._sample_acc(ctx, acc)
            written = True
        banks = uop_banks(cfg)
        for b in range(banks):
            if ctx.get(uop.en) >> b & 1:
                self.content["uop", ctx.get(uop.row[b]) * banks + b] = ctx.get(uop.data[b])
                written = True
        return written

    def _sample_acc(self, ctx, acc):
        cfg = self.cfg
        addr, mask, narrow = ctx.get(acc.addr), ctx.get(acc.mask), ctx.get(acc.narrow)
        bits, per_slice = cfg.acc_bits, cfg.bus.data_bits // cfg.acc_bits
        word, data = self.content.get(("acc", addr), 0), ctx.get(acc.data)
        for lane in range(cfg.lanes):
            if not mask >> (lane // per_slice) & 1:
                continue
            if ctx.get(acc.pad):
                low = -128 if narrow else -(1 << (bits - 1))
                value = low if ctx.get(acc.pad_min) else 0
            elif narrow:
                value = data >> (lane % cfg.bus_bytes * 8) & 0xFF
                value -= (value & 0x80) << 1
            else:
                value = data >> (lane % per_slice * bits)
            field = (1 << bits) - 1
            word = word & ~(field << lane * bits) | (value & field) << lane * bits
        self.content["acc", addr] = word


class LoaderTiming:
    """The documented cycle rules of a Loader behind a read engine that it has for itself."""

    def __init__(self, cfg, base_ptr):
        self.cfg, self.base_ptr = cfg, base_ptr
        self.in_flight = 0
        self.ahead, self.row, self.burst = deque(), deque(), deque()
        self.descriptors, self.steps = deque(), deque()
        self.wrote = self.done = False
        self.last_step = False

    def outputs(self):
        """`i.ready`, `request.valid`, `beat.ready`, `wrote`, `done` of this cycle."""
        data = bool(self.steps) and self.steps[0][0]
        return self.in_flight != IN_FLIGHT, bool(self.burst), data, self.wrote, self.done

    def tick(self, accepted, request_ready, beat_valid):
        self.in_flight += (accepted is not None) - self.done
        # burst stage, row stage, queue
        row_empty = not self.row
        if self.burst and request_ready:
            self.burst.popleft()
        if not self.burst and self.row:
            self.burst.extend(self.row.popleft())
        if row_empty and self.ahead:
            self.row.extend(self.ahead.popleft())
        # receiver
        self.wrote = self.done = False
        if self.steps:
            data, elems = self.steps[0]
            if not data or beat_valid:
                self.steps.popleft()
                self.wrote = data or elems > 0
                self.done = not self.steps
        if not self.steps and self.descriptors:
            self.steps.extend(self.descriptors.popleft())
        if accepted is not None:
            self.descriptors.append(element_steps(self.cfg, self.base_ptr, accepted))
            if accepted["x_size"] and accepted["y_size"]:
                base, stride = accepted["dram_base"], accepted["x_stride"]
                starts = [base + y * stride for y in range(accepted["y_size"])]
                rows = [accepted | {"y_size": 1, "dram_base": at} for at in starts]
                self.ahead.append([transfer_bursts(self.cfg, self.base_ptr, r) for r in rows])


# ---- stimulus ----------------------------------------------------------------------------------
def random_transfer(rng, cfg, types, k):
    t = MemoryType(rng.choice(types))
    depth = isa(cfg).depth(t)
    pads = {n: int(rng.choice([0, 0, 1, 3])) for n in ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1")}
    while True:
        x, y = int(rng.integers(0, 9)), int(rng.integers(0, 5))
        if rng.random() < 0.1:
            x, y = int(rng.integers(8, 40)), 1
        rows = y + pads["y_pad_0"] + pads["y_pad_1"]
        elems = rows * (x + pads["x_pad_0"] + pads["x_pad_1"])
        if elems <= depth:
            break
        pads = {n: p // 2 for n, p in pads.items()}
    stride = int(rng.integers(0, 30))
    room = (DRAM_BYTES - 64 * 6) // isa(cfg).elem_bytes(t) - stride * y - x
    return {
        "memory_type": t,
        "sram_base": int(rng.integers(0, depth - elems + 1)),
        "dram_base": int(rng.integers(0, min(room, 4096))),
        "y_size": y,
        "x_size": x,
        "x_stride": stride,
        **pads,
        "pad_min": int(cfg.has("pad_min") and rng.integers(0, 2)),
        "index": k,
    }


def set_payload(ctx, payload, values):
    for name, value in values.items():
        ctx.set(payload[name], int(value))


class Bench:
    """A Loader (or LoadUnit) alone behind a read engine and a memory."""

    def __init__(self, cfg, dut, *, seed=0, **memory):
        self.cfg, self.dut = cfg, dut
        self.rng = np.random.default_rng(seed)
        self.dram = self.rng.integers(0, 256, DRAM_BYTES, dtype=np.uint8)
        self.memory = Memory(cfg, self.dram, self.rng, **memory)
        self.base_ptr = [WINDOW[0] + 64 * k for k in range(6)]
        self.engine = ReadEngine(cfg, clients=2)
        self.module = Module()
        self.module.submodules.dut = dut
        self.module.submodules.engine = self.engine
        wiring.connect(self.module, dut.client, self.engine.clients[1])
        self.pads = Scratchpads(cfg, dut)

    def run(self, body):
        async def bench(ctx):
            for k, base in enumerate(self.base_ptr):
                ctx.set(self.dut.base_ptr[k], base)
            ctx.set(self.dut.window_base, WINDOW[0])
            ctx.set(self.dut.window_last, WINDOW[1])
            await body(ctx)

        sim = Simulator(self.module)
        sim.add_clock(1e-6)
        sim.add_testbench(bench)
        sim.run()

    def golden(self, transfers):
        names = {MemoryType.ACC_8BIT: "acc"}
        content = {}
        for transfer in transfers:
            t = transfer["memory_type"]
            name = names.get(t, t.name.lower())
            block = load_block(self.cfg, self.base_ptr, self.dram, transfer)
            for k, value in enumerate(block):
                content[name, transfer["sram_base"] + k] = value
        return content


def run_loader(bench, transfers, *, idle=0.0, cycles=20000):
    """Feed transfers; compare every cycle with the timing rules; returns cycles of `done`."""
    dut, axi = bench.dut, bench.engine.axi
    timing = LoaderTiming(bench.cfg, bench.base_ptr)
    done, accepted = [], []

    async def body(ctx):
        todo = deque(transfers)
        for t in range(cycles):
            offer = bool(todo) and bench.rng.random() >= idle
            ctx.set(dut.i.valid, offer)
            if offer:
                set_payload(ctx, dut.i.p, todo[0])
            bench.memory.drive(ctx, axi, t)
            bench.memory.sample(ctx, axi, t)
            wrote = bench.pads.sample(ctx)
            got = (
                bool(ctx.get(dut.i.ready)),
                bool(ctx.get(dut.client.request.valid)),
                bool(ctx.get(dut.client.beat.ready)),
                wrote,
                bool(ctx.get(dut.done)),
            )
            assert got == timing.outputs(), f"cycle {t}"
            assert ctx.get(dut.busy) == (timing.in_flight != 0)
            assert not ctx.get(dut.fault.valid)
            take = todo.popleft() if offer and got[0] else None
            if take is not None:
                accepted.append(t)
            if got[4]:
                done.append(t)
            timing.tick(take, ctx.get(dut.client.request.ready), ctx.get(dut.client.beat.valid))
            if len(done) == len(transfers):
                assert ctx.get(bench.engine.axi.ar.valid) == 0
                return
            await ctx.tick()
        pytest.fail("the transfers did not complete")

    bench.run(body)
    assert bench.pads.content == bench.golden(transfers)
    expected = [b for x in transfers for b in transfer_bursts(bench.cfg, bench.base_ptr, x)]
    assert [(a, n) for _, a, n in bench.memory.taken] == expected
    return accepted, done


# ---- burst generator ---------------------------------------------------------------------------
def run_generator(cfg, blocks, *, stall, granule_bytes, window=(0, 1 << 30), cycles=3000):
    """Returns accepted cycles, bursts as (cycle, address, beats), the fault as (cycle, index)."""
    dut = BurstGenerator(cfg, size_bits=20, granule_bytes=granule_bytes)
    rng = np.random.default_rng(5)
    accepted, bursts, fault = [], [], None

    async def body(ctx):
        nonlocal fault
        ctx.set(dut.window_base, window[0])
        ctx.set(dut.window_last, window[1])
        todo = deque(enumerate(blocks))
        for t in range(cycles):
            ready = rng.random() >= stall
            ctx.set(dut.o.ready, ready)
            ctx.set(dut.i.valid, bool(todo))
            if todo:
                k, (addr, rows, row_bytes, stride) = todo[0]
                block = {"addr": addr, "rows": rows, "row_bytes": row_bytes}
                set_payload(ctx, dut.i.p, block | {"stride_bytes": stride, "index": k})
            if ctx.get(dut.i.ready) and todo:
                accepted.append(t)
                todo.popleft()
            if ready and ctx.get(dut.o.valid):
                bursts.append((t, ctx.get(dut.o.p.addr), ctx.get(dut.o.p.beats_m1) + 1))
            if ctx.get(dut.fault.valid) and fault is None:
                assert ctx.get(dut.fault.cause) == FaultCause.DRAM_WINDOW
                fault = (t, ctx.get(dut.fault.index))
            await ctx.tick()
            if not todo and ctx.get(dut.idle):
                return

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(body)
    sim.run()
    return accepted, bursts, fault


def random_blocks(rng, granule_bytes, count):
    blocks = []
    for _ in range(count):
        row = int(rng.choice([1, 2, 5, 40, 700])) * granule_bytes
        rows, stride = int(rng.integers(1, 5)), int(rng.integers(0, 3000)) * granule_bytes
        blocks.append((int(rng.integers(0, 5000)) * granule_bytes, rows, row, stride))
    return blocks


@pytest.mark.parametrize("cfg", CONFIGS)
@pytest.mark.parametrize("words", [True, False], ids=["words", "beats"])
def test_bursts_match_golden_under_stalls(cfg, words):
    granule = 4 if words else cfg.bus_bytes
    blocks = random_blocks(np.random.default_rng(7), granule, 12)
    _, bursts, fault = run_generator(cfg, blocks, stall=0.4, granule_bytes=granule)
    assert [(a, n) for _, a, n in bursts] == [b for x in blocks for b in split_rows(cfg, *x)]
    assert fault is None


@pytest.mark.parametrize("cfg", CONFIGS)
def test_a_burst_leaves_every_cycle_across_rows_and_transfers(cfg):
    blocks = random_blocks(np.random.default_rng(8), 4, 12)
    _, bursts, _ = run_generator(cfg, blocks, stall=0, granule_bytes=4)
    # One cycle without a burst follows a transfer whose last row is a single burst.
    expected, t = [], 1
    for k, block in enumerate(blocks):
        count = len(split_rows(cfg, *block))
        if k:
            addr, rows, row_bytes, stride = blocks[k - 1]
            last_row = split_rows(cfg, addr + (rows - 1) * stride, 1, row_bytes, stride)
            t += len(last_row) == 1
        t += 1
        expected += range(t, t + count)
        t += count - 1
    assert [t for t, _, _ in bursts] == expected


def test_a_burst_outside_the_window_is_a_fault_of_its_transfer():
    inside, size = (0x1000, 1, 16, 0), TINY.bus_bytes
    for block in ((0xFFC, 1, 8, 0), (0x1FF0, 1, 20, 0), (0x1000, 3, 4, 0x800), (1 << 32, 1, 4, 0)):
        _, bursts, fault = run_generator(
            TINY,
            [inside, block, inside],
            stall=0,
            granule_bytes=size,
            window=(0x1000, 0x1FFF),
            cycles=40,
        )
        legal = []
        for addr, beats in split_rows(TINY, *inside) + split_rows(TINY, *block):
            if addr < 0x1000 or addr + beats * size > 0x2000:
                break
            legal.append((addr, beats))
        assert [(a, n) for _, a, n in bursts] == legal
        # A cycle without a burst follows `inside`, which is a single one.
        assert fault == (3 + len(legal), 1)


@pytest.mark.parametrize("cfg", CONFIGS)
def test_the_window_ends_at_any_byte(cfg):
    """Windows that begin and end within a few bytes of a burst's first and last byte."""
    rng = np.random.default_rng(11)
    block = (0x2F00 - 40 * cfg.bus_bytes, 3, 90 * cfg.bus_bytes, 0x1200)
    golden = split_rows(cfg, *block)
    size = cfg.bus_bytes
    faults = 0
    for _ in range(40):
        some = int(rng.integers(len(golden)))
        first = golden[rng.choice([0, some])][0] + int(rng.integers(-2, 3))
        addr, beats = golden[rng.choice([some, -1])]
        last = addr + beats * size - 1 + int(rng.integers(-2, 3)) + size * int(rng.integers(-1, 2))
        _, bursts, fault = run_generator(
            cfg, [block], stall=0.2, granule_bytes=4, window=(first, last), cycles=120
        )
        outside = [k for k, (a, n) in enumerate(golden) if a < first or a + n * size - 1 > last]
        legal = golden[: outside[0]] if outside else golden
        assert [(a, n) for _, a, n in bursts] == legal, (first, last)
        assert (fault is None) == (not outside)
        faults += fault is not None
    assert 0 < faults < 40


# ---- loader ------------------------------------------------------------------------------------
@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("cfg", CONFIGS)
def test_loads_match_golden_and_timing_rules_under_stalls(cfg, types):
    bench = Bench(cfg, Loader(cfg, types), seed=3, stall=0.3)
    transfers = [random_transfer(bench.rng, cfg, types, k) for k in range(40)]
    run_loader(bench, transfers, idle=0.3)


@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("cfg", CONFIGS)
def test_loads_match_golden_and_timing_rules_at_full_speed(cfg, types):
    bench = Bench(cfg, Loader(cfg, types), seed=4, latency=3)
    transfers = [random_transfer(bench.rng, cfg, types, k) for k in range(40)]
    run_loader(bench, transfers)


def dense(t, k, x_size, **fields):
    zero = dict.fromkeys(("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1", "pad_min", "sram_base"), 0)
    row = {"dram_base": 16 * k, "y_size": 1, "x_size": x_size, "x_stride": x_size, "index": k}
    return {"memory_type": t, **zero, **row, **fields}


@pytest.mark.parametrize("types", TYPES)
def test_back_to_back_transfers_take_one_cycle_a_beat(types):
    cfg, latency = MEDIUM, 8
    bench = Bench(cfg, Loader(cfg, types), latency=latency)
    transfers = [dense(types[k % len(types)], k, 8, y_size=2) for k in range(12)]
    accepted, done = run_loader(bench, transfers)
    steps = sum(len(element_steps(cfg, bench.base_ptr, x)) for x in transfers)
    # presented t + 3, on AR t + 4, first beat t + 4 + latency, done one cycle after the last step
    assert done[-1] - accepted[0] == 4 + latency + steps


def test_padding_and_empty_transfers_move_one_step_a_cycle():
    bench = Bench(MEDIUM, Loader(MEDIUM, LOAD_TYPES), latency=4)
    transfers = [dense(MemoryType.INP, k, 0, y_pad_0=3) for k in range(9)]
    accepted, done = run_loader(bench, transfers)
    assert accepted == list(range(9))
    assert done == list(range(3, 12))


def run_to_fault(bench, transfers, cycles=200):
    dut, axi = bench.dut, bench.engine.axi
    found = []

    async def body(ctx):
        todo = deque(transfers)
        for t in range(cycles):
            ctx.set(dut.i.valid, bool(todo))
            if todo:
                set_payload(ctx, dut.i.p, todo[0])
            bench.memory.drive(ctx, axi, t)
            bench.memory.sample(ctx, axi, t)
            bench.pads.sample(ctx)
            if ctx.get(dut.i.ready) and todo:
                todo.popleft()
            if ctx.get(dut.fault.valid):
                found.append((ctx.get(dut.fault.cause), ctx.get(dut.fault.index)))
            await ctx.tick()

    bench.run(body)
    assert len(set(found)) == 1, "one fault, which stays"
    return found[0]


@pytest.mark.parametrize("t", [*LOAD_TYPES, *COMPUTE_TYPES])
@pytest.mark.parametrize("padding", [False, True], ids=["data", "padding"])
def test_an_index_beyond_the_scratchpad_is_a_fault(t, padding):
    types = LOAD_TYPES if t in LOAD_TYPES else COMPUTE_TYPES
    bench = Bench(MEDIUM, Loader(MEDIUM, types))
    depth = isa(MEDIUM).depth(t)
    good = dense(t, 0, 3, sram_base=depth - 3)
    bad = dense(t, 1, 2, sram_base=depth - 2, x_pad_1=int(padding))
    bad |= {} if padding else {"x_size": 4, "dram_base": 0}
    assert run_to_fault(bench, [good, bad, good]) == (FaultCause.SCRATCHPAD, 1)
    assert max(addr for _, addr in bench.pads.content) == depth - 1


def test_a_bus_error_is_a_fault_and_its_beat_is_not_written():
    bench = Bench(MEDIUM, Loader(MEDIUM, LOAD_TYPES))
    bench.memory.errors = (bench.base_ptr[MemoryType.INP] + 2 * MEDIUM.inp_elem_bytes,)
    transfer = dense(MemoryType.INP, 9, 4, dram_base=0)
    assert run_to_fault(bench, [transfer]) == (FaultCause.BUS_ERROR, 9)
    assert sorted(addr for _, addr in bench.pads.content) == [0, 1]


def test_halt_stops_bursts_and_steps():
    dut = Loader(MEDIUM, LOAD_TYPES)
    bench = Bench(MEDIUM, dut)

    async def body(ctx):
        ctx.set(dut.i.valid, 1)
        set_payload(ctx, dut.i.p, dense(MemoryType.INP, 0, 8, x_pad_0=2, y_size=4))
        await ctx.tick()
        ctx.set(dut.i.valid, 0)
        ctx.set(dut.halt, 1)
        for _ in range(12):
            assert not ctx.get(dut.client.request.valid)
            assert not ctx.get(dut.client.beat.ready)
            assert not bench.pads.sample(ctx)
            assert ctx.get(dut.busy)
            await ctx.tick()

    bench.run(body)


@pytest.mark.parametrize("dram_base", [0x2000, 0xFFFF_FFFF])
def test_a_load_outside_the_window_is_a_fault(dram_base):
    bench = Bench(MEDIUM, Loader(MEDIUM, LOAD_TYPES))
    transfer = dense(MemoryType.WGT, 5, 4, dram_base=dram_base)
    assert run_to_fault(bench, [transfer]) == (FaultCause.DRAM_WINDOW, 5)
    assert bench.memory.taken == []


# ---- read engine -------------------------------------------------------------------------------
def test_engine_routes_beats_to_their_clients_and_client_0_goes_first():
    cfg, rng = TINY, np.random.default_rng(2)
    engine = ReadEngine(cfg)
    dram = np.arange(DRAM_BYTES, dtype=np.uint16).astype(np.uint8)
    memory = Memory(cfg, dram, rng, stall=0.3)
    asks = [
        deque((WINDOW[0] + 1024 * k + 64 * j, int(rng.integers(1, 5))) for j in range(12))
        for k in range(3)
    ]
    want = [
        [a - WINDOW[0] + 4 * b for a, n in queue for b in range(n)] for queue in map(list, asks)
    ]
    got = [[], [], []]

    async def body(ctx):
        for t in range(900):
            offers = [bool(queue) and rng.random() < 0.5 for queue in asks]
            readies = [rng.random() < 0.7 for _ in asks]
            for k, queue in enumerate(asks):
                client = engine.clients[k]
                ctx.set(client.request.valid, offers[k])
                ctx.set(client.beat.ready, readies[k])
                if offers[k]:
                    ctx.set(client.request.p.addr, queue[0][0])
                    ctx.set(client.request.p.beats_m1, queue[0][1] - 1)
            memory.drive(ctx, engine.axi, t)
            memory.sample(ctx, engine.axi, t)
            taken = [bool(offers[k] and ctx.get(engine.clients[k].request.ready)) for k in range(3)]
            if any(taken):
                assert taken.index(True) == offers.index(True)
            assert sum(taken) <= 1
            for k in range(3):
                beat = engine.clients[k].beat
                if ctx.get(beat.valid) and readies[k]:
                    at = memory_offset(ctx.get(beat.p.data), dram, want[k], len(got[k]))
                    got[k].append(at)
                if taken[k]:
                    asks[k].popleft()
            assert len(memory.bursts) <= cfg.bus.max_outstanding
            await ctx.tick()
        assert ctx.get(engine.idle)

    def memory_offset(word, dram, want, at):
        expected = want[at]
        assert word == int.from_bytes(dram[expected : expected + 4].tobytes(), "little")
        return expected

    sim = Simulator(engine)
    sim.add_clock(1e-6)
    sim.add_testbench(body)
    sim.run()
    assert got == want


def test_engine_sends_a_burst_a_cycle_up_to_its_limit():
    cfg, engine = TINY, ReadEngine(TINY)
    on_ar = []

    async def body(ctx):
        ctx.set(engine.axi.ar.ready, 1)
        ctx.set(engine.clients[1].request.valid, 1)
        for t in range(10):
            ctx.set(engine.clients[1].request.p.addr, 4 * t)
            if ctx.get(engine.axi.ar.valid):
                on_ar.append((t, ctx.get(engine.axi.ar.p.addr)))
            await ctx.tick()

    sim = Simulator(engine)
    sim.add_clock(1e-6)
    sim.add_testbench(body)
    sim.run()
    assert on_ar == [(k + 1, 4 * k) for k in range(cfg.bus.max_outstanding)]


def test_halt_keeps_the_burst_on_ar_and_drops_beats():
    engine = ReadEngine(TINY)
    client, ar, r = engine.clients[0], engine.axi.ar, engine.axi.r

    async def body(ctx):
        ctx.set(client.request.valid, 1)
        ctx.set(client.request.p.addr, 64)
        await ctx.tick()
        ctx.set(engine.halt, 1)
        for _ in range(3):
            assert ctx.get(ar.valid)
            assert ctx.get(ar.p.addr) == 64
            assert not ctx.get(client.request.ready)
            await ctx.tick()
        ctx.set(ar.ready, 1)
        await ctx.tick()
        assert not ctx.get(ar.valid)
        assert not ctx.get(engine.idle)
        ctx.set(r.valid, 1)
        ctx.set(r.p.last, 1)
        assert ctx.get(r.ready)
        assert not ctx.get(client.beat.valid)
        await ctx.tick()
        ctx.set(r.valid, 0)
        assert ctx.get(engine.idle)

    sim = Simulator(engine)
    sim.add_clock(1e-6)
    sim.add_testbench(body)
    sim.run()


# ---- load unit ---------------------------------------------------------------------------------
def run_unit(cfg, insns, *, tokens=None, seed=0, cycles=400, **memory):
    """Feed instructions; `tokens` are cycles in which compute pushes one. Returns events."""
    dut = LoadUnit(cfg)
    bench = Bench(cfg, dut, seed=seed, **memory)
    axi = bench.engine.axi
    events = {name: [] for name in ("enter", "pop", "push", "retired", "stall", "fault")}

    async def body(ctx):
        todo = deque(enumerate(insns))
        count = 0
        for t in range(cycles):
            ctx.set(dut.pop_next_ready, count > 0)
            ctx.set(dut.insn.valid, bool(todo))
            if todo:
                index, insn = todo[0]
                for k in range(2):
                    word = int.from_bytes(insn[8 * k : 8 * k + 8], "little")
                    ctx.set(dut.insn.p.word[k], word)
                ctx.set(dut.insn.p.index, index)
            bench.memory.drive(ctx, axi, t)
            bench.memory.sample(ctx, axi, t)
            bench.pads.sample(ctx)
            pop = ctx.get(dut.pop_next)
            if pop:
                events["pop"].append(t)
            if todo and ctx.get(dut.insn.ready):
                events["enter"].append(t)
                todo.popleft()
            if ctx.get(dut.push_next):
                events["push"].append((t, ctx.get(dut.push_index)))
            if ctx.get(dut.retired):
                events["retired"].append(t)
            if ctx.get(dut.token_stall):
                events["stall"].append(t)
            if ctx.get(dut.fault.valid):
                events["fault"].append((t, ctx.get(dut.fault.cause), ctx.get(dut.fault.index)))
            count += (t in (tokens or ())) - pop
            await ctx.tick()
            if not todo and ctx.get(dut.idle) == 0 and not ctx.get(dut.busy):
                pytest.fail("not idle without work")

    bench.run(body)
    return bench, events


def load_insn(cfg, **fields):
    return isa(cfg).encode(
        Opcode.LOAD, **{"memory_type": MemoryType.INP, "x_size": 2, "y_size": 1} | fields
    )


def test_unit_pops_waits_and_pushes_in_order():
    cfg = MEDIUM
    insns = [
        load_insn(cfg, push_next=1),
        load_insn(cfg, pop_next=1, sram_base=4, memory_type=MemoryType.WGT),
        load_insn(cfg, pop_next=1, x_size=0, push_next=1),
        load_insn(cfg, push_next=1, sram_base=8),
    ]
    bench, events = run_unit(cfg, insns, tokens=(5, 9), latency=6)
    assert events["enter"] == [0, 6, 10, 11]
    assert events["pop"] == [6, 10]
    assert events["stall"] == [1, 2, 3, 4, 5, 7, 8, 9]
    assert [i for _, i in events["push"]] == [0, 2, 3]
    assert [t for t, _ in events["push"]] == [events["retired"][k] for k in (0, 2, 3)]
    # accepted 0, presented 3, on AR 4, beats 10 and 11, done 12
    assert events["retired"][0] == 12
    assert not events["fault"]
    written = sorted(bench.pads.content)
    assert written == [("inp", 0), ("inp", 1), ("inp", 8), ("inp", 9), ("wgt", 4), ("wgt", 5)]


def with_bit(insn, bit):
    return (int.from_bytes(insn, "little") | 1 << bit).to_bytes(16, "little")


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda c: load_insn(c, pop_prev=1), id="pop_prev"),
        pytest.param(lambda c: load_insn(c, push_prev=1), id="push_prev"),
        pytest.param(lambda c: load_insn(c, memory_type=MemoryType.ACC), id="acc"),
        pytest.param(lambda c: load_insn(c, memory_type=7), id="type-7"),
        pytest.param(lambda c: isa(c).encode(Opcode.GEMM), id="gemm"),
        pytest.param(lambda c: with_bit(load_insn(c), 63), id="stray-bit"),
    ],
)
def test_unit_reports_an_illegal_instruction_once_those_before_are_complete(spoil):
    _, events = run_unit(MEDIUM, [load_insn(MEDIUM), spoil(MEDIUM)], cycles=40)
    assert len(events["enter"]) == 1
    first, cause, index = events["fault"][0]
    assert (cause, index) == (FaultCause.ILLEGAL_INSTRUCTION, 1)
    assert first == events["retired"][0] + 1


def test_pad_min_without_the_extension_is_illegal():
    _, events = run_unit(WIDE, [with_bit(load_insn(WIDE), 58)], cycles=10)
    assert events["fault"][0] == (0, FaultCause.ILLEGAL_INSTRUCTION, 0)
