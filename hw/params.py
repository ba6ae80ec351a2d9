"""Machine parameters: read, validated, derived.

One :class:`Config` describes one machine. Everything that follows from its fields is a property, so
that a fact is written once. Sources: ISA document, section *Parameters*.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

__all__ = [
    "EXTENSIONS",
    "Buffers",
    "Bus",
    "Config",
    "ConfigError",
    "builtin_configs",
    "load_config",
]

EXTENSIONS: dict[str, str] = {
    "requantize": "ALU opcode 5 (RQT): rounding shift and clip to OUT_W in one operation",
    "pad_min": "LOAD word 0 bit 58: padding is the least value of the element type, not zero",
}
"""Names of the instruction set's extensions and what each adds."""


MIN_LOAD_AHEAD_BEATS = 256


class ConfigError(ValueError):
    """A configuration that cannot be built; the message names field, rule and value."""


_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20}


def _parse_size_bytes(value: Any) -> Any:
    """Turn ``32 KiB`` into 32768; leave integers alone."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]+)\s*(B|KiB|MiB|)\s*", value)
        if not match:
            raise ValueError(f"{value!r} is no size; write e.g. 32 KiB")
        return int(match[1]) * _UNITS[match[2]]
    return value


def _parse_names(value: Any) -> Any:
    """A list as a tuple."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{value!r} is no list; write e.g. [pad_min]")
    return tuple(value)


SizeBytes = Annotated[int, BeforeValidator(_parse_size_bytes)]


def log2_exact(value: int) -> int:
    """Logarithm of a power of two.

    Raises
    ------
    ValueError
        If `value` is no power of two.
    """
    if value <= 0 or value & (value - 1):
        raise ValueError(f"{value} is not a power of two")
    return value.bit_length() - 1


