"""Short runs on the ranks of a job, and what they come to, printed by the first as JSON.

    mpiexec -n 2 python on_ranks.py FOLDER PIECES NETWORK...

Each network is trained in both modes, on so few of the built-in images that the last batch of an
epoch has one: most pieces, and of several ranks some, have none then.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from unittest import mock

from runs import digests, records, trained

from tinyalex.data import builtin
from tinyalex.ranks.ranks import Neurons, Ranks
from tinyalex.ranks.team import join
from tinyalex.runs.config import Config

IMAGES, VALIDATION, BATCH, STEPS = 65, 40, 32, 6


def main(folder: Path, pieces: int, networks: list[str]) -> None:
    team, found = join(), {}
    for name in networks:
        for mode in ("data", "hybrid"):
            config = Config(
                arch=name,
                pieces=pieces,
                parallel=mode,
                batch_size=BATCH,
                max_steps=STEPS,
                print_freq=1,
                backend="reference",
                output_dir=str(folder / f"{name}-{mode}-{team.size}"),
            )
            run = trained(config)
            own = digests(run.state())  # whole, which takes all ranks
            log = records(run.folder.path) if team.first else []
            assert isinstance(run.ops, Ranks)
            sent = [run.ops.sent[what] for what in ("gradients", "activations")]
            parameters = run.network.parameters
            cut = [p for p in parameters.values() if isinstance(p, Neurons)]
            own_bytes = sum(part.nbytes for p in cut for part in p.parts)
            found[f"{name} {mode}"] = {
                "run": own | {"log": log},
                "sent": team.gather(sent),
                "neurons": team.gather([own_bytes]),
            }
    if team.first:
        print(json.dumps(found))


if __name__ == "__main__":
    folder, pieces, *networks = sys.argv[1:]
    fewer = partial(builtin.builtin_dataset, training_images=IMAGES)
    with (
        mock.patch.object(builtin, "builtin_dataset", fewer),
        mock.patch.object(builtin, "VALIDATION_IMAGES", VALIDATION),
    ):
        main(Path(folder), int(pieces), networks)
