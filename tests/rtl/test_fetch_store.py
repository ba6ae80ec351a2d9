"""Fetch, the write engine and the store unit against golden models, under random stalls."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.sim import Simulator

from covta.hw.faults import FaultCause
from covta.hw.isa import Isa, MemoryType, Opcode, isa
from covta.hw.params import Config, load_config
from covta.hw.rtl.fetch import Fetch, fetch_buffer_beats, fetch_burst_beats
from covta.hw.rtl.store_unit import ELEM_DEPTH, OUT_LATENCY_CYCLES, RETIRE_DEPTH, StoreUnit
from covta.hw.rtl.write_engine import WriteEngine

LIMIT_CYCLES = 6000
PAGE_BYTES = 4096
UNITS = ("load", "compute", "store")


def simulate(dut, bench) -> None:
    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


def words(insn: bytes) -> tuple[int, int]:
    return int.from_bytes(insn[:8], "little"), int.from_bytes(insn[8:], "little")


# ---- fetch ---------------------------------------------------------------------------------
def stream_of(x: Isa, count: int, rng: random.Random) -> list[bytes]:
    """Random instructions with known opcodes, every memory type, random other bits."""
    stream = []
    for _ in range(count):
        insn = bytearray(rng.randbytes(16))
        insn[0] = (insn[0] & ~7) | rng.choice([0, 0, 0, 1, 2, 3, 4])
        stream.append(bytes(insn))
    return stream


def unit_of(insn: bytes) -> str:
    word = int.from_bytes(insn[:8], "little")
    opcode, memory_type = word & 7, word >> 7 & 7
    if opcode == Opcode.LOAD and memory_type in (MemoryType.INP, MemoryType.WGT):
        return "load"
    return "store" if opcode == Opcode.STORE else "compute"


@dataclass
class FetchRun:
    """What a run of fetch did."""

    queues: dict[str, list[tuple[int, tuple[int, int]]]] = field(
        default_factory=lambda: {u: [] for u in UNITS}
    )
    bursts: list[tuple[int, int]] = field(default_factory=list)
    handed: list[int] = field(default_factory=list)
    offered: dict[str, list[int]] = field(default_factory=lambda: {u: [] for u in UNITS})
    requested: list[int] = field(default_factory=list)
    inputs: list[tuple[bool, bool, dict[str, bool]]] = field(default_factory=list)
    fault: tuple[int, int] | None = None
    fault_cycle: int | None = None
    idle_cycle: int | None = None


def run_fetch(
    cfg: Config,
    memory: dict[int, bytes],
    addr: int,
    count: int,
    *,
    rng: random.Random | None = None,
    latency: int = 5,
    window: tuple[int, int] | None = None,
    bad_beats: frozenset[int] = frozenset(),
) -> FetchRun:
    """Serve fetch from `memory` (a beat's bytes by address); with `rng`, stall at random."""
    dut, run = Fetch(cfg), FetchRun()
    base, last = window or (0, (1 << cfg.bus.addr_bits) - 1)

    def free() -> bool:
        return rng is None or rng.random() < 0.6

    async def bench(ctx):
        ctx.set(dut.window_base, base)
        ctx.set(dut.window_last, last)
        ctx.set(dut.insn_addr, addr)
        ctx.set(dut.insn_count, count)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        pending: deque[tuple[int, int, bool]] = deque()
        request, beat = dut.client.request, dut.client.beat
        for t in range(LIMIT_CYCLES):
            ctx.set(request.ready, free())
            give = bool(pending) and pending[0][0] <= t and free()
            ctx.set(beat.valid, give)
            if give:
                _, at, end = pending.popleft()
                value = int.from_bytes(memory.get(at, bytes(cfg.bus_bytes)), "little")
                ctx.set(beat.p, {"data": value, "error": at in bad_beats, "last": end})
            for u in UNITS:
                ctx.set(getattr(dut, u).ready, free())
            ready = {u: bool(ctx.get(getattr(dut, u).ready)) for u in UNITS}
            run.inputs.append((bool(ctx.get(request.ready)), give, ready))
            assert ctx.get(beat.ready)
            if ctx.get(dut.insn_strobe):
                run.handed.append(t)
            if ctx.get(request.valid) and ctx.get(request.ready):
                p = ctx.get(request.payload)
                run.bursts.append((p.addr, p.beats_m1 + 1))
                run.requested.append(t)
                for k in range(p.beats_m1 + 1):
                    pending.append((t + latency, p.addr + k * cfg.bus_bytes, k == p.beats_m1))
            for u in UNITS:
                s = getattr(dut, u)
                if ctx.get(s.valid) and ctx.get(s.ready):
                    p = ctx.get(s.payload)
                    run.queues[u].append((p.index, (p.word[0], p.word[1])))
                    run.offered[u].append(t)
            if ctx.get(dut.fault.valid) and run.fault is None:
                run.fault = (ctx.get(dut.fault.cause), ctx.get(dut.fault.index))
                run.fault_cycle = t
            if ctx.get(dut.idle):
                run.idle_cycle = t
                return
            if run.fault_cycle is not None and t > run.fault_cycle + 100:
                return
            await ctx.tick()
        raise AssertionError("fetch hangs")

    simulate(dut, bench)
    return run


def fetch_cycles(cfg: Config, addr: int, stream: list[bytes], inputs: list) -> FetchRun:
    """What `Fetch` documents about its timing, said once more: the cycles of a run without faults.

    `inputs` holds for every cycle whether the request is accepted, whether a beat arrives, and
    which queues are read.
    """
    run = FetchRun()
    insns_per_beat, beats_per_insn = max(cfg.bus_bytes // 16, 1), max(16 // cfg.bus_bytes, 1)
    slot = addr % cfg.bus_bytes // 16
    at = addr & -cfg.bus_bytes
    left = -(-(addr + 16 * len(stream) - at) // cfg.bus_bytes)
    free, buffered, parts, held = fetch_buffer_beats(cfg), 0, 0, 0
    offer = None
    queues: dict[str, deque[int]] = {u: deque() for u in UNITS}
    index = 0
    for t, (accepts, beat, ready) in enumerate(inputs):
        burst = min(left, fetch_burst_beats(cfg), (PAGE_BYTES - at % PAGE_BYTES) // cfg.bus_bytes)
        generates = left > 0 and (offer is None or accepts) and free >= burst
        unit = unit_of(stream[index]) if held else ""
        hands = bool(held) and len(queues[unit]) < cfg.insn_queue_depth
        takes = buffered > 0 and (held == 0 or (held == 1 and hands))
        if offer and accepts:
            run.bursts.append(offer)
            run.requested.append(t)
            offer = None
        for u in UNITS:
            if queues[u] and ready[u]:
                run.queues[u].append((queues[u][0], words(stream[queues[u].popleft()])))
                run.offered[u].append(t)
        if hands:
            run.handed.append(t)
            queues[unit].append(index)
            index += 1
            held -= 1
        if takes:
            parts = (parts + 1) % beats_per_insn
            if parts == 0:
                held = min(insns_per_beat - slot, len(stream) - index)
                slot = 0
        buffered += beat - takes
        free += takes
        if generates:
            offer = (at, burst)
            free, left, at = free - burst, left - burst, at + burst * cfg.bus_bytes
    return run


def place(cfg: Config, addr: int, stream: list[bytes]) -> dict[int, bytes]:
    """Beats by address around a stream."""
    first = addr & -cfg.bus_bytes
    text = bytes(addr - first) + b"".join(stream)
    text += bytes(-len(text) % cfg.bus_bytes)
    return {first + k: text[k : k + cfg.bus_bytes] for k in range(0, len(text), cfg.bus_bytes)}


FETCH_CONFIGS = ("edge", "block16_bus32", "bus256", "single_beats")


def wide(bits: int) -> Config:
    """The default machine on another bus; batch 4 makes room for the widest."""
    return Config.from_dict({"batch": 4, "buffers": {"wgt": 1 << 16}, "bus": {"data_bits": bits}})


def fetch_config(name: str) -> Config:
    return wide(int(name)) if name.isdigit() else load_config(name)


@pytest.mark.parametrize("name", [*FETCH_CONFIGS, "128", "512"])
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_fetch_routes_every_instruction_in_order(name, seed):
    cfg = fetch_config(name)
    rng = random.Random(f"{name}{seed}")
    stream = stream_of(isa(cfg), 90, rng)
    addr = 2 * PAGE_BYTES - 16 * 5
    run = run_fetch(
        cfg, place(cfg, addr, stream), addr, len(stream), rng=rng if seed else None, latency=7
    )
    assert run.fault is None
    for u in UNITS:
        expected = [(k, words(i)) for k, i in enumerate(stream) if unit_of(i) == u]
        assert run.queues[u] == expected
    end = addr & -cfg.bus_bytes
    for at, beats in run.bursts:
        assert at == end
        end = at + beats * cfg.bus_bytes
        assert beats <= fetch_burst_beats(cfg) <= cfg.bus.max_burst_beats
        assert at // PAGE_BYTES == (end - 1) // PAGE_BYTES
    assert end == -(-(addr + 16 * len(stream)) // cfg.bus_bytes) * cfg.bus_bytes


@pytest.mark.parametrize("name", ["edge", "block16_bus32", "128", "bus256", "512"])
def test_fetch_keeps_up_with_the_bus(name):
    cfg = fetch_config(name)
    finish = isa(cfg).encode(Opcode.FINISH)
    load = isa(cfg).encode(Opcode.LOAD, memory_type=MemoryType.INP)
    stream = [load if k % 2 else finish for k in range(100)]
    addr = PAGE_BYTES
    run = run_fetch(cfg, place(cfg, addr, stream), addr, len(stream), latency=12)
    cycles_per_insn = max(16 // cfg.bus_bytes, 1)
    assert [b - a for a, b in zip(run.handed, run.handed[1:], strict=False)] == [
        cycles_per_insn
    ] * (len(stream) - 1)


def test_fetch_timing_is_as_documented():
    cfg = load_config("edge")
    run = run_fetch(
        cfg, place(cfg, 4096, [isa(cfg).encode(Opcode.FINISH)] * 40), 4096, 40, latency=10
    )
    # Cycle 0 is s + 1: generated in 0, offered in 1; then one burst a cycle, four in the buffer.
    assert run.requested[:4] == [1, 2, 3, 4]
    # Beats in 11 and 12; out of the buffer in 12 and 13; handed over in 14; offered in 15.
    assert run.handed[0] == 14
    assert run.offered["compute"][0] == 15
    # The fifth burst waits for 16 beats to leave the buffer: 12 .. 27; generated in 28.
    assert run.requested[4] == 29
    assert run.idle_cycle == run.offered["compute"][-1] + 1


@pytest.mark.parametrize("name", ["edge", "block16_bus32", "128", "bus256", "512", "single_beats"])
@pytest.mark.parametrize("latency", [3, 40])
def test_fetch_timing_equals_the_model_under_stalls(name, latency):
    cfg = fetch_config(name).model_copy(update={"insn_queue_depth": 4})
    rng = random.Random(f"{name}{latency}")
    stream = stream_of(isa(cfg), 120, rng)
    addr = PAGE_BYTES - 48
    run = run_fetch(cfg, place(cfg, addr, stream), addr, 120, rng=rng, latency=latency)
    model = fetch_cycles(cfg, addr, stream, run.inputs)
    assert model.bursts == run.bursts
    assert model.requested == run.requested
    assert model.handed == run.handed
    assert model.offered == run.offered
    assert model.queues == run.queues


def test_fetch_of_nothing_is_idle_at_once():
    assert run_fetch(load_config("bus256"), {}, 4096 + 16, 0).idle_cycle == 0


@pytest.mark.parametrize("name", ["edge", "block16_bus32", "bus256"])
@pytest.mark.parametrize("opcode", [5, 6, 7])
def test_fetch_stops_at_an_unknown_opcode(name, opcode):
    cfg = load_config(name)
    stream = [isa(cfg).encode(Opcode.FINISH)] * 30
    stream[17] = bytes([opcode]) + bytes(15)
    addr = 4096 + 16
    run = run_fetch(cfg, place(cfg, addr, stream), addr, 30, rng=random.Random(3))
    assert run.fault == (FaultCause.ILLEGAL_INSTRUCTION, 17)
    assert [index for index, _ in run.queues["compute"]] == list(range(17))


@pytest.mark.parametrize("name", ["edge", "block16_bus32", "bus256"])
def test_fetch_reports_the_instruction_of_a_bad_beat(name):
    cfg = load_config(name)
    stream = [isa(cfg).encode(Opcode.FINISH)] * 30
    addr = 4096 + 16
    at = (addr + 16 * 11 + 15) & -cfg.bus_bytes
    run = run_fetch(
        cfg, place(cfg, addr, stream), addr, 30, rng=random.Random(4), bad_beats=frozenset({at})
    )
    index = max((at - addr) // 16, 0)
    assert run.fault == (FaultCause.BUS_ERROR, index)
    assert [i for i, _ in run.queues["compute"]] == list(range(index))


@pytest.mark.parametrize("name", ["edge", "block16_bus32", "bus256", "single_beats"])
def test_fetch_checks_every_burst_against_the_window(name):
    cfg = load_config(name)
    stream = [isa(cfg).encode(Opcode.FINISH)] * 64
    addr = 4096 + 16
    last = 4096 + 16 * 33 - 1
    run = run_fetch(cfg, place(cfg, addr, stream), addr, 64, window=(4096, last))
    assert run.fault is not None
    assert run.fault[0] == FaultCause.DRAM_WINDOW
    assert all(at + beats * cfg.bus_bytes - 1 <= last for at, beats in run.bursts)
    following = run.bursts[-1][0] + run.bursts[-1][1] * cfg.bus_bytes
    assert run.fault[1] == max(following - addr, 0) // 16
    early = run_fetch(cfg, place(cfg, addr, stream), addr, 64, window=(8192, 1 << 20))
    assert early.fault == (FaultCause.DRAM_WINDOW, 0)
    assert early.bursts == []


def test_fetch_refuses_a_misaligned_stream():
    run = run_fetch(load_config("edge"), {}, 4096 + 8, 4)
    assert run.fault == (FaultCause.MISALIGNED, 0)
    assert run.bursts == []


def test_fetch_buffer_holds_four_bursts_and_at_most_two_kibibytes():
    for name in FETCH_CONFIGS:
        cfg = load_config(name)
        assert fetch_buffer_beats(cfg) * cfg.bus_bytes <= 2048
        assert 4 * fetch_burst_beats(cfg) <= fetch_buffer_beats(cfg)


# ---- store unit and write engine -----------------------------------------------------------
class StorePath(wiring.Component):
    """The store unit, the write engine and an out scratchpad with latency 2."""

    def __init__(self, cfg: Config, contents: list[int]) -> None:
        self.cfg, self.contents = cfg, contents
        self.unit, self.engine = StoreUnit(cfg), WriteEngine(cfg)
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        unit, engine, cfg = self.unit, self.engine, self.cfg
        m.submodules.unit, m.submodules.engine = unit, engine
        m.submodules.out = out = Memory(
            shape=cfg.out_elem_bits, depth=cfg.acc_depth, init=self.contents
        )
        port = out.read_port(domain="sync")
        m.d.comb += [port.addr.eq(unit.out_addr), port.en.eq(unit.out_en)]
        m.d.sync += unit.out_data.eq(port.data)
        wiring.connect(m, unit.request, engine.request)
        wiring.connect(m, unit.data, engine.data)
        m.d.comb += [unit.response.eq(engine.response), unit.error.eq(engine.error)]
        return m


@dataclass
class StoreRun:
    """What a run of the store path did; cycles count from the first after the start."""

    dram: dict[int, bytes] = field(default_factory=dict)
    beats: list[int] = field(default_factory=list)
    addresses: list[int] = field(default_factory=list)
    retired: list[int] = field(default_factory=list)
    pushed: list[tuple[int, int]] = field(default_factory=list)
    popped: list[int] = field(default_factory=list)
    inputs: list[tuple[bool, bool, bool, bool, int]] = field(default_factory=list)
    token_stalls: int = 0
    busy_cycles: int = 0
    fault: tuple[int, int] | None = None
    most_in_flight: int = 0


def run_store(
    cfg: Config,
    contents: list[int],
    program: list[bytes],
    *,
    base_ptr: int = 0,
    rng: random.Random | None = None,
    latency: int = 8,
    tokens: list[int] | None = None,
    window: tuple[int, int] | None = None,
    bad_bursts: frozenset[int] = frozenset(),
    halt_at: int | None = None,
) -> StoreRun:
    """Run instructions; `tokens`: cycles in which one arrives; `bad_bursts` answer SLVERR."""
    dut, run = StorePath(cfg, contents), StoreRun()
    unit, axi = dut.unit, dut.engine.axi
    base, last = window or (0, (1 << cfg.bus.addr_bits) - 1)

    def free() -> bool:
        return rng is None or rng.random() < 0.6

    async def bench(ctx):
        ctx.set(unit.base_ptr[MemoryType.OUT], base_ptr)
        ctx.set(unit.window_base, base)
        ctx.set(unit.window_last, last)
        queue = deque(enumerate(program))
        accepted: deque[list[int]] = deque()
        answers: deque[tuple[int, int]] = deque()
        bursts = answered = available = 0
        stopped_at = None
        for t in range(LIMIT_CYCLES):
            available += (tokens or []).count(t)
            offer = bool(queue) and (free() or ctx.get(unit.insn.valid))
            ctx.set(unit.insn.valid, offer)
            if offer:
                index, insn = queue[0]
                ctx.set(unit.insn.p, {"word": list(words(insn)), "index": index})
            ctx.set(unit.pop_prev_ready, available > 0)
            ctx.set(axi.aw.ready, bursts - answered < cfg.bus.max_outstanding and free())
            ctx.set(axi.w.ready, bool(accepted) and free())
            give = bool(answers) and answers[0][0] <= t and free()
            ctx.set(axi.b.valid, give)
            if give:
                ctx.set(axi.b.p.resp, 2 if answers.popleft()[1] in bad_bursts else 0)
                answered += 1
            halt = (halt_at is not None and t >= halt_at) or run.fault is not None
            ctx.set(unit.halt, halt)
            ctx.set(dut.engine.halt, halt)

            run.inputs.append(
                (offer, *(bool(ctx.get(r)) for r in (axi.aw.ready, axi.w.ready)), give, available)
            )
            if offer and ctx.get(unit.insn.ready):
                queue.popleft()
            if ctx.get(axi.w.valid) and ctx.get(axi.w.ready):
                p = ctx.get(axi.w.payload)
                burst = accepted[0]
                run.dram[burst[0]] = int(p.data).to_bytes(cfg.bus_bytes, "little")
                run.beats.append(t)
                burst[0] += cfg.bus_bytes
                burst[1] -= 1
                assert p.last == (burst[1] == 0)
                if not burst[1]:
                    answers.append((t + latency, accepted.popleft()[2]))
            if ctx.get(axi.aw.valid) and ctx.get(axi.aw.ready):
                p = ctx.get(axi.aw.payload)
                end = p.addr + (p.beats_m1 + 1) * cfg.bus_bytes - 1
                assert p.addr // PAGE_BYTES == end // PAGE_BYTES
                assert p.beats_m1 < cfg.bus.max_burst_beats
                accepted.append([p.addr, p.beats_m1 + 1, bursts])
                bursts += 1
                run.addresses.append(t)
            run.most_in_flight = max(run.most_in_flight, bursts - answered)
            if ctx.get(unit.pop_prev):
                assert available
                available -= 1
                run.popped.append(t)
            if ctx.get(unit.push_prev):
                run.pushed.append((t, ctx.get(unit.push_index)))
            if ctx.get(unit.retired):
                run.retired.append(t)
            run.token_stalls += ctx.get(unit.token_stall)
            if ctx.get(unit.fault.valid) and run.fault is None:
                run.fault = (ctx.get(unit.fault.cause), ctx.get(unit.fault.index))
            run.busy_cycles += ctx.get(unit.busy)
            oldest = len(run.retired) - ctx.get(unit.retired)
            if len(program) - len(queue) > oldest and run.fault is None:
                assert ctx.get(unit.head_index) == oldest
            if halt and ctx.get(dut.engine.idle):
                assert not accepted
                stopped_at = t if stopped_at is None else stopped_at
                assert bursts == answered
                if t > stopped_at + 20:
                    return
            if not offer and not queue and ctx.get(unit.idle):
                assert ctx.get(dut.engine.idle)
                return
            await ctx.tick()
        raise AssertionError("the store path hangs")

    simulate(dut, bench)
    return run


def scratchpad(cfg: Config, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [rng.getrandbits(cfg.out_elem_bits) for _ in range(cfg.acc_depth)]


def golden_store(cfg: Config, contents: list[int], stores: list[dict], base_ptr: int) -> dict:
    """Bytes of every beat that the stores write."""
    x = isa(cfg)
    size = x.elem_bytes(MemoryType.OUT)
    elements = np.frombuffer(
        b"".join(c.to_bytes(size, "little") for c in contents), np.uint8
    ).reshape(-1, size)
    dram = {}
    for s in stores:
        for y, row in enumerate(range(s["y_size"])):
            at = base_ptr + (s["dram_base"] + y * s["x_stride"]) * size
            first = s["sram_base"] + row * s["x_size"]
            text = elements[first : first + s["x_size"]].tobytes()
            for k in range(0, len(text), cfg.bus_bytes):
                dram[at + k] = text[k : k + cfg.bus_bytes]
    return dram


def store(cfg: Config, **fields: int) -> bytes:
    return isa(cfg).encode(Opcode.STORE, **{"memory_type": MemoryType.OUT, **fields})


def random_stores(cfg: Config, rng: random.Random, count: int) -> list[dict]:
    stores = []
    dram = 0
    for _ in range(count):
        x, y = rng.choice([0, 1, 1, 2, 3, 9, 17]), rng.choice([0, 1, 1, 2, 3])
        x = min(x, cfg.acc_depth // 4)
        stride = x + rng.randrange(3)
        stores.append(
            {
                "x_size": x,
                "y_size": y,
                "x_stride": stride,
                "sram_base": rng.randrange(cfg.acc_depth - x * y + 1) & 0xFFFF,
                "dram_base": dram,
                "pop_prev": rng.randrange(2),
                "push_prev": rng.randrange(2),
            }
        )
        dram += x + y * stride + rng.randrange(3)
    return stores


def row_bursts(cfg: Config, at: int, beats: int) -> list[int]:
    """Lengths of the bursts of one row."""
    lengths = []
    while beats:
        page = (PAGE_BYTES - at % PAGE_BYTES) // cfg.bus_bytes
        lengths.append(min(beats, page, cfg.bus.max_burst_beats))
        beats -= lengths[-1]
        at += lengths[-1] * cfg.bus_bytes
    return lengths


def store_cycles(cfg: Config, stores: list[dict], base_ptr: int, inputs: list) -> StoreRun:
    """What `StoreUnit`, `BurstGenerator` and `WriteEngine` document about time, said once more.

    `inputs` holds for every cycle: an instruction is offered, AW, W are taken, B arrives, tokens.
    """
    run = StoreRun()
    elem_beats = cfg.out_elem_bytes // cfg.bus_bytes
    counted = checked = None
    dispatched = False
    taken = 0
    retire: deque[int] = deque()
    rows: deque[list[int]] = deque()
    burst: deque[int] = deque()
    reads: deque[int] = deque()
    pipe: list[bool | None] = [None] * OUT_LATENCY_CYCLES
    elems: deque[bool] = deque()
    room, elem_part, burst_part, complete, in_flight = ELEM_DEPTH, 0, 0, 0, 0
    lengths: deque[int] = deque()
    answers: deque[bool] = deque()
    aw: deque[int] = deque()
    w: deque[int] = deque()

    def empty(k: int) -> bool:
        return not (stores[k]["x_size"] and stores[k]["y_size"])

    for t, (offered, aw_taken, w_taken, response, tokens) in enumerate(inputs):
        # What happens in this cycle, from the state at its beginning.
        accepted = bool(burst) and (not aw or aw_taken) and in_flight < cfg.bus.max_outstanding
        row_taken = bool(rows) and (not burst or (accepted and len(burst) == 1))
        candidate = checked is not None and not dispatched and len(retire) < RETIRE_DEPTH
        token = checked is not None and (not stores[checked]["pop_prev"] or tokens > 0)
        go = candidate and token
        leaves = row_taken and len(rows) == 1 if dispatched else go and empty(checked)
        moves = counted is not None and (checked is None or leaves)
        now = bool(retire) and (empty(retire[0]) or complete > 0)
        read = bool(reads) and room > 0
        sent = bool(elems) and bool(lengths) and (not w or bool(w_taken))
        run.token_stalls += candidate and not token
        run.busy_cycles += bool(retire)
        # And what it leaves behind.
        if aw and aw_taken:
            run.addresses.append(t)
            aw.popleft()
        if w and w_taken:
            run.beats.append(t)
            w.popleft()
        if now:
            run.retired.append(t)
            index = retire.popleft()
            complete -= not empty(index)
            if stores[index]["push_prev"]:
                run.pushed.append((t, index))
        if response:
            complete += answers.popleft()
        in_flight += accepted - response
        arrived, pipe = pipe[-1], [None, *pipe[:-1]]
        if sent:
            elem_part, burst_part = elem_part + 1, burst_part + 1
            elem_done, burst_done = elem_part == elem_beats, burst_part == lengths[0]
            w.append(1)
            if burst_done:
                answers.append(elem_done and elems[0])
                lengths.popleft()
                burst_part = 0
            if elem_done:
                elems.popleft()
                elem_part = 0
                room += 1
        if arrived is not None:
            elems.append(arrived)
        if read:
            room -= 1
            reads[0] -= 1
            pipe[0] = reads[0] == 0
            if not reads[0]:
                reads.popleft()
        if accepted:
            aw.append(burst[0])
            lengths.append(burst.popleft())
        if row_taken:
            burst = deque(rows.popleft())
        if go:
            s = stores[checked]
            retire.append(checked)
            if s["pop_prev"]:
                run.popped.append(t)
            if not empty(checked):
                reads.append(s["x_size"] * s["y_size"])
                for y in range(s["y_size"]):
                    at = base_ptr + (s["dram_base"] + y * s["x_stride"]) * cfg.out_elem_bytes
                    rows.append(row_bursts(cfg, at, s["x_size"] * elem_beats))
        if leaves:
            checked, dispatched = None, False
        elif go:
            dispatched = True
        if moves:
            checked, counted = counted, None
            taken += 1
        elif offered and counted is None:
            counted = taken
    return run


@pytest.mark.parametrize(
    "name", ["edge", "block16_bus32", "bus256", "single_beats", "batch4", "int4", "wide_address"]
)
@pytest.mark.parametrize("seed", [None, 1])
def test_stores_write_what_the_golden_model_says(name, seed):
    cfg = load_config(name)
    rng = random.Random(f"{name}{seed}")
    contents = scratchpad(cfg)
    stores = random_stores(cfg, rng, 24)
    base_ptr = 3 * PAGE_BYTES - 6 * cfg.bus_bytes
    run = run_store(
        cfg,
        contents,
        [store(cfg, **s) for s in stores],
        base_ptr=base_ptr,
        rng=rng if seed else None,
        tokens=sorted(rng.randrange(200) for s in stores if s["pop_prev"]),
    )
    assert run.fault is None
    assert run.dram == golden_store(cfg, contents, stores, base_ptr)
    assert len(run.retired) == len(stores)
    assert len(run.popped) == sum(s["pop_prev"] for s in stores)
    assert [i for _, i in run.pushed] == [k for k, s in enumerate(stores) if s["push_prev"]]
    assert run.most_in_flight <= cfg.bus.max_outstanding
    model = store_cycles(cfg, stores, base_ptr, run.inputs)
    for what in ("addresses", "beats", "popped", "pushed", "retired", "token_stalls"):
        assert getattr(model, what) == getattr(run, what), what
    assert model.busy_cycles == run.busy_cycles


def test_writes_leave_every_cycle_across_rows_and_instructions():
    cfg = load_config("edge")
    stores = [
        {"x_size": 4, "y_size": 3, "x_stride": 7, "sram_base": 12 * k, "dram_base": 32 * k}
        for k in range(12)
    ]
    run = run_store(cfg, scratchpad(cfg), [store(cfg, **s) for s in stores], latency=20)
    assert np.all(np.diff(run.beats) == 1)
    assert len(run.beats) == 12 * 12 * 2


def test_one_element_of_one_beat_a_cycle():
    cfg = wide(512)
    run = run_store(cfg, scratchpad(cfg), [store(cfg, x_size=40, y_size=2, x_stride=40)])
    assert cfg.out_elem_bits == 512
    assert np.all(np.diff(run.beats) == 1)


def test_store_timing_is_as_documented():
    cfg = load_config("edge")
    run = run_store(
        cfg,
        scratchpad(cfg),
        [store(cfg, x_size=1, y_size=1, x_stride=1, pop_prev=1, push_prev=1)],
        latency=10,
        tokens=[5],
    )
    # Taken from the queue in 0, checked in 2, so the token is missed in 2, 3 and 4.
    assert run.token_stalls == 3
    assert run.popped == [5]
    # Dispatched in 5: burst offered in 7, on AW in 8; beats leave the unit in 9, are on W in 10.
    assert run.addresses == [8]
    assert run.beats == [10, 11]
    # The response is in 21; the token is pushed in the cycle after it.
    assert run.pushed == [(22, 0)]
    assert run.retired == [22]


def test_empty_stores_pass_tokens_in_order_and_retire_one_a_cycle():
    cfg = load_config("edge")
    program = [
        store(cfg, x_size=1, y_size=1, push_prev=1),
        store(cfg, x_size=0, y_size=1, pop_prev=1, push_prev=1),
        store(cfg, x_size=5, y_size=0, push_prev=1),
    ]
    run = run_store(cfg, scratchpad(cfg), program, tokens=[0])
    assert len(run.beats) == 2
    first = run.pushed[0][0]
    assert run.pushed == [(first, 0), (first + 1, 1), (first + 2, 2)]


def test_many_small_stores_are_in_flight_together():
    cfg = load_config("edge")
    program = [store(cfg, x_size=1, y_size=1, dram_base=3 * k) for k in range(40)]
    run = run_store(cfg, scratchpad(cfg), program, latency=60)
    assert len(run.dram) == 80
    assert run.most_in_flight == min(RETIRE_DEPTH, cfg.bus.max_outstanding)


ILLEGAL = {
    "memory type": {"memory_type": MemoryType.INP},
    "pop_next": {"pop_next": 1},
    "push_next": {"push_next": 1},
    "y_pad_0": {"y_pad_0": 1},
    "x_pad_1": {"x_pad_1": 2},
}


@pytest.mark.parametrize("fields", ILLEGAL.values(), ids=ILLEGAL.keys())
def test_an_illegal_store_faults_after_those_before_it(fields):
    cfg = load_config("edge")
    good = store(cfg, x_size=2, y_size=2, x_stride=2)
    bad = store(cfg, **{"x_size": 1, "y_size": 1, **fields})
    run = run_store(cfg, scratchpad(cfg), [good, bad, good])
    assert run.fault == (FaultCause.ILLEGAL_INSTRUCTION, 1)
    assert len(run.retired) == 1
    assert len(run.beats) == 8


def test_a_stray_bit_is_illegal():
    cfg = load_config("edge")
    insn = bytearray(store(cfg, x_size=1, y_size=1))
    insn[7] |= 0x80
    assert run_store(cfg, scratchpad(cfg), [bytes(insn)]).fault == (
        FaultCause.ILLEGAL_INSTRUCTION,
        0,
    )


@pytest.mark.parametrize(
    ("x", "y", "below_end", "faults"),
    [
        (4, 3, 12, False),
        (4, 3, 11, True),
        (0xFFFF, 0xFFFF, 2048, True),
        (1, 0x8001, 9, True),
        (2048, 1, 2048, False),
        (0, 9, 1, False),
    ],
)
def test_indices_stop_at_the_depth(x, y, below_end, faults):
    cfg = load_config("edge")
    insn = store(cfg, x_size=x, y_size=y, x_stride=x, sram_base=cfg.acc_depth - below_end)
    run = run_store(cfg, scratchpad(cfg), [insn])
    assert run.fault == ((FaultCause.SCRATCHPAD, 0) if faults else None)
    assert len(run.beats) == (0 if faults else 2 * x * y)


def test_a_burst_outside_the_window_is_not_written():
    cfg = load_config("edge")
    program = [store(cfg, x_size=4, y_size=4, x_stride=8, dram_base=256) for _ in range(2)]
    run = run_store(cfg, scratchpad(cfg), program, window=(4096, 4096 + 3 * 128 - 1))
    assert run.fault == (FaultCause.DRAM_WINDOW, 0)
    assert max(run.dram) < 4096 + 3 * 128


def test_an_address_beyond_the_bus_faults():
    cfg = load_config("edge")
    program = [store(cfg, x_size=1, y_size=1, dram_base=0xFFFF_FFFF)]
    assert run_store(cfg, scratchpad(cfg), program).fault == (FaultCause.DRAM_WINDOW, 0)


@pytest.mark.parametrize("seed", [None, 5])
def test_an_error_response_names_its_instruction(seed):
    cfg = load_config("edge")
    program = [store(cfg, x_size=2, y_size=2, x_stride=4, dram_base=16 * k) for k in range(6)]
    rng = random.Random(seed) if seed else None
    run = run_store(cfg, scratchpad(cfg), program, rng=rng, bad_bursts=frozenset({7}))
    assert run.fault == (FaultCause.BUS_ERROR, 3)


@pytest.mark.parametrize("halt_at", [4, 9, 14, 23, 40])
def test_halt_delivers_the_beats_of_accepted_bursts_and_no_more(halt_at):
    cfg = load_config("edge")
    program = [store(cfg, x_size=5, y_size=3, x_stride=8, dram_base=64 * k) for k in range(8)]
    run = run_store(cfg, scratchpad(cfg), program, rng=random.Random(halt_at), halt_at=halt_at)
    assert run.fault is None
    assert len(run.beats) == len(run.addresses) * 10
