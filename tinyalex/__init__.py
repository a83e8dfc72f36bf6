"""AlexNet (Krizhevsky, Sutskever, Hinton 2012) as software to run, read and check.

Start at `tinyalex.training.loop`, which runs the whole from top to bottom, or at
`tinyalex.net.presets`, where the networks stand as tables. The layers themselves are in
`tinyalex.reference`.
"""

from pathlib import Path

__version__ = "0.1.0"

# Installed, reference/ lies inside this package. In a checkout it lies beside it.
_here = Path(__file__).parent
if not (_here / "reference").is_dir():
    __path__.append(str(_here.parent))
