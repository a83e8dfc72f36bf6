"""Signs of a launcher of many processes, read without MPI."""

import os
import signal
from typing import NamedTuple


class Launch(NamedTuple):
    """A launch, as the environment tells of it: who, how many processes, which is this one."""

    launcher: str
    size: int
    rank: int


LAUNCHERS = {
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    "MPICH": ("PMI_SIZE", "PMI_RANK"),
    "Slurm": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
}
"""Variables with the number of processes and this one's, by who sets them. Intel MPI is MPICH's."""


def launched() -> Launch:
    """The launch of this process; a size of 1 if nobody launched it with others."""
    for launcher, (size, rank) in LAUNCHERS.items():
        if os.environ.get(size, "").isdigit():
            return Launch(launcher, int(os.environ[size]), int(os.environ.get(rank, 0)))
    return Launch("", 1, 0)


def die_of_interrupts() -> None:
    """Let Ctrl-C kill one of several processes until they have joined, for others to end with it.

    Its launcher does not tell them if a process ends by itself before.
    """
    if launched().size > 1:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
