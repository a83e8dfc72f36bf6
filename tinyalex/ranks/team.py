"""The processes of an MPI job, its ranks: who they are, how they talk, how they end together."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NoReturn, TypeVar

import numpy as np

from tinyalex.backend import Array
from tinyalex.errors import TinyalexError, UsageError, printable
from tinyalex.ranks.launch import launched

FAILED = 1  # the tag of an error's text; exchanges have those above
TAGS = 30_000  # MPI promises 32,767
ALL_JOIN = 120  # seconds
PATIENCE = 600  # seconds; a first rank that saves or draws, or a step, may take minutes
ALL_END = 2.0  # seconds that the first rank, when it ends with an error, gives others to do so too
AFTER_LAST_WORDS = 0.5  # seconds in which the launcher may take in what was printed
LONGEST_NAP = 1e-3

T = TypeVar("T")


class FailedElsewhere(TinyalexError):
    """Another rank's error, or its silence. Raised in waiting, nowhere else."""

    def __init__(self, text: str, code: int) -> None:
        first, *others = text.splitlines()  # of a traceback
        super().__init__(first)
        self.program, self.exit_code = "\n".join(others), code


@cache
def join() -> Team:
    """The ranks of this job; a team of one where no launcher has started several processes.

    Raises UsageError if they cannot talk: without mpi4py, or with another MPI's library, each would
    be alone, and train for itself.
    """
    launcher, size, _ = launched()
    if size == 1:
        return Team()
    by = f"{launcher} has started {size} processes"
    try:
        import mpi4py

        mpi4py.rc(initialize=False, finalize=True)
        with warnings.catch_warnings(action="ignore"):  # of what is refused below
            from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # no mpi4py, or none of the libraries it looks for
        raise UsageError(
            f"{by}, which need mpi4py to talk to each other ({str(error).splitlines()[0]}). "
            "pip install 'tinyalex[mpi]', or start one process, without the launcher."
        ) from None
    library = MPI.Get_library_version()
    name = printable(library.split(",")[0].split("\n")[0])
    remedy = "Start them with the mpiexec of the MPI that mpi4py uses"
    if launcher != "Slurm" and (launcher == "Open MPI") != library.startswith("Open MPI"):
        raise UsageError(f"{by}, but mpi4py uses {name}. {remedy}.")
    if not MPI.Is_initialized():
        _initialize(MPI)
    if MPI.COMM_WORLD.size != size:
        raise UsageError(
            f"{by}, but {name}, which mpi4py uses, knows of {MPI.COMM_WORLD.size}. {remedy}, or "
            "under Slurm with srun --mpi=pmix or --mpi=pmi2."
        )
    team = Team(MPI.COMM_WORLD, MPI.Query_thread() == MPI.THREAD_MULTIPLE)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # see `die_of_interrupts`
    return team


def _initialize(mpi: Any) -> None:
    """Wait for all ranks to be there, at most for ALL_JOIN.

    A rank that ends by itself before is waited for for ever: launchers end the others only if it
    was killed. So the alarm kills; a handler in Python would not run before MPI has returned.
    """
    if sys.platform != "win32":
        signal.alarm(ALL_JOIN)
    mpi.Init_thread(mpi.THREAD_MULTIPLE)
    if sys.platform != "win32":
        signal.alarm(0)


