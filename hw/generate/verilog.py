"""Amaranth to Verilog that reads the same on every machine.

The text holds no source paths, no tool versions, no dates. Module names are plain identifiers
(`vta_compute_gemm`), so that a file can be named after its module.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import rtlil
from amaranth.lib import wiring

from covta.hw.collector import without_collector
from covta.hw.generate.cells import wrapped_cells
from covta.hw.generate.tools import run_yosys

__all__ = ["VerilogDesign", "to_rtlil", "to_verilog"]


_INTERNAL = " ".join(
    f"-remove {name}"
    for name in ("generator", "top", "src", "amaranth.hierarchy", "amaranth.decoding")
)


@dataclass(frozen=True, kw_only=True)
class VerilogDesign:
    """Verilog text, a module at a time.

    Parameters
    ----------
    top : str
        Name of the outermost module.
    modules : dict of str to str
        Text of each module by name, in order of name, the top module first.
    """

    top: str
    modules: dict[str, str]

    @property
    def text(self) -> str:
        """All modules as one text."""
        return "\n".join(self.modules.values())


def to_rtlil(component: wiring.Component, top: str) -> str:
    """RTLIL of a component; module names are identifiers, equal modules are written once."""
    with without_collector():
        text = rtlil.convert(component, name=top, emit_src=False)
    bodies = {
        _identifier(match[1]): match[2]
        for match in re.finditer(r"^module \\(\S+)\n(.*?)^end\n", text, re.M | re.S)
    }
    assert len(bodies) == len(re.findall(r"^module ", text, re.M)), "module names collide"
    bodies = {
        name: _CELL.sub(lambda m: m[1] + _identifier(m[2]) + " ", body)
        for name, body in bodies.items()
    }
    modules = (f"module \\{name}\n{body}end\n" for name, body in _merge_equal(bodies).items())
    return "".join(modules)


def _identifier(name: str) -> str:
    return name if name.startswith("$") else re.sub(r"\W", "_", name)


_CELL = re.compile(r"^(\s*cell \\)(\S+) ", re.MULTILINE)


def _merge_equal(bodies: dict[str, str]) -> dict[str, str]:
    """Keep one of modules that differ only by name, until no two are left."""
    while True:
        first: dict[str, str] = {}
        for name in sorted(bodies):
            first.setdefault(bodies[name], name)
        if len(first) == len(bodies):
            return bodies
        kept = {name: first[body] for name, body in bodies.items()}
        bodies = {
            name: _rename_cells(body, kept) for name, body in bodies.items() if kept[name] == name
        }


def _rename_cells(body: str, names: dict[str, str]) -> str:
    return _CELL.sub(lambda m: f"{m[1]}{names.get(m[2], m[2])} ", body)


def to_verilog(component: wiring.Component, top: str) -> VerilogDesign:
    """Verilog-2005 of a component.

    Parameters
    ----------
    component : wiring.Component
        Its members become the ports, beside `clk` and `rst`.
    top : str
        Name of the outermost module and prefix of all others.
    """
    with tempfile.TemporaryDirectory(prefix="covta-") as folder:
        work = Path(folder)
        design = to_rtlil(component, top)
        (work / "design.il").write_text(design, encoding="utf-8")
        run_yosys(
            (
                "read_rtlil design.il",
                "proc -nomux -norom",
                "memory_collect",
                f"attrmap {_INTERNAL}",
                f"attrmap -modattr {_INTERNAL}",
                "write_verilog design.v",
            ),
            cwd=work,
        )
        text = (work / "design.v").read_text(encoding="utf-8")
    ports = [
        "clk",
        "rst",
        *("__".join(map(str, p)) for p, _, _ in component.signature.flatten(component)),
    ]
    found = [*_split(text), *wrapped_cells(design).items()]
    modules = dict(sorted(found, key=lambda item: (item[0] != top, item[0])))
    assert top in modules, f"{top} is missing"
    modules[top] = _order_ports(modules[top], ports)
    return VerilogDesign(top=top, modules=modules)


def _split(text: str) -> Iterator[tuple[str, str]]:
    """Name and text of every module; Yosys' own header goes."""
    text = re.sub(r"\A/\*.*?\*/\s*", "", text, flags=re.DOTALL)
    for match in re.finditer(
        r"(?:^\(\*.*\*\)\n)*^module (\w+)\b.*?^endmodule\n", text, re.M | re.S
    ):
        module = _drop_empty_wires(match[0])
        module = _INITIAL_REG.sub(r"\1reg \2\3;\n\1initial \3 = \4;\n", module)
        yield match[1], _TRIGGER.sub("always_once", _shorten_memories(module))


_INITIAL_REG = re.compile(
    r"^( +)reg ((?:signed )?(?:\[\d+:\d+\] )?)(\\\S+ |\w+) *= (\S+);\n", re.MULTILINE
)
"""A declaration with a value, which linters take for a second assignment."""


_EMPTY_WIRE = re.compile(r"^ +(?:wire|reg) \[-1:0\] (\S+) ?;\n", re.MULTILINE)


def _drop_empty_wires(text: str) -> str:
    """Remove wires of no bits, which Yosys declares with two."""
    for name in _EMPTY_WIRE.findall(text):
        assert not re.search(rf"assign {re.escape(name)} ", text), f"{name} is driven"
    return _EMPTY_WIRE.sub("", text)


def _order_ports(text: str, ports: list[str]) -> str:
    """List the ports of a module in the order of its signature, one a line."""
    head = re.search(r"^module (\w+)\((.*?)\);\n", text, re.M | re.S)
    assert head is not None
    present = {name.strip() for name in head[2].split(",")}
    listed = [name for name in ports if name in present]
    assert set(listed) == present, sorted(present ^ set(listed))
    body = ",\n  ".join(listed)
    return f"{text[: head.start()]}module {head[1]}(\n  {body}\n);\n{text[head.end() :]}"


_INIT = re.compile(r"( +)(\\\S+ |\w+)\[(\d+)\] = (\d+)'[hd]0+;\n")
_TRIGGER = re.compile(r"\\\$auto\$verilog_backend\S+ ")


def _shorten_memories(text: str) -> str:
    """Write runs of zero words in a memory's initial block as one loop."""
    lines = text.splitlines(keepends=True)
    out: list[str] = []
    position = 0
    loops = 0
    while position < len(lines):
        match = _INIT.match(lines[position])
        if not match:
            out.append(lines[position])
            position += 1
            continue
        end = position
        first = int(match[3])
        while end < len(lines):
            other = _INIT.match(lines[end])
            if not other or other[2] != match[2] or int(other[3]) != first + end - position:
                break
            end += 1
        if end - position < 4:
            out.extend(lines[position:end])
        else:
            loops += 1
            indent, name, width = match[1], match[2], match[4]
            last = first + end - position
            out.append(
                f"{indent}for (init_index = {first}; init_index < {last}; init_index = init_index"
                f" + 1)\n{indent}  {name}[init_index] = {{{width}{{1'b0}}}};\n"
            )
        position = end
    if not loops:
        return text
    body = "".join(out)
    return re.sub(
        r"^(module .*?;\n)", r"\1  integer init_index;\n", body, count=1, flags=re.M | re.S
    )
