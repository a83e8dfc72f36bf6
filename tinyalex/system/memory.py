"""Treatment of memory that this process no longer uses."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # <malloc.h> of glibc
_LARGEST = (1 << 31) - 1


def keep_freed() -> None:
    """Let the process keep what it frees, since the next training step needs as much again.

    glibc would hand it back, and the system clear every page of it anew: a quarter of the time of a
    small network, a tenth to a fifth of a larger one's. Other allocators are left as they are.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_TRIM_THRESHOLD, _LARGEST)  # free memory below this is not handed back
        mallopt(_MMAP_MAX, 0)  # large arrays too come from what is kept
