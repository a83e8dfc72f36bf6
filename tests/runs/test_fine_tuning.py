"""Starting from trained weights: what is kept, what is drawn anew, and what is refused."""

import numpy as np
import pytest
from trees import classes_of, written

from tinyalex.cli.parser import main
from tinyalex.net.draws import initial_parameters
from tinyalex.net.presets import get_architecture
from tinyalex.runs import checkpoint
from tinyalex.runs.config import Config
from tinyalex.training.start import prepare


@pytest.fixture
def source(tmp_path):
    """A run on three classes, and the folder of its images."""
    photos, run = tmp_path / "photos", tmp_path / "run"
    written(photos, classes_of(a=6, b=6, c=6))
    argv = ["train", "--data", photos, "--arch", "mini", "-b", "6", "--epochs", "1"]
    assert main([*map(str, argv), "--output-dir", str(run)]) == 0
    return run, photos


def started(run, data, folder, **settings):
    """What a run begins with that takes its weights from another."""
    config = Config(data=str(data), weights=str(run), output_dir=str(folder), **settings)
    begun = prepare(config)
    return begun, begun.state().parameters


def test_the_same_classes_keep_every_layer(source, tmp_path):
    run, photos = source
    state = checkpoint.load(run / "best.npz")
    begun, parameters = started(run, photos, tmp_path / "next", seed=7, batch_size=6)
    assert begun.architecture.name == "mini"  # as the weights are; of photos alexnet is usual
    assert begun.progress.step == 0
    for name, value in state.parameters.items():
        np.testing.assert_array_equal(parameters[name], value)
    np.testing.assert_array_equal(begun.mean, state.mean)
    np.testing.assert_array_equal(begun.colour, state.colour)
    assert not any(v.any() for v in begun.state().velocities.values())


def test_other_classes_have_a_last_layer_of_their_own(source, tmp_path):
    run, photos = source
    (photos / "c").rename(photos / "d")
    state = checkpoint.load(run / "best.npz")
    _, parameters = started(run, photos, tmp_path / "next", seed=7, batch_size=6)
    drawn = initial_parameters(get_architecture("mini").with_classes(3), seed=7)
    for name, value in state.parameters.items():
        expected = drawn[name] if name.startswith("fc8.") else value
        np.testing.assert_array_equal(parameters[name], expected)


def test_another_network_is_refused(source, tmp_path, capsys):
    run, photos = source
    argv = ["train", "--data", photos, "--weights", run, "--arch", "cifar-18pct"]
    assert main([*map(str, argv), "-b", "6", "--output-dir", str(tmp_path / "next")]) == 5
    assert "--arch mini" in capsys.readouterr().err
    assert not (tmp_path / "next").exists()


def test_a_network_of_like_shapes_may_start_from_another(source, tmp_path):
    """As `alexnet` from `paper`."""
    run, photos = source
    _, parameters = started(run, photos, tmp_path / "next", batch_size=6, arch="mini+no-dropout")
    state = checkpoint.load(run / "best.npz")
    np.testing.assert_array_equal(parameters["conv1.weight"], state.parameters["conv1.weight"])


def test_resume_has_weights_of_its_own(source, capsys):
    run, _ = source
    assert main(["train", "--resume", str(run), "--weights", str(run)]) == 2
    assert "--weights starts a new run" in capsys.readouterr().err


@pytest.mark.slow
def test_a_started_run_resumes_without_its_source(source, tmp_path):
    run, photos = source
    argv = ["train", "--data", photos, "--weights", run, "-b", "6", "--epochs", "2"]
    next_run = tmp_path / "next"
    assert main([*map(str, argv), "--max-steps", "2", "--output-dir", str(next_run)]) == 0
    for path in run.iterdir():
        path.unlink()
    run.rmdir()
    assert main(["train", "--resume", str(next_run), "--max-steps", "4"]) == 0
    assert checkpoint.load(next_run / "last.npz").progress.step == 4