class Team:
    """The ranks of a job, or one process alone, without MPI.

    Who waits sleeps, so that a neighbour on the same processor can work; a signal's handler runs
    meanwhile, as it would not in a blocking call. local: this rank's number on its host; hosts:
    how many there are. threaded: whether several threads may talk.
    """

    def __init__(self, comm: Any = None, threaded: bool = False) -> None:
        self.comm = comm
        self.rank: int = comm.rank if comm else 0
        self.size: int = comm.size if comm else 1
        self.local, self.hosts, self._tag, self._alone = 0, 1, FAILED, False
        self.threaded = threaded
        if comm:
            self._at_end = comm.Dup()
            hosts = self.tell_all((socket.gethostname(), cores()))
            names = [name for name, _ in hosts]
            here = [rank for rank in range(self.size) if names[rank] == names[self.rank]]
            self.local, self.hosts = here.index(self.rank), len(set(names))
            share_cores(self.local, [hosts[rank][1] for rank in here])
            sys.excepthook = lambda *error: self._crashed(*error)

    @property
    def first(self) -> bool:
        """True for the rank that speaks and writes."""
        return not self.rank

    def others(self) -> list[int]:
        """All ranks but this one."""
        return [rank for rank in range(self.size) if rank != self.rank]

    # How they talk.

    def tag(self) -> int:
        """Tag for the next exchange. All ranks ask for it in the same order."""
        self._tag = FAILED + 1 + (self._tag - FAILED) % TAGS
        return self._tag

    def exchange(
        self, sends: Mapping[int, Array], receives: Mapping[int, Array], tag: int
    ) -> Callable[[], bool]:
        """Begin to send arrays to ranks and to receive others into `receives`.

        Arrays are contiguous; empty ones do not travel. Returns what says whether all is done.
        """
        requests = [self.comm.Irecv(a, rank, tag) for rank, a in receives.items() if a.size]
        requests += [self.comm.Isend(a, rank, tag) for rank, a in sends.items() if a.size]
        return lambda: all(request.Test() for request in requests)

    def settled(self) -> Callable[[], bool]:
        """Question whether the host may read what was computed: it may, where NumPy did it."""
        return lambda: True

    def wait(self, done: Callable[[], bool]) -> None:
        """Wait, asleep. Raises FailedElsewhere on the first rank if another has failed.

        So it does on any rank that has waited for PATIENCE.
        """
        began = time.monotonic()
        for _ in naps(done):
            if self.first and self.comm.Iprobe(tag=FAILED):
                self._alone = True
                raise FailedElsewhere(*self.comm.recv(tag=FAILED))
            if time.monotonic() - began > PATIENCE:
                self._alone = True
                raise FailedElsewhere(
                    f"Rank {self.rank} on {socket.gethostname()} has heard nothing of the others "
                    f"for {PATIENCE} s: a host, or the network between, has failed. Start again "
                    "with --resume.",
                    TinyalexError.exit_code,
                )

    def gather(self, values: Sequence[float]) -> list[float]:
        """The values of all ranks, as many of each, rank by rank."""
        if self.size == 1:
            return list(values)
        own = np.array(values, np.float64)
        all_values = np.empty((self.size, len(own)))
        self.wait(self.comm.Iallgather(own, all_values).Test)
        return [float(value) for value in all_values.reshape(-1)]

    def agree(self, *values: float) -> list[float]:
        """The largest of each value over the ranks."""
        found = self.gather(values)
        return [max(found[i :: len(values)]) for i in range(len(values))]

    def tell(self, value: Any) -> Any:
        """The value of the first rank; the others may give anything."""
        if self.size == 1:
            return value
        text = np.frombuffer(pickle.dumps(value), np.uint8) if self.first else np.empty(0, np.uint8)
        (length,) = self.agree(len(text))
        text = text if self.first else np.empty(int(length), np.uint8)
        self.wait(self.comm.Ibcast(text).Test)
        return pickle.loads(text.tobytes())

    def tell_all(self, value: T) -> list[T]:
        """The value of each rank."""
        told: list[T] = self.comm.allgather(value)
        return told

    # How they end.

    def finish(self) -> None:
        """Wait for all ranks, at the end of a command. Raises FailedElsewhere if one has failed."""
        if self.comm:
            self.wait(self._at_end.Ibarrier().Test)
            self.wait(lambda: not self.comm.Iprobe(tag=FAILED))

    def fail(self, text: str, code: int, say: Callable[[str], None]) -> int:
        """End all ranks with `code`, the cause said once, by the first. say: prints it.

        Another rank hands its error to the first, which is told while it waits, and then waits
        until it is ended. Where all have failed, as at a signal, the job ends by itself.
        """
        if not self.comm:
            say(text)
            return code
        if self.first or self._alone:
            say(text)
            sys.stderr.flush()
        else:
            text = f"(rank {self.rank} on {socket.gethostname()}) {text}"
            self.comm.isend((text, code), 0, FAILED)
        if self._alone:  # in mid-step
            self._abort(code)
        everyone, began = self._at_end.Ibarrier(), time.monotonic()
        while not everyone.Test():
            if self.first and time.monotonic() - began > ALL_END:
                self._abort(code)
            time.sleep(LONGEST_NAP)
        while self.first and self.comm.Iprobe(tag=FAILED):  # the same error, mostly
            self.comm.recv(tag=FAILED)
        return code

    def _crashed(self, *error: Any) -> None:
        text = "".join(traceback.format_exception(*error))
        self.fail(text, 1, lambda text: print(text, file=sys.stderr))
        self._abort(1)

    def _abort(self, code: int) -> NoReturn:
        time.sleep(AFTER_LAST_WORDS)
        self.comm.Abort(code)
        time.sleep(60)  # MPICH comes back from it for a moment
        os._exit(code)


def naps(done: Callable[[], bool]) -> Iterator[None]:
    """Sleep between one question and the next until it is done, longer and longer."""
    nap = 0.0
    while not done():
        yield
        time.sleep(nap)
        nap = min(nap + 2e-5, LONGEST_NAP)


def cores() -> list[int]:
    """Numbers of the cores that this process may use; none where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def share_cores(local: int, masks: Sequence[list[int]]) -> None:
    """Take this rank's part of its host's cores, unless the launcher has shared them out.

    masks: cores of each rank on the host, of which this is number `local`.
    """
    mine, here = masks[local], len(masks)
    if len(mine) >= here and all(mask == mine for mask in masks):
        os.sched_setaffinity(0, mine[len(mine) * local // here : len(mine) * (local + 1) // here])
