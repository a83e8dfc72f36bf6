"""Several processes come to what one comes to, bit for bit, and say once what is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mpi import ENVIRONMENT, ended, job, needs_mpi
from on_ranks import BATCH, STEPS, VALIDATION
from runs import pictures, records, saved

from tinyalex.cli.parser import main
from tinyalex.net.layers import Linear
from tinyalex.net.presets import get_architecture
from tinyalex.net.shapes import layers
from tinyalex.runs.sharing import traffic

SCRIPT = Path(__file__).parents[1] / "support" / "on_ranks.py"
RUN = ["train", "--arch", "mini", "--backend", "reference", "-b", "8"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("images") / "pictures", train=20, val=11)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What `on_ranks.py` prints of 1, 2 and 4 ranks."""
    folder, results = tmp_path_factory.mktemp("ranks"), {}
    for ranks in (1, 2, 4):
        code, out, err = ended(job(ranks, SCRIPT, folder, 4, "mini", "cifar-18pct", patch=None))
        assert code == 0, err
        results[ranks] = json.loads(out)
    return results


@needs_mpi
@pytest.mark.slow
def test_any_number_of_ranks_has_the_bits_of_one(found, tell):
    """Parameters, velocities, history and log, in both modes and with two towers in each rank."""
    for name, one in found[1].items():
        assert len(one["run"]["log"]) > STEPS
        assert found[2][name]["run"] == found[4][name]["run"] == one["run"]
        tell(f"{name}: parameters {one['run']['parameters'][:12]} on 1, 2 and 4 ranks")


@needs_mpi
@pytest.mark.slow
def test_what_is_sent_is_the_formula_to_the_byte(found, tell):
    """Gradients and activations of all ranks, over steps with 32, 32 and 1 image."""
    for ranks in (2, 4):
        for name, result in found[ranks].items():
            arch, mode, *_ = name.split()
            architecture = get_architecture(arch)
            sends = [traffic(architecture, n)[mode] for n in (BATCH, BATCH, 1)]
            trained = (ranks - 1) * sum(sends) * STEPS / len(sends)
            assert sum(result["sent"]) == trained + evaluated(architecture, mode, ranks)
            tell(f"{name} on {ranks}: {sum(result['sent']):,.0f} bytes, as computed")


def evaluated(architecture, mode, ranks):
    """Bytes that all ranks send forward for the validation images after each of 2 epochs."""
    if mode == "data":
        return 0
    linear = [c for c in layers(architecture.rows) if isinstance(c.row, Linear)]
    inputs = sum(c.weight[1] for c in linear)
    return 2 * (ranks - 1) * 4 * VALIDATION * inputs


@needs_mpi
@pytest.mark.slow
def test_a_rank_has_its_share_of_the_linear_layers(found):
    for ranks, results in found.items():
        for name, result in results.items():
            linear = [
                c.parameters
                for c in layers(get_architecture(name.split()[0]).rows)
                if isinstance(c.row, Linear)
            ]
            whole = 4 * sum(linear) if "hybrid" in name else 0
            assert sum(result["neurons"]) == whole
            assert max(result["neurons"]) <= 1.3 * whole / ranks  # 10 classes in 4 are 2, 3, 2, 3


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    """A run of three steps."""
    folder = tmp_path_factory.mktemp("run") / "run"
    argv = [*RUN, "--data", str(images), "--max-steps", "3", "--output-dir", str(folder)]
    assert main(argv) == 0
    return folder


@needs_mpi
@pytest.mark.slow
def test_evaluation_on_ranks_counts_the_same(run):
    counts = set()
    for ranks, size in ((1, 128), (2, 128), (3, 7), (4, 10)):
        code, out, err = ended(job(ranks, "eval", run, "-b", size, "--json"))
        assert code == 0, err
        scores = json.loads(out)
        counts.add((scores["images"], scores["top1_error"], scores["top5_error"]))
    assert len(counts) == 1


