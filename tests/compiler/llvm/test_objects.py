"""Object files of boards' processors, linked by a C compiler and run in an emulator."""

import shutil
import subprocess

import numpy as np
import pytest

from covta.compiler import te
from covta.compiler.llvm import CodegenError, build_object
from covta.compiler.lower import lower
from covta.compiler.schedule import create_schedule

TOOLS = {
    "aarch64": ("aarch64-linux-gnu-gcc", "qemu-aarch64", "gcc-aarch64-linux-gnu"),
    "aarch64-dot": ("aarch64-linux-gnu-gcc", "qemu-aarch64", "gcc-aarch64-linux-gnu"),
    "armv7": ("arm-linux-gnueabihf-gcc", "qemu-arm", "gcc-arm-linux-gnueabihf"),
}
MACHINES = {"aarch64": 183, "aarch64-dot": 183, "armv7": 40}

MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include "code.h"
{pool}
static void fill(const char *path, void *to, size_t n) {{
    FILE *f = fopen(path, "rb");
    if (!f || fread(to, 1, n, f) != n) exit(3);
    fclose(f);
}}
int main(void) {{
{body}
    return 0;
}}
"""
POOL = """
static int64_t calls;
static void backwards(covta_pool *p, void (*body)(void *, int64_t, int64_t), void *c, int64_t n) {
    for (int64_t k = n - 1; k >= 0; --k, ++calls) body(c, k, k + 1);
}
static covta_pool pool = {backwards};
"""


def dense(dtype):
    """A matrix product with bytes in fours or floats, a heap buffer and a register tile."""
    m, n, k = 7, 24, 20
    if dtype == "float32":
        x, w = te.placeholder((m, k), dtype, name="x"), te.placeholder((k, n), dtype, name="w")
        r = te.reduce_axis((0, k), name="r")
        y = te.compute((m, n), lambda i, j: te.sum(x[i, r] * w[r, j], axis=r), name="y")
        s = create_schedule(y)
        s[y].reorder(s[y].axis[0], s[y].reduce_axis[0], s[y].axis[1])
        s[y].vectorize(s[y].axis[1])
        s[y].parallel(s[y].axis[0])
        return lower(s, [x, w, y], name="dense_float32"), y, (x, w)
    x = te.placeholder((m, k), dtype, name="x")
    w = te.placeholder((k // 4, n, 4), dtype, name="w")
    copy = te.compute((m, k), lambda i, j: x[i, j] + te.const(0, "int8"), name="copy")
    ko, q = te.reduce_axis((0, k // 4), name="ko"), te.reduce_axis((0, 4), name="q")
    y = te.compute(
        (m, n),
        lambda i, j: te.sum(
            copy[i, ko * 4 + q].astype("int32") * w[ko, j, q].astype("int32"), axis=[ko, q]
        ),
        name="y",
    )
    s = create_schedule(y)
    jo, ji = s[y].split(s[y].axis[1], 8)
    s[y].reorder(s[y].axis[0], jo, ko, ji, q)
    s[y].vectorize(ji)
    return lower(s, [x, w, y], name="dense_int8"), y, (x, w)


@pytest.mark.cross
@pytest.mark.parametrize("dtype", ["int8", "float32"])
@pytest.mark.parametrize("target", TOOLS)
def test_linked_with_c_and_run_in_an_emulator(target, dtype, tmp_path):
    compiler, emulator, package = TOOLS[target]
    for tool in (compiler, emulator):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing: apt-get install {package} qemu-user")
    function, y, inputs = dense(dtype)
    made = build_object(function, target)
    made.write(tmp_path, "code")
    rng = np.random.default_rng(1)
    arrays = {t: rng.integers(-128, 128, t.shape).astype(t.dtype) for t in inputs}
    lines = []
    for name, a in zip("xw", arrays.values(), strict=True):
        (tmp_path / name).write_bytes(a.tobytes())
        kind = "float" if dtype == "float32" else "int8_t"
        lines += [f"    static {kind} {name}[{a.size}];"]
        lines += [f'    fill("{name}", {name}, sizeof {name});']
    out = "float" if dtype == "float32" else "int32_t"
    with_pool = "covta_pool" in made.header
    lines += [f"    static {out} y[{np.prod(y.shape)}];"]
    lines += [f"    if ({function.name}({'&pool, ' * with_pool}x, w, y)) return 2;"]
    lines += [f"    if (calls != {y.shape[0]}) return 4;"] * with_pool
    lines += ["    fwrite(y, 1, sizeof y, stdout);"]
    source = MAIN.format(pool=POOL if with_pool else "", body="\n".join(lines))
    (tmp_path / "main.c").write_text(source)
    command = [compiler, "-Wall", "-Werror", "-static", "main.c", "code.o", "-lm", "-o", "program"]
    subprocess.run(command, cwd=tmp_path, check=True)
    run = [emulator, *(["-cpu", "max"] if target == "aarch64-dot" else []), "./program"]
    got = subprocess.run(run, cwd=tmp_path, check=True, capture_output=True).stdout
    want = te.evaluate(y, arrays)
    np.testing.assert_array_equal(np.frombuffer(got, want.dtype).reshape(want.shape), want)


@pytest.mark.parametrize("target", MACHINES)
def test_an_elf_file_of_the_machine(target):
    code = build_object(dense("int8")[0], target).code
    assert code[:4] == b"\x7fELF"
    assert int.from_bytes(code[18:20], "little") == MACHINES[target]


def test_several_functions_share_one_file():
    header = build_object([dense("int8")[0], dense("float32")[0]], "aarch64").header
    assert "int32_t dense_int8(const int8_t *x, const int8_t *w, int32_t *y);" in header
    assert (
        "int32_t dense_float32(covta_pool *pool, const float *x, const float *w, float *y);"
        in header
    )
    assert "y: int32[7, 24], result" in header


def test_a_function_of_no_given_name_is_written_into_a_new_folder(tmp_path):
    x = te.placeholder((4,), "int8", name="x")
    y = te.compute((4,), lambda i: x[i] + x[i], name="y")
    made = build_object(lower(create_schedule(y)), "aarch64")
    code, header = made.write(tmp_path / "a" / "b", "code")
    assert code.read_bytes() == made.code
    assert "int32_t kernel(const int8_t *x, int8_t *y);" in header.read_text()


def test_names_that_c_has_no_use_for_are_refused():
    x = te.placeholder((4,), "int8", name="x")
    y = te.compute((4,), lambda i: x[i] + x[i], name="y")
    with pytest.raises(CodegenError, match=r"C identifier other than main, got 'main'"):
        build_object(lower(create_schedule(y), name="main"), "aarch64")
    f = lower(create_schedule(y), name="f")
    with pytest.raises(CodegenError, match=r"must differ in name, 'f' occurs twice"):
        build_object([f, f], "aarch64")
    with pytest.raises(CodegenError, match=r"at least one function"):
        build_object([], "aarch64")
