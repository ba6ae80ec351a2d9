"""Write a kernel for the machine by hand, instruction by instruction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from covta.hw.isa import AluOp, EncodeError, MemoryType, Opcode, Unit, isa
from covta.hw.params import Config
from covta.runtime.builder.contents import with_contents
from covta.runtime.builder.errors import BuildError, require
from covta.runtime.builder.insn import Insn, Loop, Token, merged
from covta.runtime.builder.memory import DRAM_BASE, Buffer, Dram, Range, Scratchpad
from covta.runtime.builder.sync import Tracker
from covta.runtime.builder.uops import BATCH_UOPS, place_uops
from covta.runtime.device import RunResult
from covta.runtime.program import Program

__all__ = ["Builder"]

_PAD = {
    MemoryType.WGT: "wgt",
    MemoryType.INP: "inp",
    MemoryType.ACC: "acc",
    MemoryType.ACC_8BIT: "acc",
    MemoryType.OUT: "acc",
}

Pop = Token | None | Sequence[Token | None]


class Builder:
    """Collects the instructions of one kernel and makes a `Program` of them.

    The machine has three units with a queue each: *load* fills inp and wgt, *compute* fills acc and
    the micro-ops, multiplies and does arithmetic, *store* writes results out. They run at the same
    time, and only tokens order them. A kernel is written as if they did not: each call appends one
    instruction, in the order in which one thread would do the work. Then either

    - ``sync="auto"``: the builder sees which elements each instruction reads and writes and makes
    the
      tokens that keep that order wherever it matters, as few as it can; or
    - ``sync="manual"``: the author makes them, ``ready = b.load(...).push("compute")`` and later
      ``b.gemm(..., pop=ready)``, and the builder checks that no race is left.

    Micro-ops are given as lists of indices. The builder keeps equal lists once, places them in
    their scratchpad and loads them where they are first needed.

    Parameters
    ----------
    cfg : Config
        The machine.
    name : str
        Of the kernel, for reports.
    sync : {"auto", "manual"}
    dram_base : int
        Byte address of the first buffer.

    Attributes
    ----------
    inp, wgt, acc : Scratchpad
        Hand out ranges: ``tile = b.acc.alloc(64)``.

    Examples
    --------
    Add 3 to eight tensors and store their low bytes::

        b = Builder(cfg)
        x = b.buffer("x", MemoryType.ACC, values)          # (8, batch, block_out) int32
        y = b.buffer("y", MemoryType.OUT, shape=(8,))
        tile = b.acc.alloc(8)
        b.load(tile, x)
        b.alu(AluOp.ADD, tile, imm=3)
        b.store(tile, y)
        program = b.build()                                # appends FINISH
    """

    def __init__(
        self,
        cfg: Config,
        *,
        name: str = "kernel",
        sync: Literal["auto", "manual"] = "auto",
        dram_base: int = DRAM_BASE,
    ) -> None:
        require(sync in ("auto", "manual"), f"sync must be auto or manual, got {sync!r}")
        self.cfg = cfg
        self.name = name
        self.inp = Scratchpad("inp", cfg.inp_depth)
        self.wgt = Scratchpad("wgt", cfg.wgt_depth)
        self.acc = Scratchpad("acc", cfg.acc_depth)
        self._dram = Dram(cfg, dram_base)
        self._tracker = Tracker(cfg, automatic=sync == "auto")
        self._automatic = sync == "auto"
        self._insns: list[Insn] = []
        self._counts = dict.fromkeys(Unit, 0)
        self._finished = False
        self._built = False

    # ---- DRAM ------------------------------------------------------------------------------
    def buffer(
        self,
        name: str,
        memory: MemoryType,
        values: np.ndarray | None = None,
        *,
        shape: tuple[int, ...] | None = None,
    ) -> Buffer:
        """Place a tensor in DRAM.

        Parameters
        ----------
        name : str
            New among this kernel's buffers.
        memory : MemoryType
            What its elements are: INP, WGT, ACC, ACC_8BIT or OUT.
        values : np.ndarray, optional
            ``shape + element shape``, e.g. ``(n, batch, block_in)`` for INP; see
            `covta.runtime.layout`.
        shape : tuple of int, optional
            Instead of `values`: that many elements of zeros, for an output.
        """
        return self._dram.place(name, memory, values=values, shape=shape)

    # ---- transfers -------------------------------------------------------------------------
    def load(
        self,
        dst: Range | int,
        src: Buffer,
        offset: int = 0,
        *,
        x_size: int | None = None,
        y_size: int = 1,
        x_stride: int | None = None,
        y_pad: tuple[int, int] = (0, 0),
        x_pad: tuple[int, int] = (0, 0),
        pad_min: bool = False,
        pop: Pop = None,
    ) -> Insn:
        """Copy a block of `src` into a scratchpad, dense, with a frame of padding.

        Row ``y`` of the block comes from element ``offset + y * x_stride`` of `src`. The scratchpad
        receives ``y_pad[0] + y_size + y_pad[1]`` rows of ``x_pad[0] + x_size + x_pad[1]`` elements.

        Parameters
        ----------
        dst : Range or int
            Where to: its first elements, or an address. The buffer's memory type says in which
            scratchpad.
        src : Buffer
        offset : int
            First element.
        x_size : int, optional
            Elements of a row; by default what `dst` and the other sizes leave.
        y_size, x_stride : int
            Rows, and elements of `src` from one to the next (`x_size` by default).
        y_pad, x_pad : (int, int)
            Padding before and after, 0 to 15 each: zeros.
        pad_min : bool
            Pad with the least value instead (extension *pad_min*).
        pop : Token or sequence of Token, optional
            ``sync="manual"`` only: tokens to wait for; None among them is skipped.
        """
        require(
            src.memory not in (MemoryType.OUT, MemoryType.UOP),
            f"load: src must be INP, WGT, ACC or ACC_8BIT, got {src.memory.name} ({src.name})",
        )
        if x_size is None:
            require(
                isinstance(dst, Range) and y_size == 1 and x_pad == y_pad == (0, 0),
                f"load of {src.name}: x_size must be given where dst is an address or y_size, y_pad"
                " or x_pad are used",
            )
            assert isinstance(dst, Range)
            x_size = dst.size
        x_stride = x_size if x_stride is None else x_stride
        width, height = x_pad[0] + x_size + x_pad[1], y_pad[0] + y_size + y_pad[1]
        elems = width * height if x_size and y_size else 0
        base = self._target(src.memory, dst, elems, "load")
        self._check_block(src, offset, x_size, y_size, x_stride, "load")
        fields = {
            "memory_type": int(src.memory),
            "sram_base": base,
            "dram_base": src.elem_base + offset,
            "y_size": y_size,
            "x_size": x_size,
            "x_stride": x_stride,
            "y_pad_0": y_pad[0],
            "y_pad_1": y_pad[1],
            "x_pad_0": x_pad[0],
            "x_pad_1": x_pad[1],
        }
        if pad_min:
            require(
                self.cfg.has("pad_min"),
                f"load of {src.name}: pad_min must be an extension of {self.cfg.name}, got"
                f" {self.cfg.extensions}",
            )
            fields["pad_min"] = 1
        to_load = src.memory in (MemoryType.INP, MemoryType.WGT)
        return self._add(
            Opcode.LOAD,
            Unit.LOAD if to_load else Unit.COMPUTE,
            f"load {src.name}",
            fields,
            pop,
            writes=merged(_PAD[src.memory], [(base, base + elems)] if elems else []),
        )

    def store(
        self,
        src: Range | int,
        dst: Buffer,
        offset: int = 0,
        *,
        x_size: int | None = None,
        y_size: int = 1,
        x_stride: int | None = None,
        pop: Pop = None,
    ) -> Insn:
        """Write the low bits of accumulator elements to `dst`.

        Source elements are dense; row ``y`` goes to element ``offset + y * x_stride`` of `dst`.
        Parameters as for `load`."""
        require(
            dst.memory == MemoryType.OUT,
            f"store: dst must be OUT, got {dst.memory.name} ({dst.name})",
        )
        if x_size is None:
            require(
                isinstance(src, Range) and src.size % y_size == 0,
                f"store to {dst.name}: x_size must be given where src is no range of y_size rows",
            )
            assert isinstance(src, Range)
            x_size = src.size // y_size
        x_stride = x_size if x_stride is None else x_stride
        elems = x_size * y_size
        base = self._target(MemoryType.OUT, src, elems, "store")
        self._check_block(dst, offset, x_size, y_size, x_stride, "store")
        fields = {
            "memory_type": int(MemoryType.OUT),
            "sram_base": base,
            "dram_base": dst.elem_base + offset,
            "y_size": y_size,
            "x_size": x_size,
            "x_stride": x_stride,
        }
        return self._add(
            Opcode.STORE,
            Unit.STORE,
            f"store {dst.name}",
            fields,
            pop,
            reads=merged("acc", [(base, base + elems)] if elems else []),
        )

    # ---- arithmetic ------------------------------------------------------------------------
    def gemm(
        self,
        uops: Sequence[tuple[int, int, int]],
        *,
        outer: Loop | None = None,
        inner: Loop | None = None,
        reset: bool = False,
        pop: Pop = None,
    ) -> Insn:
        """Multiply-accumulate, or with `reset` zero, accumulator elements.

        For every turn of `outer`, of `inner` and every micro-op ``(dst, src, wgt)``, each index
        increased by the loops' strides: ``acc[dst] += inp[src] @ wgt[wgt].T``. One micro-op a
        cycle.

        Parameters
        ----------
        uops : sequence of (int, int, int)
            Indices of acc, inp and wgt.
        outer, inner : Loop, optional
        reset : bool
            Zero ``acc[dst]`` and read nothing; costs a cycle an element too.
        pop : Token or sequence of Token, optional
        """
        outer, inner = _turning(outer), _turning(inner)
        sequence = tuple((int(d), int(s), int(w)) for d, s, w in uops)
        if reset:
            sequence = tuple((d, 0, 0) for d, _, _ in sequence)
        fields = self._loops("gemm", sequence, outer, inner)
        fields |= {
            "reset": int(reset),
            "src_factor_out": outer.src,
            "src_factor_in": inner.src,
            "wgt_factor_out": outer.wgt,
            "wgt_factor_in": inner.wgt,
        }
        writes = self._touched("gemm", "acc", "dst", 0, sequence, outer, inner)
        reads = ()
        if not reset:
            reads = self._touched("gemm", "inp", "src", 1, sequence, outer, inner)
            reads += self._touched("gemm", "wgt", "wgt", 2, sequence, outer, inner)
        return self._add(
            Opcode.GEMM, Unit.COMPUTE, "gemm", fields, pop, sequence, reads=reads, writes=writes
        )

    def alu(
        self,
        op: AluOp,
        dst: Range | Sequence[int],
        src: Range | Sequence[int] | None = None,
        *,
        imm: int | None = None,
        outer: Loop | None = None,
        inner: Loop | None = None,
        pop: Pop = None,
    ) -> Insn:
        """``acc[dst] = acc[dst] op (imm or acc[src])``, lane by lane.

        A `Range` is walked by the instruction's inner loop with a single micro-op; a list of
        indices becomes one micro-op an entry, walked inside the loops. An operation takes a cycle
        with `imm` or with the `src` of the one before, else two; MUL takes `cfg.mul_cycles`.

        Parameters
        ----------
        op : AluOp
        dst : Range or sequence of int
        src : Range or sequence of int, optional
            As many as `dst`.
        imm : int, optional
            16 bits, signed. Exactly one of `src` and `imm` is given.
        outer, inner : Loop, optional
            Not `inner` with a Range.
        pop : Token or sequence of Token, optional
        """
        require(
            int(op) in isa(self.cfg).alu_ops,
            f"alu: op must be known to {self.cfg.name} (extensions {self.cfg.extensions}), got"
            f" {AluOp(op).name}",
        )
        require(
            (src is None) != (imm is None),
            f"alu {AluOp(op).name}: exactly one of src and imm must be given",
        )
        if isinstance(dst, Range):
            require(inner is None, "alu: inner must be left to the builder where dst is a Range")
            require(
                src is None or (isinstance(src, Range) and src.size == dst.size),
                "alu: src must be a Range as long as dst, where dst is one",
            )
            source = src.base if isinstance(src, Range) else dst.base
            inner = _turning(Loop(count=dst.size, dst=1, src=1))
            sequence: tuple[tuple[int, int, int], ...] = ((dst.base, source, 0),)
        else:
            sources = list(dst) if src is None else [int(s) for s in src]  # type: ignore[union-attr]
            require(
                len(sources) == len(dst),
                f"alu: src must be as long as dst = {len(dst)}, got {len(sources)}",
            )
            sequence = tuple((int(d), int(s), 0) for d, s in zip(dst, sources, strict=True))
            inner = _turning(inner)
        outer = _turning(outer)
        fields = self._loops("alu", sequence, outer, inner)
        fields |= {
            "src_factor_out": outer.src,
            "src_factor_in": inner.src,
            "alu_opcode": int(op),
            "use_imm": int(imm is not None),
            "imm": 0 if imm is None else int(imm),
        }
        touched = self._touched("alu", "acc", "dst", 0, sequence, outer, inner)
        reads = touched
        if imm is None:
            reads += self._touched("alu", "acc", "src", 1, sequence, outer, inner)
        return self._add(
            Opcode.ALU, Unit.COMPUTE, f"alu {AluOp(op).name}", fields, pop, sequence,
            reads=reads, writes=touched,
        )  # fmt: skip

    # ---- tokens, the end -------------------------------------------------------------------
    def wait(self, unit: str, pop: Pop) -> Insn:
        """An instruction of `unit` that moves nothing: a carrier of tokens.

        Useful to turn two tokens of one neighbour into one, or to pass a token from load on to
        store."""
        memory = {
            "load": MemoryType.INP,
            "compute": MemoryType.UOP,
            "store": MemoryType.OUT,
        }
        require(unit in memory, f"unit must be among {', '.join(memory)}, got {unit!r}")
        opcode = Opcode.STORE if unit == "store" else Opcode.LOAD
        fields = {"memory_type": int(memory[unit])}
        return self._add(opcode, Unit[unit.upper()], f"wait in {unit}", fields, pop)

    def finish(self, *, pop: Pop = None) -> Insn:
        """End the program; `build` does so by itself if the author did not."""
        insn = self._add(Opcode.FINISH, Unit.COMPUTE, "finish", {}, pop)
        self._finished = True
        return insn

    def build(
        self,
        expect: Mapping[str, np.ndarray] | None = None,
        *,
        meta: Mapping[str, Any] | None = None,
        batch_uops: int = BATCH_UOPS,
    ) -> Program:
        """Place the micro-ops, encode everything, put it in a container.

        Parameters
        ----------
        expect : mapping of str to np.ndarray, optional
            Right contents of buffers after the run, by name, shaped as for `buffer`. Other buffers
            are not compared.
        meta : mapping, optional
            Added to the container's own: name and buffers.
        batch_uops : int
            Micro-ops that one LOAD brings ahead of need.

        Raises
        ------
        BuildError
            If a field does not fit, or a token is left.
        """
        require(not self._built, "build must be called once, got a second call")
        if not self._finished:
            self.finish()
        self._tracker.finish()
        self._built = True
        uops = place_uops(self.cfg, self._insns, batch_uops=batch_uops)
        uop_bytes = uops.words.astype("<u4").view(np.uint8)
        uop_addr = self._dram.reserve(len(uop_bytes))
        for insn in uops.insns:
            if insn.ordinal < 0:
                insn.fields["dram_base"] += uop_addr // self.cfg.uop_elem_bytes
        stream = np.frombuffer(b"".join(self._encode(i) for i in uops.insns), np.uint8)
        insn_addr = self._dram.reserve(len(stream))
        buffers = list(self._dram.buffers.values())
        regions = [(b.addr, b.data) for b in buffers]
        if len(uop_bytes):
            regions.append((uop_addr, uop_bytes))
        regions.append((insn_addr, stream))
        program = Program(
            config=self.cfg,
            insn=stream.reshape(-1, 16),
            insn_addr=insn_addr,
            region_addrs=tuple(addr for addr, _ in regions),
            regions=tuple(data for _, data in regions),
            meta={
                "name": self.name,
                "buffers": [
                    {"name": b.name, "memory": b.memory.name, "shape": list(b.shape)}
                    for b in buffers
                ],
                **(meta or {}),
            },
        )
        return with_contents(program, expect=expect) if expect else program

    def output(self, result: RunResult, buffer: Buffer) -> np.ndarray:
        """A buffer's tensor after a run of the built program."""
        return buffer.decode(result.memory[list(self._dram.buffers).index(buffer.name)])

    # ---- inside ----------------------------------------------------------------------------
    def _encode(self, insn: Insn) -> bytes:
        try:
            return isa(self.cfg).encode(insn.opcode, **insn.fields, **insn.flags())
        except EncodeError as error:
            raise BuildError(f"{insn.name}: {error}") from None

    def _add(
        self,
        opcode: Opcode,
        unit: Unit,
        name: str,
        fields: dict[str, int],
        pop: Pop,
        uops: tuple[tuple[int, int, int], ...] | None = None,
        **accesses: Any,
    ) -> Insn:
        require(not self._finished, f"{name}: nothing may follow finish")
        name = f"{name} (instruction {len(self._insns)})"
        tokens = [pop] if isinstance(pop, Token) else [t for t in pop or () if t is not None]
        require(
            not (self._automatic and tokens),
            f"{name}: pop must be left to the builder with sync='auto', got {len(tokens)} tokens",
        )
        insn = Insn(opcode, unit, name, self._counts[unit], fields, uops, **accesses)
        insn.automatic = self._automatic
        insn.take(tokens)
        self._tracker.add(insn)
        self._counts[unit] += 1
        self._insns.append(insn)
        return insn

    def _target(self, memory: MemoryType, where: Range | int, elems: int, what: str) -> int:
        pad, depth = _PAD[memory], isa(self.cfg).depth(memory)
        if isinstance(where, Range):
            require(
                where.pad == pad,
                f"{what}: the range must be of {pad} for {memory.name}, got one of {where.pad}",
            )
            require(
                elems <= where.size,
                f"{what}: {elems} elements must fit the {pad} range, got one of {where.size}",
            )
            return where.base
        require(
            0 <= where and where + elems <= depth,
            f"{what}: sram_base + size must stay within {pad}'s {depth} elements, got {where} +"
            f" {elems}",
        )
        return where

    def _check_block(
        self, buffer: Buffer, offset: int, x_size: int, y_size: int, x_stride: int, what: str
    ) -> None:
        require(
            min(offset, x_size, y_size, x_stride) >= 0,
            f"{what}: offset, x_size, y_size, x_stride must not be negative, got {offset},"
            f" {x_size}, {y_size}, {x_stride}",
        )
        end = offset + (y_size - 1) * x_stride + x_size if x_size and y_size else 0
        require(
            end <= buffer.elems,
            f"{what}: the block must end within {buffer.name}'s {buffer.elems} elements, got {end}",
        )

    def _loops(
        self, what: str, uops: tuple[tuple[int, int, int], ...], outer: Loop, inner: Loop
    ) -> dict[str, int]:
        require(len(uops) > 0, f"{what}: uops must hold at least one micro-op, got none")
        for field, loop in (("outer", outer), ("inner", inner)):
            require(
                1 <= loop.count < 1 << 14,
                f"{what}: {field}.count must be from 1 to {(1 << 14) - 1}, got {loop.count}",
            )
            for name in ("dst", "src", "wgt"):
                require(
                    getattr(loop, name) >= 0,
                    f"{what}: {field}.{name} must not be negative, got {getattr(loop, name)}",
                )
        return {
            "iter_out": outer.count,
            "iter_in": inner.count,
            "dst_factor_out": outer.dst,
            "dst_factor_in": inner.dst,
        }

    def _touched(
        self,
        what: str,
        pad: str,
        operand: str,
        column: int,
        uops: tuple[tuple[int, int, int], ...],
        outer: Loop,
        inner: Loop,
    ) -> tuple[Any, ...]:
        depth = {"inp": self.inp, "wgt": self.wgt, "acc": self.acc}[pad].depth
        o, i = getattr(outer, operand), getattr(inner, operand)
        span = (outer.count - 1) * o + (inner.count - 1) * i
        bases = {u[column] for u in uops}
        require(
            min(bases) >= 0 and max(bases) + span < depth,
            f"{what}: {operand} must stay within {pad}'s {depth} elements, got {min(bases)} ..."
            f" {max(bases) + span}",
        )
        row = (inner.count - 1) * i + 1
        if o > row:  # rows apart from each other: no need to claim what lies between
            spans = ((b + k * o, b + k * o + row) for b in bases for k in range(outer.count))
        else:
            spans = ((b, b + span + 1) for b in bases)
        return merged(pad, spans)


def _turning(loop: Loop | None) -> Loop:
    """The loop, without strides that no turn would use."""
    return Loop() if loop is None or loop.count == 1 else loop
