"""Short runs on the ranks of a job, and what they come to, printed by the first as JSON.

    mpiexec -n 2 python on_ranks.py FOLDER PIECES NETWORK...

Each network is trained in both modes, and if it has two towers with them at two places of each
rank, on so few of the built-in images that the last batch of an epoch has one: most pieces, and of
several ranks some, have none then.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from runs import digests, records, trained

from tinyalex import reference
from tinyalex.data import builtin
from tinyalex.gpu.device import Place
from tinyalex.gpu.two_gpu import TwoGPU
from tinyalex.net.presets import get_architecture
from tinyalex.ranks.ranks import Neurons, Ranks
from tinyalex.ranks.team import join
from tinyalex.runs.config import Config
from tinyalex.system.backends import BACKENDS

IMAGES, VALIDATION, BATCH, STEPS = 65, 40, 32, 6


def main(folder: Path, pieces: int, networks: list[str]) -> None:
    team, found = join(), {}
    for name in networks:
        modes = [("data", "0"), ("hybrid", "0"), ("data", "0,1")]
        for mode, gpus in modes if get_architecture(name).has_towers else modes[:2]:
            key = f"{name} {mode}{' towers' * ('1' in gpus)}"
            config = Config(
                arch=name,
                pieces=pieces,
                parallel=mode,
                batch_size=BATCH,
                max_steps=STEPS,
                print_freq=1,
                backend="reference",
                gpus=gpus,
                output_dir=str(folder / f"{key} {team.size}"),
            )
            run = trained(config)
            own = digests(run.state())  # whole, which takes all ranks
            log = records(run.folder.path) if team.first else []
            assert isinstance(run.ops, Ranks)
            sent = [run.ops.sent[what] for what in ("gradients", "activations")]
            parameters = run.network.parameters
            cut = [p for p in parameters.values() if isinstance(p, Neurons)]
            own_bytes = sum(part.nbytes for p in cut for part in p.parts)
            found[key] = {
                "run": own | {"log": log},
                "sent": team.gather(sent),
                "neurons": team.gather([own_bytes]),
            }
    if team.first:
        print(json.dumps(found))


def computing(gpus: Sequence[int], *others: Any) -> Any:
    """The reference, on one device or, with a tower at each, on two."""
    return reference if len(gpus) == 1 else TwoGPU(reference, [Place(0), Place(0)])


if __name__ == "__main__":
    folder, pieces, *networks = sys.argv[1:]
    fewer = partial(builtin.builtin_dataset, training_images=IMAGES)
    with (
        mock.patch.object(builtin, "builtin_dataset", fewer),
        mock.patch.object(builtin, "VALIDATION_IMAGES", VALIDATION),
        mock.patch.dict(BACKENDS, {"reference": computing}),
    ):
        main(Path(folder), int(pieces), networks)
