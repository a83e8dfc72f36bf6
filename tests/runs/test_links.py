"""Nothing is written through a link, which a stranger may have packed into a folder of ours."""

import errno
import json
import os

import pytest
from runs import pictures, refused

from tinyalex.cli.parser import main
from tinyalex.data.decode import RULE
from tinyalex.data.formats.packed import UNFINISHED, sealed
from tinyalex.runs import checkpoint
from tinyalex.system.files import open_own, remedy

TINY = ["--arch", "mini", "-b", "6", "--backend", "reference"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("links") / "pictures", train=4, val=1)


@pytest.fixture
def mine(tmp_path):
    """A file of the user's, elsewhere."""
    path = tmp_path / "mine.txt"
    path.write_text("a letter")
    return path


def left_alone(mine):
    assert mine.read_text() == "a letter"


LINKS = {"soft": os.symlink, "hard": os.link}


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize(
    "name",
    [
        "config.toml",
        "config.toml.partial",
        "metrics.jsonl",
        "metrics.jsonl.partial",
        "last.npz.partial",
        "best.npz.partial",
        "curves.png",
    ],
)
@pytest.mark.slow
def test_a_resumed_run_replaces_links_and_writes_through_none(link, name, images, mine, tmp_path):
    folder = tmp_path / "run"
    argv = ["train", "--data", str(images), *TINY, "--max-steps", "2", "--output-dir", str(folder)]
    assert main(argv) == 0
    (folder / name).unlink(missing_ok=True)
    LINKS[link](mine, folder / name)
    assert main(["train", "--resume", str(folder), "--max-steps", "4"]) == 0
    left_alone(mine)
    assert checkpoint.load(folder / "last.npz").progress.step == 4
    assert not (folder / name).is_symlink()


def test_a_log_that_becomes_a_link_ends_the_run(images, mine, tmp_path, capsys, monkeypatch):
    from tinyalex.training import recorder

    folder = tmp_path / "run"
    between_steps = recorder.Recorder.between_steps

    def swapped(self):
        (folder / "metrics.jsonl").unlink()
        (folder / "metrics.jsonl").symlink_to(mine)
        between_steps(self)

    monkeypatch.setattr(recorder.Recorder, "between_steps", swapped)
    argv = ["train", "--data", images, *TINY, "--epochs", "1", "--output-dir", folder]
    refused(capsys, 6, "metrics.jsonl", "link", argv=argv)
    left_alone(mine)


@pytest.mark.parametrize("link", LINKS)
def test_a_lock_that_is_a_link_is_not_taken(link, images, tmp_path, capsys):
    folder, number = tmp_path / "run", tmp_path / "number"
    argv = ["train", "--data", images, *TINY, "--output-dir", folder]
    folder.mkdir()
    number.write_text("12")
    LINKS[link](number, folder / "lock")
    refused(capsys, 6, "lock", "link", argv=argv)
    assert number.read_text() == "12"
    (folder / "lock").unlink()
    (folder / "lock").symlink_to(tmp_path / "new")  # a link to nothing would create it
    refused(capsys, 6, "lock", "link", argv=argv)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize(
    "name", ["unfinished.json.partial", "train.rgb", "train.jsonl", "mean.npy"]
)
def test_a_pack_writes_through_no_link(link, name, images, mine, tmp_path):
    """The beginning of a pack in which a file is a link: refused, or the link replaced."""
    folder, argv = tmp_path / "pack", ["data", "pack", str(images), "--size", "32", "-o"]
    folder.mkdir()
    if not name.startswith("unfinished"):
        assert main([*argv, str(tmp_path / "other"), "--on-bad-image", "error"]) == 0
        begun = json.dumps(sealed({"size": 32, "decoding": RULE}))
        (folder / UNFINISHED).write_text(begun)
    LINKS[link](mine, folder / name)
    assert main([*argv, str(folder)]) == (6 if name.startswith("train") else 0)
    left_alone(mine)


def test_neither_pipes_nor_devices_are_taken_for_ours(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/null"):
        with pytest.raises(OSError, match=os.strerror(errno.ELOOP)) as caught:
            open_own(path, os.O_RDWR)
        assert "a link" in remedy(caught.value)


def test_files_that_only_end_like_ours_stay(images, tmp_path):
    folder = tmp_path / "run"
    argv = ["train", "--data", str(images), *TINY, "--max-steps", "1", "--output-dir", str(folder)]
    assert main(argv) == 0
    (folder / "thesis.npz.partial").write_text("kept")
    (folder / "last.npz.partial").write_text("of a save that was killed")
    assert main(["train", "--resume", str(folder), "--max-steps", "2"]) == 0
    assert (folder / "thesis.npz.partial").read_text() == "kept"
    assert not (folder / "last.npz.partial").exists()


@pytest.mark.parametrize(
    ("number", "word"),
    [(errno.ENOSPC, "space"), (errno.ENOENT, "removed"), (errno.EROFS, "may not write")],
)
def test_the_remedy_is_for_the_fault(number, word):
    assert word in remedy(OSError(number, os.strerror(number)))


def test_a_folder_removed_in_mid_run_is_called_so(images, tmp_path, capsys, monkeypatch):
    from tinyalex.training import recorder

    folder, between_steps = tmp_path / "run", recorder.Recorder.between_steps

    def removed(self):
        folder.rename(tmp_path / "away")
        between_steps(self)

    monkeypatch.setattr(recorder.Recorder, "between_steps", removed)
    argv = ["train", "--data", images, *TINY, "--max-steps", "1", "--output-dir", folder]
    refused(capsys, 6, folder, "removed", argv=argv)


def test_a_pack_that_another_process_begins_at_the_same_moment(
    images, tmp_path, capsys, monkeypatch
):
    """Both see an empty folder; the other one's file is in place first."""
    replace = os.replace

    def overtaken(source, target):
        replace(source, target)
        raise FileNotFoundError(errno.ENOENT, "gone", source)

    monkeypatch.setattr(os, "replace", overtaken)
    argv = ["data", "pack", images, "--size", "32", "-o", tmp_path / "pack"]
    refused(capsys, 2, "Another process", argv=argv)
