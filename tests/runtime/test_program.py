"""The program file: strict reading, deterministic writing."""

from dataclasses import replace

import numpy as np
import pytest

from covta.hw.isa import Opcode, isa
from covta.hw.params import load_config
from covta.runtime.device import DEVICES, DeviceError, open_device
from covta.runtime.program import Program, ProgramError

TINY = load_config("tiny")
FINISH = np.frombuffer(isa(TINY).encode(Opcode.FINISH), np.uint8).reshape(1, 16)


def arrays(**changes):
    """The keys of a right file, changed; None takes a key away."""
    right = {
        "config": np.array(TINY.to_yaml()),
        "insn": FINISH,
        "insn_addr": np.uint64(0x8000),
        "base_ptrs": np.zeros(6, np.uint64),
        "region_addr": np.array([0x1000, 0x2000], np.uint64),
        "region_0": np.arange(64, dtype=np.uint8),
        "expect_0": np.arange(64, dtype=np.uint8),
        "region_1": np.zeros(32, np.uint8),
        "initial_tokens": np.array([1, 2, 3, 4], np.uint32),
        "meta": np.array('{"name": "two regions"}'),
    }
    return {k: v for k, v in (right | changes).items() if v is not None}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "p.npz"


def read(path, **changes):
    np.savez(path, **arrays(**changes))
    return Program.load(path)


def test_a_right_file_is_read_whole(path):
    program = read(path)
    assert program.config.isa_equal(TINY)
    assert program.insn_addr == 0x8000
    assert program.region_addrs == (0x1000, 0x2000)
    assert program.expected[1] is None
    assert program.initial_tokens == (1, 2, 3, 4)
    assert program.meta == {"name": "two regions"}
    assert [addr for addr, _ in program.memory()] == [0x1000, 0x2000, 0x8000]


def test_optional_keys_default_to_zeros(path):
    program = read(path, base_ptrs=None, initial_tokens=None, meta=None, expect_0=None)
    assert program.base_ptrs == (0,) * 6
    assert program.initial_tokens == (0,) * 4
    assert program.meta == {}
    assert program.expected == ()


def test_official_keys_are_a_configuration(path):
    text = load_config("edge").to_official_json()
    assert read(path, config=np.array(text)).config.block_in == 16


def test_writing_is_deterministic_and_reads_back(path, tmp_path):
    program = read(path)
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    program.save(one)
    Program.load(one).save(two)
    assert one.read_bytes() == two.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.npz", "p.npz", "two.npz"]


def test_a_region_may_hold_the_stream(path):
    program = read(
        path,
        region_addr=np.array([0x1000, 0x8000], np.uint64),
        region_1=np.concatenate([FINISH[0], np.ones(16, np.uint8)]),
    )
    assert len(program.memory()) == 2


