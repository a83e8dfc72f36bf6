"""Hypothesis profiles, and the simulator where there is no GPU.

`dev` is quick, `ci` looks harder; `--hypothesis-profile` chooses one.
"""

import os
from pathlib import Path

from hypothesis import settings

# Numba reads this when it is imported, so asking Numba whether there is a GPU would be too late.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")

settings.register_profile("dev", max_examples=20, deadline=None)
# Other examples every time, which Hypothesis by itself would not draw in CI; the blob repeats them.
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=False, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")
