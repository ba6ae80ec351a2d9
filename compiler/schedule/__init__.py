"""How a computation is done: loops, their order, where intermediate results lie.

A schedule starts as the plain loops of every tensor; primitives change how, never what. One that
would change the meaning, or that means nothing, raises `ScheduleError` with the reason. A schedule
prints as the loop nest it stands for.
"""

from covta.compiler.schedule.relations import Fuse, Partition, Split
from covta.compiler.schedule.schedule import Schedule, create_schedule
from covta.compiler.schedule.stage import ScheduleError, Stage

__all__ = [
    "Fuse",
    "Partition",
    "Schedule",
    "ScheduleError",
    "Split",
    "Stage",
    "create_schedule",
]
