"""The type of arrays on the host: NumPy's, of any dtype. A backend's own: `backend.Array`."""

from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
