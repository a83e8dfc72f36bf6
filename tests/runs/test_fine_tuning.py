"""Starting from trained weights: what is kept, what is drawn anew, and what is refused."""

import numpy as np
import pytest
from runs import digests, trained
from trees import classes_of, written

from tinyalex.cli.parser import main
from tinyalex.errors import UsageError
from tinyalex.net.draws import initial_parameters
from tinyalex.net.presets import get_architecture
from tinyalex.runs import checkpoint
from tinyalex.runs.config import Config
from tinyalex.system.backends import get_backend
from tinyalex.training import start
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


def frozen(source, folder, **settings):
    """A run of two epochs from trained weights, of which those up to conv4 are kept."""
    run, photos = source
    asked = {"freeze": "conv4", "batch_size": 6, "epochs": 2, "lr": 0.01, **settings}
    return Config(data=str(photos), weights=str(run), output_dir=str(folder), **asked)


STILL = "mini+no-augmentation"  # training sees its images as evaluation does


@pytest.mark.parametrize("arch", ["mini", STILL])
def test_frozen_layers_stay_as_they_are_and_others_move(arch, source, tmp_path):
    end = trained(frozen(source, tmp_path / "next", arch=arch)).state()
    before = checkpoint.load(source[0] / "best.npz")
    for name, value in before.parameters.items():
        kept = name.partition(".")[0] in ("conv1", "conv2", "conv3", "conv4")
        assert np.array_equal(end.parameters[name], value) == kept, name
        assert end.velocities[name].any() != kept, name
    assert main(["eval", str(tmp_path / "next")]) == 0


def test_outputs_of_frozen_layers_are_computed_once_if_images_do_not_change(source, tmp_path):
    kept, each_time = (
        prepare(frozen(source, tmp_path / arch, arch=arch)) for arch in (STILL, "mini")
    )
    assert kept.images.read(0).shape == (6, 6, 48)  # behind relu4: conv5 is trained
    assert each_time.images.read(0).shape == (32, 32, 3)
    assert kept.val.read(0).dtype == each_time.val.read(0).dtype == np.float32


def test_keeping_them_changes_nothing_but_the_time(source, tmp_path, monkeypatch):
    kept = trained(frozen(source, tmp_path / "kept", arch=STILL)).state()
    monkeypatch.setattr(start, "KEEP_BYTES", 0)
    again = trained(frozen(source, tmp_path / "again", arch=STILL)).state()
    for name, value in kept.parameters.items():  # a product of other images rounds otherwise
        np.testing.assert_allclose(again.parameters[name], value, rtol=0, atol=1e-6)
    audited = prepare(frozen(source, tmp_path / "audited", arch=STILL, check_every=1))
    assert audited.images.read(0).shape == (32, 32, 3)  # the reference computes from the images


@pytest.mark.parametrize("arch", ["mini", STILL])
def test_a_run_with_frozen_layers_resumes_to_the_same_bits(arch, source, tmp_path):
    whole = trained(frozen(source, tmp_path / "whole", arch=arch))
    part = frozen(source, tmp_path / "part", arch=arch)
    trained(start.replace(part, max_steps=3))
    end = trained(part, tmp_path / "part" / "last.npz")
    assert digests(end.state()) == digests(whole.state())


@pytest.mark.parametrize(
    ("freeze", "hint"),
    [("conv9", "Did you mean 'conv"), ("fc8", "conv1, "), ("data", "fc7")],
)
def test_a_layer_that_leaves_nothing_to_keep_or_to_train_is_refused(freeze, hint, source, tmp_path):
    with pytest.raises(UsageError, match=hint):
        prepare(frozen(source, tmp_path / "next", freeze=freeze))
    assert not (tmp_path / "next").exists()


def test_frozen_layers_are_of_a_trained_network(source, tmp_path):
    with pytest.raises(UsageError, match="--weights"):
        prepare(Config(data=str(source[1]), arch="mini", freeze="conv1"))


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["mini", STILL])
@pytest.mark.parametrize("gpus", [(0,), (0, 0)])
def test_on_gpus_too_a_run_trains_above_frozen_layers(gpus, arch, source, tmp_path, monkeypatch):
    """The loop sends images ahead, and features as they are."""
    truth = trained(frozen(source, tmp_path / "truth", arch=arch, max_steps=2)).state()
    ops = get_backend("gpu", gpus)
    monkeypatch.setattr(start, "get_backend", lambda *arguments: ops)
    found = trained(frozen(source, tmp_path / "gpu", arch=arch, max_steps=2)).state()
    for name, value in truth.parameters.items():
        np.testing.assert_allclose(found.parameters[name], value, rtol=0, atol=1e-5)