class _Loader(yaml.SafeLoader):
    """YAML whose mappings name no key twice."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for k, key in enumerate(keys):
        if key in keys[:k]:
            raise ConfigError(
                f"{key!r} stands twice, the second time in line"
                f" {node.value[k][0].start_mark.line + 1}"
            )
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


class _Model(BaseModel, frozen=True, extra="forbid", strict=True):
    """Immutable; unknown fields and silent conversions are refused."""


class Buffers(_Model, frozen=True):
    """Scratchpad sizes in bytes (``uop, inp, wgt, acc``); *out* follows from *acc*."""

    uop: SizeBytes = 32 << 10
    inp: SizeBytes = 32 << 10
    wgt: SizeBytes = 256 << 10
    acc: SizeBytes = 128 << 10


class Bus(_Model, frozen=True):
    """The AXI4 memory port: widths in bits, burst length in beats, bursts in flight."""

    data_bits: Literal[32, 64, 128, 256, 512] = 64
    addr_bits: Annotated[int, Field(ge=16, le=64)] = 32
    max_burst_beats: Literal[1, 2, 4, 8, 16, 32, 64, 128, 256] = 64
    max_outstanding: Literal[2, 4, 8, 16, 32, 64] = 16


class Config(_Model, frozen=True):
    """One machine.

    Parameters
    ----------
    batch, block_in, block_out : int
        Tensor shapes: inp ``(batch, block_in)``, wgt ``(block_out, block_in)``, acc and out
        ``(batch, block_out)``.
    inp_bits, wgt_bits, acc_bits : int
        Widths of one element; ``out_bits == inp_bits``.
    buffers, bus : Buffers, Bus
        Scratchpads and memory port.
    insn_queue_depth : int
        Instructions that wait in front of each unit.
    alu_mul_lanes : int
        Lanes that the ALU multiplies a cycle: MUL takes ``batch * block_out / alu_mul_lanes``
        cycles an operation.
    dsp_pack : bool
        Two products in one multiplier (Xilinx DSP48): pairs of output lanes share an input.
    dsp_cell : str
        Multipliers of the array: ``generic``, left to synthesis, or a vendor's cell by name, where
        synthesis would not use that cell's own registers. Cycles are the same.
    extensions : tuple of str
        Names out of `EXTENSIONS`.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] = "custom"
    description: str = ""
    batch: int = 1
    block_in: int = 16
    block_out: int = 16
    inp_bits: Literal[4, 8, 16] = 8
    wgt_bits: Literal[2, 4, 8, 16] = 8
    acc_bits: Literal[16, 32] = 32
    buffers: Buffers = Buffers()
    bus: Bus = Bus()
    insn_queue_depth: Literal[4, 8, 16, 32, 64, 128] = 32
    alu_mul_lanes: int = 4
    dsp_pack: bool = False
    dsp_cell: Literal["generic", "mult18x18d"] = "generic"
    extensions: Annotated[tuple[str, ...], BeforeValidator(_parse_names)] = ()

    uop_bits: Literal[32] = 32

    # ---- derived: shapes -------------------------------------------------------------------
    @property
    def out_bits(self) -> int:
        """Bits of one stored element."""
        return self.inp_bits

    @property
    def lanes(self) -> int:
        """Elements of one accumulator tensor."""
        return self.batch * self.block_out

    @property
    def macs(self) -> int:
        """Multiply-accumulates a cycle."""
        return self.batch * self.block_in * self.block_out

    @property
    def inp_elem_bits(self) -> int:
        """Bits of one inp tensor."""
        return self.batch * self.block_in * self.inp_bits

    @property
    def wgt_elem_bits(self) -> int:
        """Bits of one wgt tensor."""
        return self.block_out * self.block_in * self.wgt_bits

    @property
    def acc_elem_bits(self) -> int:
        """Bits of one acc tensor."""
        return self.lanes * self.acc_bits

    @property
    def out_elem_bits(self) -> int:
        """Bits of one out tensor."""
        return self.lanes * self.out_bits

    @property
    def uop_elem_bytes(self) -> int:
        """Bytes of one micro-op."""
        return self.uop_bits // 8

    @property
    def inp_elem_bytes(self) -> int:
        """Bytes of one inp tensor."""
        return self.inp_elem_bits // 8

    @property
    def wgt_elem_bytes(self) -> int:
        """Bytes of one wgt tensor."""
        return self.wgt_elem_bits // 8

    @property
    def acc_elem_bytes(self) -> int:
        """Bytes of one acc tensor."""
        return self.acc_elem_bits // 8

    @property
    def out_elem_bytes(self) -> int:
        """Bytes of one out tensor."""
        return self.out_elem_bits // 8

    @property
    def acc8_elem_bytes(self) -> int:
        """DRAM bytes of one ACC_8BIT tensor."""
        return self.lanes

    # ---- derived: depths -------------------------------------------------------------------
    @property
    def uop_depth(self) -> int:
        """Micro-ops the uop scratchpad holds."""
        return self.buffers.uop // self.uop_elem_bytes

    @property
    def inp_depth(self) -> int:
        """Tensors the inp scratchpad holds."""
        return self.buffers.inp // self.inp_elem_bytes

    @property
    def wgt_depth(self) -> int:
        """Tensors the wgt scratchpad holds."""
        return self.buffers.wgt // self.wgt_elem_bytes

    @property
    def acc_depth(self) -> int:
        """Tensors the acc scratchpad holds; the out scratchpad as many."""
        return self.buffers.acc // self.acc_elem_bytes

    @property
    def load_ahead_beats(self) -> int:
        """Beats in flight at which the load unit asks for no further burst.

        A quarter of what the port can have in flight, at least 256: enough to stream at latencies
        up to about as many cycles, and all that a load of the compute unit waits behind.
        """
        return max(MIN_LOAD_AHEAD_BEATS, self.bus.max_burst_beats * self.bus.max_outstanding // 4)

    @property
    def log2_uop_depth(self) -> int:
        """Bits of a uop address."""
        return log2_exact(self.uop_depth)

    @property
    def log2_inp_depth(self) -> int:
        """Bits of an inp address."""
        return log2_exact(self.inp_depth)

    @property
    def log2_wgt_depth(self) -> int:
        """Bits of a wgt address."""
        return log2_exact(self.wgt_depth)

    @property
    def log2_acc_depth(self) -> int:
        """Bits of an acc or out address."""
        return log2_exact(self.acc_depth)

    @property
    def log2_src_depth(self) -> int:
        """Bits of a micro-op's src field, which addresses inp (GEMM) or acc (ALU)."""
        return max(self.log2_acc_depth, self.log2_inp_depth)

    # ---- derived: bus ----------------------------------------------------------------------
    @property
    def bus_bytes(self) -> int:
        """Bytes of one beat."""
        return self.bus.data_bits // 8

    @property
    def mul_cycles(self) -> int:
        """Cycles of one ALU MUL operation on one tensor."""
        return self.lanes // self.alu_mul_lanes

    def has(self, extension: str) -> bool:
        """Whether the machine has an extension of the instruction set."""
        assert extension in EXTENSIONS, extension
        return extension in self.extensions

    # ---- validation ------------------------------------------------------------------------
    @model_validator(mode="after")
    def _check(self) -> Config:
        def require(condition: bool, message: str) -> None:
            if not condition:
                raise ValueError(message)

        for field, low, high in (("batch", 1, 64), ("block_in", 2, 64), ("block_out", 2, 64)):
            value = getattr(self, field)
            require(
                low <= value <= high and value & (value - 1) == 0,
                f"{field} must be a power of two from {low} to {high}, got {value}",
            )
        for field in ("inp", "wgt", "acc", "out"):
            bits = getattr(self, f"{field}_elem_bits")
            require(
                bits >= self.bus.data_bits,
                f"bus.data_bits must not exceed one {field} tensor,"
                f" got {self.bus.data_bits} > {bits}",
            )
        require(
            self.lanes * 8 >= self.bus.data_bits,
            "bus.data_bits must not exceed one ACC_8BIT tensor of batch * block_out * 8 bits, got"
            f" {self.bus.data_bits} > {self.lanes * 8}",
        )
        require(
            self.acc_bits >= self.inp_bits + self.wgt_bits,
            f"acc_bits must hold a product of inp_bits + wgt_bits = {self.inp_bits + self.wgt_bits}"
            f" bits, got {self.acc_bits}",
        )
        require(
            self.bus.data_bits >= self.uop_bits,
            f"bus.data_bits must hold a micro-op of {self.uop_bits} bits, got {self.bus.data_bits}",
        )
        for memory in ("uop", "inp", "wgt", "acc"):
            size_bytes = getattr(self.buffers, memory)
            elem_bytes = getattr(self, f"{memory}_elem_bytes")
            require(
                size_bytes >= 4 * elem_bytes and size_bytes & (size_bytes - 1) == 0,
                f"buffers.{memory} must be a power of two of at least 4 elements of {elem_bytes}"
                f" bytes, got {size_bytes}",
            )
            depth = getattr(self, f"{memory}_depth")
            require(
                depth <= 1 << 16,
                f"buffers.{memory} must not exceed 65536 elements (16-bit sram_base), got {depth}",
            )
        require(
            self.uop_depth >= self.bus.data_bits // self.uop_bits * 2,
            f"buffers.uop must hold at least two beats of micro-ops, got {self.buffers.uop}",
        )
        a, i, w, u = (
            self.log2_acc_depth,
            self.log2_inp_depth,
            self.log2_wgt_depth,
            self.log2_uop_depth,
        )
        require(
            a + max(a, i) + w <= self.uop_bits,
            f"a micro-op must fit {self.uop_bits} bits: dst {a} + src {max(a, i)} + wgt {w}"
            f" = {a + max(a, i) + w}",
        )
        require(
            8 + u + (u + 1) + 28 <= 64,
            f"gemm.0 must fit 64 bits: 8 + uop_bgn {u} + uop_end {u + 1} + 28 = {37 + 2 * u}",
        )
        require(
            2 * (a + i + w) <= 64,
            f"gemm.1 must fit 64 bits: 2 * (acc {a} + inp {i} + wgt {w}) = {2 * (a + i + w)}",
        )
        require(
            4 * a + 20 <= 64,
            f"alu.1 must fit 64 bits: 4 * acc {a} + 20 = {4 * a + 20}",
        )
        m = self.alu_mul_lanes
        require(
            1 <= m <= self.lanes and m & (m - 1) == 0,
            f"alu_mul_lanes must be a power of two from 1 to batch * block_out = {self.lanes},"
            f" got {m}",
        )
        require(
            not self.dsp_pack or (self.inp_bits == 8 and self.wgt_bits == 8),
            f"dsp_pack needs 8-bit operands, got inp_bits {self.inp_bits},"
            f" wgt_bits {self.wgt_bits}",
        )
        require(
            not self.dsp_pack or self.dsp_cell == "generic",
            f"dsp_pack needs dsp_cell generic, got {self.dsp_cell}",
        )
        for extension in self.extensions:
            require(
                extension in EXTENSIONS,
                f"extensions must be among {', '.join(EXTENSIONS)}, got {extension!r}",
            )
        require(
            len(set(self.extensions)) == len(self.extensions),
            f"extensions must not repeat, got {', '.join(self.extensions)}",
        )
        return self

    # ---- reading and writing ---------------------------------------------------------------
    @classmethod
    def from_dict(cls, data: Any, source: str = "configuration") -> Config:
        """Validate a mapping of YAML or official keys.

        Raises
        ------
        ConfigError
            With `source`, field, rule and value.
        """
        if not isinstance(data, dict):
            raise ConfigError(f"{source}: must be a mapping of parameters, got {data!r}")
        if any(str(key).startswith("LOG_") for key in data):
            data = _from_official(data, source)
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            lines = []
            for item in error.errors():
                where = ".".join(str(part) for part in item["loc"])
                message = item["msg"].removeprefix("Value error, ")
                if where:
                    message = f"{where}: {message}, got {item['input']!r}"
                lines.append(message)
            raise ConfigError(f"{source}: " + "; ".join(lines)) from None

    @classmethod
    def from_text(cls, text: str, source: str = "configuration") -> Config:
        """Read YAML or official JSON text (JSON is YAML)."""
        try:
            data = yaml.load(text, _Loader)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None
        except (yaml.YAMLError, ValueError) as error:  # ValueError: tags and dates of no value
            detail = " ".join(str(error).split())
            raise ConfigError(f"{source}: not YAML: {detail}") from None
        except RecursionError:
            raise ConfigError(f"{source}: is nested too deeply") from None
        return cls.from_dict(data, source)

    def to_dict(self) -> dict[str, Any]:
        """Every field, resolved, as plain data."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The resolved configuration as YAML text."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    def to_official(self) -> dict[str, Any]:
        """The official ``vta_config.json`` keys.

        Raises
        ------
        ConfigError
            If the machine is not expressible (BLOCK_IN differs from BLOCK_OUT).
        """
        if self.block_in != self.block_out:
            raise ConfigError(
                f"{self.name}: official keys tie block_in and block_out together, got"
                f" {self.block_in} and {self.block_out}"
            )
        return {
            "TARGET": "sim",
            "HW_VER": "0.0.2",
            "LOG_INP_WIDTH": log2_exact(self.inp_bits),
            "LOG_WGT_WIDTH": log2_exact(self.wgt_bits),
            "LOG_ACC_WIDTH": log2_exact(self.acc_bits),
            "LOG_BATCH": log2_exact(self.batch),
            "LOG_BLOCK": log2_exact(self.block_out),
            "LOG_UOP_BUFF_SIZE": log2_exact(self.buffers.uop),
            "LOG_INP_BUFF_SIZE": log2_exact(self.buffers.inp),
            "LOG_WGT_BUFF_SIZE": log2_exact(self.buffers.wgt),
            "LOG_ACC_BUFF_SIZE": log2_exact(self.buffers.acc),
        }

    def to_official_json(self) -> str:
        """The official keys as JSON text."""
        return json.dumps(self.to_official(), indent=2) + "\n"

    def isa_equal(self, other: Config) -> bool:
        """Whether programs for `other` mean the same here: shapes, widths, buffers, extensions."""
        fields = ("batch", "block_in", "block_out", "inp_bits", "wgt_bits", "acc_bits", "buffers")
        return all(getattr(self, f) == getattr(other, f) for f in fields) and set(
            other.extensions
        ) <= set(self.extensions)


_OFFICIAL = (
    "LOG_INP_WIDTH",
    "LOG_WGT_WIDTH",
    "LOG_ACC_WIDTH",
    "LOG_BATCH",
    "LOG_BLOCK",
    "LOG_UOP_BUFF_SIZE",
    "LOG_INP_BUFF_SIZE",
    "LOG_WGT_BUFF_SIZE",
    "LOG_ACC_BUFF_SIZE",
)


_DERIVED: dict[str, tuple[str, Callable[[dict[str, int]], int]]] = {
    "LOG_UOP_WIDTH": ("5", lambda _: 5),
    "LOG_OUT_WIDTH": ("LOG_INP_WIDTH", lambda log2: log2["LOG_INP_WIDTH"]),
    "LOG_BLOCK_IN": ("LOG_BLOCK", lambda log2: log2["LOG_BLOCK"]),
    "LOG_BLOCK_OUT": ("LOG_BLOCK", lambda log2: log2["LOG_BLOCK"]),
    "LOG_OUT_BUFF_SIZE": (
        "LOG_ACC_BUFF_SIZE + LOG_INP_WIDTH - LOG_ACC_WIDTH",
        lambda log2: log2["LOG_ACC_BUFF_SIZE"] + log2["LOG_INP_WIDTH"] - log2["LOG_ACC_WIDTH"],
    ),
}
"""Official keys that follow from others: they may be there if they agree."""

_NOT_OF_THE_MACHINE = ("TARGET", "HW_VER", "HW_FREQ", "HW_CLK_TARGET")
"""Official keys that say how the public stack builds or runs; they change nothing here."""


def _from_official(data: dict[str, Any], source: str) -> dict[str, Any]:
    for key in data:
        if key not in (*_OFFICIAL, *_DERIVED, *_NOT_OF_THE_MACHINE):
            raise ConfigError(f"{source}: unknown key {key!r} among the official keys")
    for key in _OFFICIAL:
        if key not in data:
            raise ConfigError(f"{source}: the official key {key} is missing")
    log2: dict[str, int] = {}
    for key in (*_OFFICIAL, *_DERIVED):
        value = data.get(key, 0)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 30:
            raise ConfigError(f"{source}: {key} must be an integer from 0 to 30, got {value!r}")
        log2[key] = value
    for key, (rule, derive) in _DERIVED.items():
        if key in data and log2[key] != derive(log2):
            raise ConfigError(f"{source}: {key} must be {rule} = {derive(log2)}, got {log2[key]}")
    fields: dict[str, Any] = {
        "name": "official",
        "batch": 1 << log2["LOG_BATCH"],
        "block_in": 1 << log2["LOG_BLOCK"],
        "block_out": 1 << log2["LOG_BLOCK"],
        "inp_bits": 1 << log2["LOG_INP_WIDTH"],
        "wgt_bits": 1 << log2["LOG_WGT_WIDTH"],
        "acc_bits": 1 << log2["LOG_ACC_WIDTH"],
        "buffers": {
            name: 1 << log2[f"LOG_{name.upper()}_BUFF_SIZE"]
            for name in ("uop", "inp", "wgt", "acc")
        },
    }
    # No official key is about bus or ALU: the defaults, or as much as a small machine can use.
    lanes = fields["batch"] * fields["block_out"]
    fields["bus"] = {"data_bits": max(32, min(64, lanes * min(8, fields["inp_bits"])))}
    fields["alu_mul_lanes"] = min(4, lanes)
    return fields


_CONFIG_DIR = Path(__file__).parent.parent / "configs"


def builtin_configs() -> dict[str, Path]:
    """The configurations that ship with the package, by name."""
    return {
        path.stem: path
        for path in (*sorted(_CONFIG_DIR.glob("*.yaml")), *sorted(_CONFIG_DIR.glob("test/*.yaml")))
    }


def load_config(source: str | Path) -> Config:
    """Read a configuration file, or a built-in one by name (``edge`` or ``edge.yaml``).

    Raises
    ------
    ConfigError
        If there is no such file, or it does not describe a machine.
    """
    path = Path(source)
    if not path.is_file():
        builtin = builtin_configs()
        stem = path.stem if path.suffix in {".yaml", ".yml"} else path.name
        if path.parent == Path(".") and stem in builtin:
            path = builtin[stem]
        else:
            missing = "is a folder" if path.is_dir() else "no such file"
            raise ConfigError(
                f"{source}: {missing}, and no built-in configuration"
                f" (there are {', '.join(builtin)})"
            )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: cannot be read: {error}") from None
    return Config.from_text(text, str(source))
