"""Machines that code is made for: triple, processor, features, and what they offer the code
generator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from llvmlite import binding

__all__ = ["TARGETS", "Target", "TargetError", "resolve"]


class TargetError(ValueError):
    """A target that is not known, or that lacks what is asked of it."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A machine.

    Parameters
    ----------
    name : str
    triple : str
        LLVM's name of architecture, system and calling convention.
    cpu : str
    features : str
        LLVM's, ``+a,-b``.
    vector_bits : int
        Width of a vector register; loops marked ``vectorize`` are cut into such pieces.
    dot : str
        Instruction that adds four products of bytes to each int32: ``vnni512``, ``vnni256``,
        ``sdot`` (signed bytes only) or ``none``.
    """

    name: str
    triple: str
    cpu: str = ""
    features: str = ""
    vector_bits: int = 128
    dot: str = "none"

    def machine(self, opt: int = 3, *, jit: bool = False) -> binding.TargetMachine:
        """LLVM's object for it.

        Parameters
        ----------
        opt : int
            0 to 3.
        jit : bool
            For code that runs in this process.
        """
        _initialise()
        return binding.Target.from_triple(self.triple).create_target_machine(
            cpu=self.cpu,
            features=self.features,
            opt=opt,
            reloc="default" if jit else "pic",
            codemodel="jitdefault" if jit else "default",
        )


@cache
def _initialise() -> None:
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()


@cache
def native() -> Target:
    """The processor this runs on, with all that it can do."""
    _initialise()
    found = binding.get_host_cpu_features()
    features = found.flatten()
    if found.get("avx512f") and found.get("avx512bw") and found.get("avx512vl"):
        # LLVM keeps to half registers on some processors that have whole ones.
        features += ",-prefer-256-bit"
        bits, dot = 512, "vnni512" if found.get("avx512vnni") else "none"
    elif found.get("avx2"):
        bits, dot = 256, "vnni256" if found.get("avxvnni") else "none"
    else:
        bits, dot = 128, "sdot" if found.get("dotprod") else "none"
    return Target(
        name="native",
        triple=binding.get_process_triple(),
        cpu=binding.get_host_cpu_name(),
        features=features,
        vector_bits=bits,
        dot=dot,
    )


TARGETS: dict[str, Target] = {
    "x86-64": Target(name="x86-64", triple="x86_64-unknown-linux-gnu", cpu="x86-64"),
    "x86-64-v3": Target(
        name="x86-64-v3", triple="x86_64-unknown-linux-gnu", cpu="x86-64-v3", vector_bits=256
    ),
    "aarch64": Target(name="aarch64", triple="aarch64-unknown-linux-gnu", cpu="cortex-a53"),
    "aarch64-dot": Target(
        name="aarch64-dot",
        triple="aarch64-unknown-linux-gnu",
        cpu="cortex-a76",
        features="+dotprod",
        dot="sdot",
    ),
    "armv7": Target(
        name="armv7",
        triple="armv7-unknown-linux-gnueabihf",
        cpu="cortex-a9",
        features="+neon,+vfp3",
    ),
}
"""Targets by name, beside ``native``: hosts of the boards among them (Zynq-7020 and Cyclone V are
``armv7``, Zynq UltraScale+ is ``aarch64``)."""


def resolve(target: str | Target) -> Target:
    """A target by name; ``native`` is the processor this runs on."""
    if isinstance(target, Target):
        return target
    if target == "native":
        return native()
    if target not in TARGETS:
        raise TargetError(
            f"target must be among native, {', '.join(TARGETS)}, or a Target, got {target!r}"
        )
    return TARGETS[target]
