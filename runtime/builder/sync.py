"""Who must wait for whom: finds the dependences between units, makes or checks their tokens.

Each unit runs its own queue in order; between units nothing but tokens orders accesses. What can
clash:

============ ============================ =============================
unit         does                         must wait for
============ ============================ =============================
load         overwrites inp, wgt          compute's last read of them
compute      reads inp, wgt               load's last write
compute      writes acc (and with it out) store's last read
store        reads out                    compute's last write of acc
============ ============================ =============================

A token from instruction ``p`` says that everything up to ``p`` in its queue is complete, so one
that is waited for anew is always later than the one before: tokens are taken in the order they are
given.
"""

from __future__ import annotations

import numpy as np

from covta.hw.isa import Unit
from covta.hw.params import Config
from covta.runtime.builder.errors import BuildError, require
from covta.runtime.builder.insn import Access, Insn

__all__ = ["Tracker"]

_HAZARDS: dict[Unit, tuple[tuple[str, Unit, str], ...]] = {
    Unit.LOAD: (("writes", Unit.COMPUTE, "reads"),),
    Unit.COMPUTE: (("reads", Unit.LOAD, "writes"), ("writes", Unit.STORE, "reads")),
    Unit.STORE: (("reads", Unit.COMPUTE, "writes"),),
}
"""By unit: its kind of access, the other unit and its kind."""


class Tracker:
    """Follows every access in program order.

    Parameters
    ----------
    cfg : Config
    automatic : bool
        Make tokens; else check that the author's are enough.
    """

    def __init__(self, cfg: Config, *, automatic: bool) -> None:
        self.automatic = automatic
        depths = {"inp": cfg.inp_depth, "wgt": cfg.wgt_depth, "acc": cfg.acc_depth}
        self._last = {
            (unit, kind, pad): np.full(depth, -1, np.int64)
            for unit in Unit
            for kind in ("reads", "writes")
            for pad, depth in depths.items()
        }
        self._synced = {(source, unit): -1 for source in Unit for unit in Unit}
        self._queues: dict[Unit, list[Insn]] = {unit: [] for unit in Unit}

    def add(self, insn: Insn) -> None:
        """Take the next instruction of the program, with the tokens its author made it wait for."""
        assert insn.ordinal == len(self._queues[insn.unit])
        self._popped(insn)
        for mine, source, theirs in _HAZARDS[insn.unit]:
            latest, access = self._latest(getattr(insn, mine), source, theirs)
            if latest <= self._synced[source, insn.unit]:
                continue
            producer = self._queues[source][latest]
            if not self.automatic:
                assert access is not None
                raise BuildError(
                    f"{insn.name}: {mine} {access.pad}[{access.begin}:{access.end}], which"
                    f" {producer.name} {theirs}; a token of {source.name.lower()} must order them"
                )
            insn.take([producer.leave(insn.unit)])
            self._synced[source, insn.unit] = latest
        self._queues[insn.unit].append(insn)
        for kind in ("reads", "writes"):
            for access in getattr(insn, kind):
                last = self._last[insn.unit, kind, access.pad]
                last[access.begin : access.end] = insn.ordinal

    def _popped(self, insn: Insn) -> None:
        for source, token in insn.pops.items():
            ordinal = token.producer.ordinal
            synced = self._synced[source, insn.unit]
            require(
                ordinal > synced,
                f"{insn.name}: tokens are taken in the order they are given, got the one of"
                f" {token.producer.name} after that of {self._name(source, synced)}",
            )
            self._synced[source, insn.unit] = ordinal

    def _name(self, unit: Unit, ordinal: int) -> str:
        return self._queues[unit][ordinal].name if ordinal >= 0 else "none"

    def _latest(
        self, accesses: tuple[Access, ...], source: Unit, kind: str
    ) -> tuple[int, Access | None]:
        latest, clash = -1, None
        for access in accesses:
            last = int(self._last[source, kind, access.pad][access.begin : access.end].max())
            if last > latest:
                latest, clash = last, access
        return latest, clash

    def finish(self) -> None:
        """Check that every token is taken, in order.

        Raises
        ------
        BuildError
            Naming the instruction whose token nobody takes.
        """
        for queue in self._queues.values():
            for insn in queue:
                for unit, token in insn.tokens.items():
                    require(
                        token.consumer is not None,
                        f"{insn.name}: its token for {unit.name.lower()} must be taken, got no"
                        " instruction that pops it",
                    )
