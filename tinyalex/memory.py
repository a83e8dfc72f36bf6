"""How this process treats memory that it no longer uses."""

from __future__ import annotations

import ctypes
import sys

# <malloc.h> of glibc.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def keep_freed() -> None:
    """Lets the process keep what it frees, since the next training step needs as much again.

    glibc would hand it back, and the system clear every page of it anew: a quarter of the time of a
    small network, a tenth to a fifth of a larger one's. Other allocators are left as they are.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_TRIM_THRESHOLD, 1 << 30)  # free memory below this is not handed back
        mallopt(_MMAP_THRESHOLD, 1 << 25)  # the largest allowed: arrays below become such memory
