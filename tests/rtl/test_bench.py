"""The bench's DRAM model and protocol checks, tried on a memory copier whose cycles are known."""

from pathlib import Path

import numpy as np
import pytest

from covta.hw.params import load_config
from covta.sim.bench.build import compile_library
from covta.sim.bench.memory import extents_of
from covta.sim.bench.model import BenchError, LimitError, RtlModel
from covta.sim.dram import DramModel

pytestmark = pytest.mark.rtl

CFG = load_config("tiny")
STUB = Path(__file__).with_name("bench_stub.v")
BEATS = 16


@pytest.fixture(scope="module", params=[False, True], ids=["one_edge", "two_edges"])
def library(request):
    """Models for waveforms see both edges of the clock, others only rising ones."""
    return compile_library(CFG, STUB, trace=request.param)


@pytest.fixture
def copier(library):
    with RtlModel(CFG, library=library) as model:
        yield model


def regions(rng, *, read=0x1000, size=4 * BEATS):
    return extents_of(
        [(read, rng.integers(0, 256, size, np.uint8)), (0x2000, np.zeros(size, np.uint8))],
        CFG.bus_bytes,
    )


def launch(model, extents, dram=None, *, breach=0, **options):
    model.set_dram(dram or DramModel(latency_cycles=32))
    model.set_memory(extents)
    model.arm()
    model.write(0, breach)
    assert model.run(**options)
    return model.running_cycles, model.read(0) >> 30


def copy_cycles(latency, beats):
    """AR at 0, first beat at `latency`, W a cycle behind R, B `latency` after the last W."""
    return latency + beats + latency + 1


@pytest.mark.parametrize("latency", [2, 32])
def test_copies_in_the_cycles_that_the_model_promises(copier, latency):
    extents = regions(np.random.default_rng(1))
    cycles, error = launch(copier, extents, DramModel(latency_cycles=latency))
    assert (cycles, error) == (copy_cycles(latency, BEATS), 0)
    assert np.array_equal(extents[0].data, extents[1].data)


def test_half_the_rate_takes_two_cycles_a_beat(copier):
    extents = regions(np.random.default_rng(2))
    cycles, _ = launch(copier, extents, DramModel(latency_cycles=8, beats_per_cycle=0.5))
    assert cycles == copy_cycles(8, 2 * BEATS - 1)
    assert np.array_equal(extents[0].data, extents[1].data)


def test_stalls_follow_the_seed_and_lose_nothing(copier):
    seen = set()
    for seed in (1, 2, 1):
        extents = regions(np.random.default_rng(3))
        cycles, _ = launch(copier, extents, DramModel(latency_cycles=4, stall_seed=seed))
        assert np.array_equal(extents[0].data, extents[1].data)
        assert cycles > copy_cycles(4, BEATS)
        seen.add((seed, cycles))
    assert len(seen) == 2


def test_a_beat_outside_every_region_answers_decerr(copier):
    _, error = launch(copier, regions(np.random.default_rng(4), size=4 * BEATS - 4))
    assert error == 3


def test_a_limit_ends_the_run(copier):
    with pytest.raises(LimitError, match="still running after 10 cycles"):
        launch(copier, regions(np.random.default_rng(5)), max_cycles=10)


@pytest.mark.parametrize(
    ("breach", "read_addr", "beats", "message"),
    [
        (1, 0x1000, 16, "AR: payload changed before ready"),
        (2, 0x1000, 16, "AW: valid fell before ready"),
        (3, 0x1000, 16, "W: WLAST is 1 with 2 beats left at address 0x2038"),
        (4, 0x1000, 16, "W: payload changed before ready"),
        (0, 0x1FFC, 16, "AR: a burst of 16 beats at address 0x1ffc crosses 4 KiB"),
        (0, 0x1002, 16, "AR: address 0x1002 is not aligned to the bus"),
        (0, 0x1000, 65, "AR: a burst of 65 beats at address 0x1000, 64 allowed"),
    ],
)
def test_a_breach_of_the_protocol_is_reported(copier, breach, read_addr, beats, message):
    copier.write(4, read_addr)
    copier.write(8, beats)
    stalls = DramModel(latency_cycles=4, stall_seed=11, stall_probability=0.9)
    with pytest.raises(BenchError, match=message):
        launch(copier, regions(np.random.default_rng(6), size=1024), stalls, breach=breach)


def test_regions_merge_into_whole_beats():
    one, two = np.array([1, 2, 3], np.uint8), np.array([9], np.uint8)
    merged = extents_of([(0x107, two), (0x101, one), (0x200, one)], 4)
    assert [(e.base, e.data.tolist()) for e in merged] == [
        (0x100, [0, 1, 2, 3, 0, 0, 0, 9]),
        (0x200, [1, 2, 3, 0]),
    ]