@needs_mpi
@pytest.mark.slow
def test_features_and_experiments_on_ranks(run, images, tmp_path):
    for ranks in (1, 3):
        features = ["features", run, "--data", images, "--layer", "fc7", "-o", f"{ranks}.npz"]
        code, out, err = ended(job(ranks, *features, cwd=tmp_path))
        assert (code, out) == (0, f"{ranks}.npz: fc7 of 93 images\n"), err
    one, three = (np.load(tmp_path / f"{ranks}.npz") for ranks in (1, 3))
    np.testing.assert_allclose(one["fc7"], three["fc7"], rtol=0, atol=1e-4)
    assert all((one[name] == three[name]).all() for name in ("names", "labels", "classes"))
    experiment = ["reproduce", "neighbors", "--run", run, "--output-dir", "experiments"]
    code, out, err = ended(job(2, *experiment, cwd=tmp_path))
    assert code == 0, err
    assert out.count("\nHere: ") == 1
    assert (tmp_path / "experiments" / "neighbors" / "result.json").exists()


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize(("arch", "mode"), [("mini", "data"), ("mini+no-augmentation", "hybrid")])
def test_three_ranks_train_what_lies_above_frozen_layers(arch, mode, run, images, tmp_path):
    """To the bits of one, features kept or not; and say how long it will take."""
    one, three = tmp_path / "one", tmp_path / "three"
    argv = ["train", "--data", images, "--weights", run, "--arch", arch, "--freeze", "conv4"]
    argv += ["-b", "8", "--epochs", "3", "--parallel", mode, "--pieces", "3", "--output-dir"]
    assert main([str(a) for a in (*argv, one)]) == 0
    code, out, err = ended(job(3, *argv, three))
    assert code == 0, err
    assert out.count(" to go") == 1
    assert saved(three / "last.npz") == saved(one / "last.npz")
    assert records(three) == records(one)


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        ([*RUN, "-b", "99999"], 2, "--batch-size 99999"),
        ([*RUN, "--data", "/nowhere"], 4, "/nowhere"),
        ([*RUN, "--eposch", "1"], 2, "'--epochs'"),
        (["doctor"], 2, "for one process"),
        ([*RUN, "--pieces", "1"], 2, "--pieces 1"),
    ],
)
def test_an_error_of_all_ranks_is_told_once(argv, code, words, tmp_path):
    found, _, err = ended(job(2, *argv, cwd=tmp_path))
    assert found == code
    assert err.count("tinyalex: ") == 1
    assert words in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_ranks_that_cannot_talk_are_refused(name, tmp_path):
    """Without mpi4py, or with a launcher that its library does not know: nothing is written."""
    without = "import sys\nsys.modules['mpi4py'] = None\n"
    code = f"{without}from tinyalex.cli.parser import main\nsys.exit(main(sys.argv[1:]))"
    environment = os.environ | {name: "2"}
    process = subprocess.run(
        [sys.executable, "-c", code, *RUN],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert process.returncode == 2
    assert "has started 2 processes" in process.stderr
    assert "tinyalex[mpi]" in process.stderr
    assert not list(tmp_path.iterdir())


@needs_mpi
@pytest.mark.parametrize("launcher", ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_another_launchers_library_is_refused(launcher, tmp_path):
    """One of the two is not the launcher of the library here, and neither has started this."""
    environment = {n: v for n, v in ENVIRONMENT.items() if not n.startswith("PMI")}
    process = subprocess.run(
        [sys.executable, "-m", "tinyalex", *RUN],
        capture_output=True,
        text=True,
        env=environment | {launcher: "2"},
        cwd=tmp_path,
    )
    assert process.returncode != 0
    assert not list(tmp_path.iterdir())


FAILING = """
from tinyalex.errors import DataError
from tinyalex.ranks.launch import launched
from tinyalex.training import loop
step, count = loop.train_step, iter(range(99))
def failing(*arguments):
    if next(count) == 5 and launched().rank == {rank}:
        raise {error}
    return step(*arguments)
loop.train_step = failing
"""


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "error", "mode", "code", "words"),
    [
        (1, "DataError('Bad image.')", "data", 4, "(rank 1 on"),
        (1, "ZeroDivisionError", "hybrid", 1, "ZeroDivisionError"),
        (0, "MemoryError", "data", 1, "not enough memory"),
    ],
)
def test_an_error_of_one_rank_ends_all(rank, error, mode, code, words, images, tmp_path):
    """Told once, by the first; the steps before are saved where all parameters are on one rank."""
    argv = [*RUN, "--data", images, "--output-dir", tmp_path / "run", "--parallel", mode]
    found, _, err = ended(job(2, *argv, patch=FAILING.format(rank=rank, error=error)), 60)
    assert found == code
    assert err.count("tinyalex: ") == 1
    assert words in err
    if mode == "data":
        assert "saved up to step 5" in err
        assert main(["train", "--resume", str(tmp_path / "run"), "--max-steps", "6"]) == 0


ON_ANOTHER_HOST = """
from tinyalex.ranks.launch import launched
if launched().rank:
    sys.argv[sys.argv.index("--data") + 1] = {data!r}
"""


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize("train", [20, 1])
def test_other_images_on_one_host_are_refused(train, images, tmp_path):
    """A few more or fewer, and so few that this rank by itself would refuse the batch."""
    other = pictures(tmp_path / "pictures", train=train, val=3)
    argv = [*RUN, "--data", images, "--output-dir", tmp_path / "run"]
    code, _, err = ended(job(2, *argv, patch=ON_ANOTHER_HOST.format(data=str(other))), 60)
    assert code == 4
    assert err.count("tinyalex: ") == 1
    assert "(rank 1 on" in err
    assert "is not the data that the first rank has" in err
    assert not (tmp_path / "run").exists()


BEFORE_IT_JOINS = """
from tinyalex.cli import parser
from tinyalex.errors import UsageError
from tinyalex.ranks import team
from tinyalex.ranks.launch import launched
team.ALL_JOIN = 3
def readable(word):
    if launched().rank == 1:
        {what}
parser._check_readable = readable
"""


@needs_mpi
@pytest.mark.slow
def test_an_error_of_one_rank_before_it_has_joined(tmp_path):
    patch = BEFORE_IT_JOINS.format(what="raise UsageError('Only here.')")
    code, _, err = ended(job(2, *RUN, patch=patch, cwd=tmp_path), 60)
    assert code == 2
    assert err.count("tinyalex: ") == 1
    assert "Only here." in err
    assert "(rank 1 on" in err


@needs_mpi
@pytest.mark.slow
def test_a_rank_that_never_joins_is_not_waited_for(tmp_path):
    patch = BEFORE_IT_JOINS.format(what="raise SystemExit(3)")
    code, _, _ = ended(job(2, *RUN, patch=patch, cwd=tmp_path), 60)
    assert code != 0
    assert not list(tmp_path.iterdir())