WRONG = {
    "no stream": ({"insn": None}, "'insn' is missing"),
    "empty stream": ({"insn": np.zeros((0, 16), np.uint8)}, "must hold 1 to 16777215"),
    "stream dtype": ({"insn": FINISH.astype(np.int64)}, r"insn: must be uint8 \(n, 16\)"),
    "stream shape": ({"insn": FINISH[0]}, r"insn: must be uint8 \(n, 16\)"),
    "stream address": ({"insn_addr": np.uint64(8)}, "insn_addr: must be a multiple of 16"),
    "floats": ({"insn_addr": np.float64(1)}, "insn_addr: must be integers"),
    "negative": ({"region_addr": np.array([-1, 5])}, "region_addr: must not be negative"),
    "config": ({"config": np.array("batch: 3")}, "batch must be a power of two"),
    "config dtype": ({"config": np.zeros(3)}, "config"),
    "region missing": ({"region_1": None}, "region_1"),
    "region dtype": ({"region_1": np.zeros(4)}, "region_1: must be uint8"),
    "region shape": ({"region_1": np.zeros((4, 4), np.uint8)}, "region_1: must be uint8"),
    "region beyond": (
        {"region_addr": np.array([0x1000, 0xFFFFFFF0], np.uint64)},
        "region_1: must end below 0x100000000",
    ),
    "overlap": ({"region_addr": np.array([0x1000, 0x103F])}, "region_1: must not overlap region_0"),
    "stream differs": ({"insn_addr": np.uint64(0x1000)}, "must lie whole in region_0"),
    "stream half in": (
        {"insn_addr": np.uint64(0x1FF0), "insn": np.repeat(FINISH, 2, axis=0)},
        "must lie whole in region_1",
    ),
    "expect size": ({"expect_0": np.zeros(63, np.uint8)}, "expect_0: must have the size"),
    "expect without region": (
        {"expect_2": np.zeros(4, np.uint8)},
        "unknown key 'expect_2': region_addr has 2 entries",
    ),
    "base count": ({"base_ptrs": np.zeros(5, np.uint64)}, "base_ptrs: must hold 6 values, got 5"),
    "base alignment": ({"base_ptrs": np.full(6, 2, np.uint64)}, "must be a multiple of 4"),
    "tokens": ({"initial_tokens": np.full(4, 256, np.uint32)}, "four counts from 0 to 255"),
    "meta": ({"meta": np.array("{")}, "meta: must be JSON"),
    "meta list": ({"meta": np.array("[]")}, "meta: must be a JSON object"),
    "deep meta": ({"meta": np.array("[" * 200_000)}, "meta is nested too deeply"),
    "deep config": ({"config": np.array("[" * 5_000)}, "config: is nested too deeply"),
    "date": ({"config": np.array("batch: 2020-99-99")}, "config: not YAML: month must be"),
    "config bytes": ({"config": np.array(b"\xff")}, "config: must be UTF-8"),
    "long number": ({"meta": np.array('{"a": ' + "9" * 5000 + "}")}, "meta: must be JSON"),
    "stream beyond": ({"insn_addr": np.uint64(1 << 32)}, "insn_addr: the stream must end below"),
    "expect dtype": ({"expect_0": np.zeros(64)}, r"expect_0: must be uint8 \(size,\), got float64"),
    "unknown": ({"extra": np.zeros(1)}, "unknown key 'extra'"),
    "objects": ({"region_1": np.array([{}], dtype=object)}, "Python objects|object"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_refused_in_one_line(path, changes, message):
    with pytest.raises(ProgramError, match=message) as caught:
        read(path, **changes)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"not a zip", bytes(1000)])
def test_foreign_bytes_are_refused(path, data):
    path.write_bytes(data)
    with pytest.raises(ProgramError, match="not a program file"):
        Program.load(path)


def test_a_missing_file_is_refused(path):
    with pytest.raises(ProgramError, match="no such file"):
        Program.load(path)


def test_damaged_files_never_raise_anything_else(path):
    """Every truncation by a step, and single damaged bytes."""
    read(path).save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(3)
    for cut in range(0, len(whole), 97):
        path.write_bytes(whole[:cut])
        with pytest.raises(ProgramError):
            Program.load(path)
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            Program.load(path)
        except ProgramError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_a_failed_write_leaves_nothing(path, tmp_path):
    program = read(path)
    path.unlink()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        program.save(tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_changed_program_is_checked_again(path):
    with pytest.raises(ProgramError, match="four counts"):
        replace(read(path), initial_tokens=(0, 0, 0))


@pytest.mark.parametrize("addr_bits", [16, 32, 62, 64])
def test_addresses_lie_below_the_bus_and_what_simulators_count_in(addr_bits):
    cfg = TINY.model_copy(update={"bus": TINY.bus.model_copy(update={"addr_bits": addr_bits})})
    limit, data = 1 << min(addr_bits, 62), np.zeros(32, np.uint8)
    right = Program(config=cfg, insn=FINISH, insn_addr=limit - 16)
    for device in ("functional", "cycle"):
        assert open_device(device).run(right).fault is None
    place = {"region_addrs": (limit - 32,), "regions": (data,)}
    assert replace(right, insn_addr=0, **place).address_limit == limit
    with pytest.raises(ProgramError, match=f"insn_addr: the stream must end below {limit:#x}"):
        replace(right, insn_addr=limit)
    with pytest.raises(ProgramError, match=f"region_0: must end below {limit:#x}"):
        replace(right, insn_addr=0, region_addrs=(limit - 16,), regions=(data,))
    with pytest.raises(ProgramError, match=r"base_ptrs\[INP\]: must be a multiple of 4 below"):
        replace(right, base_ptrs=(0, 0, limit, 0, 0, 0))


# ---- devices -----------------------------------------------------------------------------------
def test_an_unknown_device_is_refused():
    with pytest.raises(DeviceError, match="no device 'board'; there are functional, cycle, rtl"):
        open_device("board")


def test_a_device_that_cannot_be_imported_is_named(monkeypatch):
    monkeypatch.setitem(DEVICES, "cycle", "covta.runtime.absent:Device")
    with pytest.raises(DeviceError, match="device 'cycle' is not available: No module named"):
        open_device("cycle")
