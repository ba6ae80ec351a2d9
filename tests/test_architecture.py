"""Dependencies point one way, and the cheap modules stay cheap."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import covta

PACKAGE = Path(covta.__file__).parent

LAYERS = ("hw", "sim", "runtime", "compiler")
"""Each may import itself and those before it; the command line may import all."""

WITHOUT_AMARANTH = (
    "covta.hw.params",
    "covta.hw.isa",
    "covta.hw.faults",
    "covta.hw.microarchitecture",
    "covta.hw.counters",
    "covta.hw.registers",
    "covta.hw.ports",
)

RTL = ("covta.hw.rtl", "covta.hw.generate")


def sources():
    """Every module of the package by name."""
    found = {}
    for layer in (*LAYERS, "cli"):
        for path in sorted((PACKAGE / layer).rglob("*.py")):
            parts = path.relative_to(PACKAGE).with_suffix("").parts
            name = ".".join(("covta", *(p for p in parts if p != "__init__")))
            found[name] = path
    return found


SOURCES = sources()


def imports(path):
    """Names that a file imports anywhere, functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name, packages):
    return any(name == package or name.startswith(package + ".") for package in packages)


@pytest.mark.parametrize("layer", LAYERS)
def test_layer_imports_only_what_is_below(layer):
    above = tuple(f"covta.{other}" for other in LAYERS[LAYERS.index(layer) + 1 :])
    for name, path in SOURCES.items():
        if within(name, (f"covta.{layer}",)):
            bad = [used for used in imports(path) if within(used, (*above, "covta.cli"))]
            assert not bad, f"{name} imports {bad}"


@pytest.mark.parametrize("layer", LAYERS[1:])
def test_only_the_bench_imports_rtl(layer):
    for name, path in SOURCES.items():
        if within(name, (f"covta.{layer}",)) and not within(name, ("covta.sim.bench",)):
            bad = [used for used in imports(path) if within(used, RTL)]
            assert not bad, f"{name} imports {bad}"


def test_parameters_and_isa_do_not_load_amaranth():
    code = (
        f"import sys, {', '.join(WITHOUT_AMARANTH)}\n"
        "sys.exit('amaranth was loaded' if 'amaranth' in sys.modules else 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", SOURCES)
def test_module_can_be_imported(name):
    importlib.import_module(name)


@pytest.mark.parametrize("name", SOURCES)
def test_module_says_what_it_is(name):
    path = SOURCES[name]
    text = path.read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{name} has no docstring"


def test_folders_are_links_to_the_top():
    top = PACKAGE.parents[1]
    for layer in (*LAYERS, "configs"):
        link = PACKAGE / layer
        if link.is_symlink():
            assert link.resolve() == (top / layer).resolve()
            assert not link.readlink().is_absolute()
