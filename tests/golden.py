"""A slow interpreter of the instruction set, straight from the ISA document.

Shares no code with the simulators: it unpacks bits by itself, keeps scratchpads as lists of Python
integers, and runs queues and tokens one instruction at a time. Legal programs only: it asserts.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from covta.hw.params import Config

LOAD, STORE, GEMM, FINISH, ALU = range(5)
UOP, WGT, INP, ACC, OUT, ACC_8BIT = range(6)


def log2(value: int) -> int:
    return value.bit_length() - 1


def wrap(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


class Bits:
    """Takes fields off a word, lowest first."""

    def __init__(self, word: int) -> None:
        self.word = word

    def take(self, *widths: int) -> list[int]:
        values = []
        for width in widths:
            values.append(self.word & ((1 << width) - 1))
            self.word >>= width
        return values


class Golden:
    """One machine with its memory (a dict of byte address to byte)."""

    def __init__(self, cfg: Config, memory: dict[int, int], base_ptrs: tuple[int, ...]) -> None:
        self.cfg, self.memory, self.base = cfg, memory, base_ptrs
        self.shape = {
            UOP: (1, 32),
            WGT: (cfg.block_out * cfg.block_in, cfg.wgt_bits),
            INP: (cfg.batch * cfg.block_in, cfg.inp_bits),
            ACC: (cfg.batch * cfg.block_out, cfg.acc_bits),
            OUT: (cfg.batch * cfg.block_out, cfg.inp_bits),
            ACC_8BIT: (cfg.batch * cfg.block_out, 8),
        }
        sizes = {
            m: getattr(cfg.buffers, n) * 8 // (self.shape[m][0] * self.shape[m][1])
            for m, n in ((UOP, "uop"), (WGT, "wgt"), (INP, "inp"), (ACC, "acc"))
        }
        self.uop_bits, self.wgt_index, self.inp_index, self.acc_index = (
            log2(sizes[m]) for m in (UOP, WGT, INP, ACC)
        )
        self.pads = {m: [[0] * self.shape[m][0] for _ in range(n)] for m, n in sizes.items()}
        self.done = False

    # ---- memory ----------------------------------------------------------------------------
    def _elem_address(self, memory_type: int, elem: int) -> int:
        lanes, bits = self.shape[memory_type]
        return self.base[memory_type] + elem * (lanes * bits // 8)

    def read(self, memory_type: int, elem: int) -> list[int]:
        lanes, bits = self.shape[memory_type]
        at = self._elem_address(memory_type, elem)
        word = sum(self.memory[at + k] << (8 * k) for k in range(lanes * bits // 8))
        return [wrap(word >> (bits * k), bits) for k in range(lanes)]

    def write(self, elem: int, values: list[int]) -> None:
        lanes, bits = self.shape[OUT]
        word = sum((v & ((1 << bits) - 1)) << (bits * k) for k, v in enumerate(values))
        at = self._elem_address(OUT, elem)
        for k in range(lanes * bits // 8):
            assert at + k in self.memory
            self.memory[at + k] = (word >> (8 * k)) & 255

    # ---- instructions ----------------------------------------------------------------------
    def transfer(self, low: Bits, high: Bits) -> None:
        memory_type, sram, dram = low.take(3, 16, 32)
        least = low.take(1)[0]
        y_size, x_size, stride = high.take(16, 16, 16)
        top, bottom, left, right = high.take(4, 4, 4, 4)
        if x_size == 0 or y_size == 0:
            return
        if memory_type == OUT:
            for y in range(y_size):
                for x in range(x_size):
                    self.write(dram + y * stride + x, self.pads[ACC][sram + y * x_size + x])
            return
        lanes, bits = self.shape[memory_type]
        pad = [-(1 << (bits - 1)) if least and memory_type != UOP else 0] * lanes
        block = [pad] * (top * (left + x_size + right))
        for y in range(y_size):
            row = [self.read(memory_type, dram + y * stride + x) for x in range(x_size)]
            block += [pad] * left + row + [pad] * right
        block += [pad] * (bottom * (left + x_size + right))
        target = self.pads[ACC if memory_type == ACC_8BIT else memory_type]
        assert sram + len(block) <= len(target)
        for k, elem in enumerate(block):
            target[sram + k] = list(elem)

    def loop(self, low: Bits, widths: tuple[int, int, int], high: Bits):
        """Yield dst, src, wgt of every micro-op, in program order."""
        begin, end, n_out, n_in = low.take(self.uop_bits, self.uop_bits + 1, 14, 14)
        a, s, w = widths
        d_out, d_in, s_out, s_in = high.take(a, a, s, s)
        w_out, w_in = high.take(w, w) if w else (0, 0)
        for y in range(n_out):
            for x in range(n_in):
                for u in range(begin, end):
                    word = Bits(self.pads[UOP][u][0] & 0xFFFFFFFF)
                    src_bits = max(self.acc_index, self.inp_index)
                    dst, src, wgt = word.take(self.acc_index, src_bits, self.wgt_index)
                    yield (
                        dst + y * d_out + x * d_in,
                        src + y * s_out + x * s_in,
                        wgt + y * w_out + x * w_in,
                    )

    def gemm(self, low: Bits, high: Bits) -> None:
        cfg, acc = self.cfg, self.pads[ACC]
        (reset,) = low.take(1)
        for d, s, w in self.loop(low, (self.acc_index, self.inp_index, self.wgt_index), high):
            if reset:
                acc[d] = [0] * len(acc[d])
                continue
            inp, wgt = self.pads[INP][s], self.pads[WGT][w]
            for b in range(cfg.batch):
                for o in range(cfg.block_out):
                    total = sum(
                        inp[b * cfg.block_in + i] * wgt[o * cfg.block_in + i]
                        for i in range(cfg.block_in)
                    )
                    lane = b * cfg.block_out + o
                    acc[d][lane] = wrap(acc[d][lane] + total, cfg.acc_bits)

    def alu(self, low: Bits, high: Bits) -> None:
        acc = self.pads[ACC]
        low.take(1)
        tail = Bits(high.word >> (4 * self.acc_index))
        op, use_imm, imm = tail.take(3, 1, 16)
        for d, s, _ in self.loop(low, (self.acc_index, self.acc_index, 0), high):
            for lane in range(len(acc[d])):
                operand = wrap(imm, 16) if use_imm else acc[s][lane]
                acc[d][lane] = self.operate(op, acc[d][lane], operand)

    def operate(self, op: int, a: int, b: int) -> int:
        bits, out_bits = self.cfg.acc_bits, self.cfg.inp_bits
        if op == 0:
            return min(a, b)
        if op == 1:
            return max(a, b)
        if op == 2:
            return wrap(a + b, bits)
        if op == 3:
            if b >= 0:
                return a >> min(b, 64)
            return wrap(a << -b, bits) if -b < bits else 0
        if op == 4:
            return wrap(a * b, bits)
        assert op == 5
        shift, rounding, relu = b & 31, b >> 5 & 1, b >> 6 & 1
        if rounding and shift:
            a += 1 << (shift - 1)
        low = 0 if relu else -(1 << (out_bits - 1))
        return max(low, min(a >> shift, (1 << (out_bits - 1)) - 1))

    # ---- queues and tokens -----------------------------------------------------------------
    def run(self, insn: np.ndarray, tokens: tuple[int, ...] = (0, 0, 0, 0)) -> tuple[int, ...]:
        """Run every instruction; the tokens that are left."""
        left = list(tokens)
        # unit: (pop_prev, pop_next, push_prev, push_next) as positions in `left`
        wires = {0: (None, 1, None, 0), 1: (0, 3, 1, 2), 2: (2, None, 3, None)}
        queues: dict[int, deque[tuple[int, int]]] = {0: deque(), 1: deque(), 2: deque()}
        for raw in insn:
            low, high = (int.from_bytes(raw[k : k + 8].tobytes(), "little") for k in (0, 8))
            opcode, memory_type = low & 7, low >> 7 & 7
            unit = 2 if opcode == STORE else 1
            if opcode == LOAD and memory_type in (INP, WGT):
                unit = 0
            queues[unit].append((low, high))
        while any(queues.values()):
            moved = False
            for unit, queue in queues.items():
                if not queue:
                    continue
                flags = [queue[0][0] >> (3 + k) & 1 for k in range(4)]
                named = [wire for flag, wire in zip(flags, wires[unit], strict=True) if flag]
                assert None not in named
                pops = [w for f, w in zip(flags[:2], wires[unit][:2], strict=True) if f]
                if any(left[w] == 0 for w in pops):
                    continue
                for w in pops:
                    left[w] -= 1
                low, high = queue.popleft()
                self.execute(low & 7, Bits(low >> 7), Bits(high))
                for f, w in zip(flags[2:], wires[unit][2:], strict=True):
                    if f:
                        left[w] += 1
                moved = True
            assert moved, "deadlock"
        assert self.done, "no FINISH"
        return tuple(left)

    def execute(self, opcode: int, low: Bits, high: Bits) -> None:
        if opcode in (LOAD, STORE):
            self.transfer(low, high)
        elif opcode == GEMM:
            self.gemm(low, high)
        elif opcode == ALU:
            self.alu(low, high)
        else:
            assert opcode == FINISH
            self.done = True
