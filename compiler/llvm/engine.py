"""LLVM's optimiser and its just-in-time compiler."""

from __future__ import annotations

from llvmlite import binding

from covta.compiler.llvm.target import Target

__all__ = ["Engine", "optimise"]


def optimise(
    module: binding.ModuleRef, machine: binding.TargetMachine, opt: int
) -> binding.ModuleRef:
    """Run LLVM's pipeline of a level, 0 to 3, in place."""
    module.data_layout = str(machine.target_data)
    module.verify()
    if opt:
        tuning = binding.create_pipeline_tuning_options(speed_level=opt)
        tuning.loop_vectorization = tuning.slp_vectorization = opt > 1
        builder = binding.create_pass_builder(machine, tuning)
        builder.getModulePassManager().run(module, builder)
    return module


class Engine:
    """Machine code of a module, in this process.

    Parameters
    ----------
    module : binding.ModuleRef
        Taken over.
    target : Target
        This process's.
    opt : int
    """

    def __init__(self, module: binding.ModuleRef, target: Target, opt: int) -> None:
        machine = target.machine(opt, jit=True)
        module.triple = target.triple
        self.module = optimise(module, machine, opt)
        self.machine = target.machine(opt, jit=True)
        self._engine = binding.create_mcjit_compiler(self.module, machine)
        self._engine.finalize_object()

    def address(self, name: str) -> int:
        """Of a function."""
        return self._engine.get_function_address(name)

    @property
    def assembly(self) -> str:
        """As text."""
        return self.machine.emit_assembly(self.module)
