"""Exchanges between the ranks' GPUs, by NCCL: sends and receives, several as one group.

NCCL's sums are not used, since it does not promise their order; `tinyalex.ranks.sums` adds in a
tree of its own. An exchange is work of the current place's stream: it waits for what was computed
before, and what is computed next waits for it. So for the host it is over once it is asked for, and
the order of exchanges is the program's, on every rank. Of two places each has a communicator, which
connects it with the same place of the other ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tinyalex.backend import Array
from tinyalex.errors import UsageError
from tinyalex.gpu.device import Place, current


class Nccl:
    """Carrier of arrays on GPUs, in the place of MPI; every rank has a GPU of its own.

    tell: hands on to all ranks what the first one has. library: `cupy.cuda.nccl`. places: where the
    rank's arrays are, unless it is one place, in use.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        tell: Callable[[Any], Any],
        library: Any,
        places: Sequence[Place] = (),
    ) -> None:
        if not library.available:
            raise UsageError(
                "Ranks exchange what their GPUs compute by NCCL, which is not installed: pip "
                "install nvidia-nccl-cu13 (or -cu12). Or train with --backend reference."
            )
        self.library, self._communicators = library, dict[Place, Any]()
        for place in places or [current()]:
            number = tell(rank == 0 and library.get_unique_id())
            with place:
                self._communicators[place] = library.NcclCommunicator(size, number, rank)

    def exchange(
        self, sends: Mapping[int, Array], receives: Mapping[int, Array], tag: int
    ) -> Callable[[], bool]:
        """Send arrays to ranks and receive others, contiguous ones; see `ranks.team.Team`."""
        place, kind = current(), self.library.NCCL_UINT8
        communicator, stream = self._communicators[place], place.stream.ptr
        self.library.groupStart()
        for rank, a in receives.items():
            if a.size:
                communicator.recv(a.data.ptr, a.nbytes, kind, rank, stream)
        for rank, a in sends.items():
            if a.size:
                communicator.send(a.data.ptr, a.nbytes, kind, rank, stream)
        self.library.groupEnd()
        return lambda: True

    def settled(self) -> Callable[[], bool]:
        """Question whether all is done that has been asked of the GPUs until now."""
        events = []
        for place in self._communicators:
            with place:
                events.append(place.stream.record())
        return lambda: all(event.done for event in events)
