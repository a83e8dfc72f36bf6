"""A run ended from outside loses nothing: kill -9, signals, a full disk, a thread that fails."""

import errno
import json
import os
import pty
import random
import re
import resource
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from unittest import mock

import pytest
from runs import pictures, records, saved, trained

import tinyalex
from tinyalex import __main__
from tinyalex.cli.parser import main
from tinyalex.errors import UsageError, WriteError
from tinyalex.runs import checkpoint
from tinyalex.runs.config import Config
from tinyalex.runs.folder import RunFolder
from tinyalex.training import loop, recorder
from tinyalex.training.start import prepare

KILLS = int(os.environ.get("TINYALEX_KILLS", "100"))  # set it to look harder
FLAGS = ["--arch", "mini", "-b", "8", "-p", "1", "--backend", "reference"]
SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("interrupts") / "pictures", train=7, val=2)


def begin(images, folder, *more):
    return ["train", "--data", str(images), *FLAGS, "--output-dir", str(folder), *more]


def started(argv, patch="", **settings):
    """The command in a process of its own, after the lines of `patch`."""
    code = (
        f"import sys\nfrom tinyalex.cli.parser import main\n{patch}\nsys.exit(main(sys.argv[1:]))"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | settings
    return subprocess.Popen([sys.executable, "-c", code, *map(str, argv)], **pipes)


def wait_for(found, process):
    """Until `found()` is true; the process must live that long."""
    while not found():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def attacked(tmp_path, count, *names):
    """What `killing.py` counts. OpenBLAS would start threads, which a fork does not take along."""
    seed = random.randrange(2**32)  # other moments each time
    argv = [sys.executable, SUPPORT / "killing.py", tmp_path, str(count), "60", str(seed), *names]
    alone = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.run(argv, capture_output=True, text=True, env=alone)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_run_killed_at_any_moment_goes_on_to_the_same_end(tmp_path, tell):
    found = attacked(tmp_path, KILLS, "SIGKILL")
    tell(
        "killed {signals} times in {runs} runs, {went_back} times back at the best, {moved} times "
        "resumed elsewhere, {seconds} s, "
        "{landed}".format(**found)
    )
    assert found["signals"] >= min(KILLS, 10)
    assert found["landed"]["save"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_run_stopped_by_a_signal_saves_and_goes_on_to_the_same_end(tmp_path, tell):
    found = attacked(tmp_path, KILLS // 2, "SIGINT", "SIGTERM")
    tell(
        "{signals} signals in {runs} runs, {seconds} s, the slowest took {slowest} s, "
        "{landed}".format(**found)
    )
    assert found["signals"] >= min(KILLS // 2, 10)
    assert found["slowest"] < 10  # of steps and saves of 20 ms, on a machine as busy as may be


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_says_how_to_go_on_after_a_signal(number, code, images, tmp_path, capsys):
    folder = tmp_path / "stopped"
    process = started(begin(images, folder, "--epochs", "5000"))
    wait_for((folder / "best.npz").exists, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"tinyalex train --resume {folder}" in err
    done = checkpoint.load(folder / "last.npz").progress.step
    assert done == records(folder)[-1]["step"]
    assert main(["train", "--resume", str(folder), "--max-steps", str(done + 1)]) == 0
    assert f"from step {done}" in capsys.readouterr().out


LONG = """
import time
from tinyalex.runs import checkpoint
from tinyalex.training import recorder
def long(*arguments, **settings):
    print('long', flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["recorder.Recorder.step", "checkpoint.save"])
def test_a_second_signal_ends_the_run_at_once(what, images, tmp_path):
    """In a long step, and in the save that the first signal asks for. What was saved stays."""
    folder = tmp_path / "run"
    assert main(begin(images, folder, "--max-steps", "1")) == 0
    before = saved(folder / "last.npz")
    argv = ["train", "--resume", folder, "--max-steps", "99"]
    process = started(argv, f"{LONG}{what} = long\nrecorder.SAVE_SECONDS = -1")
    while process.stdout.readline() != "long\n":
        pass
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert time.monotonic() - began < 5
    assert saved(folder / "last.npz") == before
    assert main(["train", "--resume", str(folder), "--max-steps", "3"]) == 0


def test_a_stop_leaves_no_thread_behind(images, tmp_path, monkeypatch):
    """Nor do failures: the threads that decode end with the run."""
    before = set(threading.enumerate())
    config = Config(
        data=str(images), arch="mini", workers=5, batch_size=8, output_dir=str(tmp_path / "run")
    )
    between_steps = mock.Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(recorder.Recorder, "between_steps", between_steps)
    with pytest.raises(KeyboardInterrupt):
        trained(config)
    new = {thread.name for thread in set(threading.enumerate()) - before if not thread.daemon}
    assert not {name for name in new if not name.startswith("reference")}


@pytest.mark.slow
def test_a_loader_thread_that_fails_ends_the_run_with_its_cause(images, tmp_path):
    patch = (
        "import threading\n"
        "from tinyalex.data import batches\nfrom tinyalex.data import decode as module\n"
        "seen, decode = [], module.decode\n"
        "def fails(*arguments):\n"
        "    seen.append(1)\n"
        "    ours = threading.current_thread() is threading.main_thread()\n"
        "    if len(seen) > 40 and not ours: raise RuntimeError('upside down')\n"
        "    return decode(*arguments)\n"
        "module.decode, batches.KEEP_BYTES = fails, 0\n"
    )
    began = time.monotonic()
    process = started(begin(images, tmp_path / "run", "--epochs", "99", "-j", "3"), patch)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert time.monotonic() - began < 30
    assert err.splitlines()[-1] == "RuntimeError: upside down"
    assert "in fails" in err  # where it comes from


@pytest.mark.slow
def test_two_runs_cannot_write_one_folder(images, tmp_path, capsys):
    folder = tmp_path / "run"
    process = started(begin(images, folder, "--epochs", "5000"))
    wait_for((folder / "best.npz").exists, process)
    for argv in (["train", "--resume", str(folder)], begin(images, folder)):
        capsys.readouterr()
        assert main(argv) == 2
        assert f"process {process.pid}. Let it finish or end it" in capsys.readouterr().err
    assert main(["eval", str(folder)]) == 0
    process.kill()
    process.communicate()
    assert (folder / "lock").read_text() == str(process.pid)
    step = checkpoint.load(folder / "last.npz").progress.step
    assert main(["train", "--resume", str(folder), "--max-steps", str(step + 1)]) == 0
    assert not (folder / "lock").exists()


def test_a_lock_removed_while_it_is_taken_locks_nobody_else_out(tmp_path, monkeypatch):
    """A run that ends removes the file, which another may just have opened."""
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.lock()
    flock = __import__("fcntl").flock

    def as_the_first_ends(file, how):
        first.close()
        flock(file, how)

    monkeypatch.setattr("fcntl.flock", as_the_first_ends)
    second.lock()
    monkeypatch.undo()
    assert (tmp_path / "lock").read_text() == str(os.getpid())
    with pytest.raises(UsageError, match="being written by another run"):
        RunFolder(tmp_path).lock()
    second.close()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_drawing_left_is_removed(tmp_path):
    for name in (".curves.png.123", "curves.png", "notes.png.txt"):
        (tmp_path / name).touch()
    RunFolder.resume(tmp_path, None, "").close()
    left = {"config.toml", "curves.png", "notes.png.txt"}
    assert {path.name for path in tmp_path.iterdir()} == left


def test_a_file_that_is_no_lock_is_left_as_it_is(tmp_path):
    """Nor is one that another process holds, so that both are told of in the same way."""
    (tmp_path / "lock").write_text("the key is under the mat")
    with pytest.raises(UsageError, match=r"lock is in the way"):
        RunFolder(tmp_path).lock()
    assert (tmp_path / "lock").read_text() == "the key is under the mat"


def test_the_lock_of_a_run_that_was_killed_is_taken_over(tmp_path):
    (tmp_path / "lock").write_text("99999999")
    folder = RunFolder(tmp_path)
    folder.lock()
    assert (tmp_path / "lock").read_text() == str(os.getpid())
    folder.close()


def test_where_no_open_file_can_be_removed_it_is_closed_before(tmp_path, monkeypatch):
    """As on Windows, which has no locks of this kind either. One that stays is no error."""
    folder, opened, unlink = RunFolder(tmp_path), [], Path.unlink
    real = os.open

    def remembered(*arguments):
        opened.append(real(*arguments))
        return opened[-1]

    def refuses(path, missing_ok=False):
        try:
            os.fstat(opened[-1])
        except OSError:
            return unlink(path, missing_ok)
        raise PermissionError(errno.EACCES, "in use")

    monkeypatch.setattr(os, "open", remembered)
    monkeypatch.setattr(Path, "unlink", refuses)
    monkeypatch.setattr(sys, "platform", "win32")
    folder.lock()
    folder.close()
    assert not list(tmp_path.iterdir())
    folder.lock()
    opened.append(real(tmp_path / "lock", os.O_RDONLY))  # by a virus scanner, say
    folder.close()
    os.close(opened[-1])
    assert (tmp_path / "lock").exists()


def test_a_file_system_without_locks_does_without(tmp_path, monkeypatch):
    def unsupported(file, how):
        raise OSError(errno.ENOSYS, "no locks")

    monkeypatch.setattr("fcntl.flock", unsupported)
    folder = RunFolder(tmp_path)
    folder.lock()
    folder.close()


def test_a_run_that_ends_early_lets_others_write(images, tmp_path, monkeypatch):
    config = Config(data=str(images), arch="mini", batch_size=8, output_dir=str(tmp_path / "run"))
    monkeypatch.setattr(loop, "train_epoch", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        trained(config)
    assert caught.traceback  # which keeps the run
    RunFolder(tmp_path / "run").lock()


def within(limit):
    """Runs in the child: no file may grow beyond so many bytes, as on a disk that is full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written(images, tmp_path):
    """The one before stays, nothing is said to be saved, and the run goes on when there is room."""
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert main(begin(images, whole, "--epochs", "2")) == 0
    assert main(begin(images, folder, "--epochs", "2", "--max-steps", "2")) == 0
    before = (folder / "last.npz").read_bytes()
    resume = ["train", "--resume", folder, "--max-steps", "99"]
    full = started(resume, preexec_fn=within(len(before) // 2))
    out, err = full.communicate(timeout=60)
    assert full.returncode == 6
    assert re.fullmatch(r"tinyalex: Cannot write .*best\.npz: File too large\. .*\n", err)
    assert "Weights" not in out
    assert (folder / "last.npz").read_bytes() == before
    assert not list(folder.glob("*.partial"))
    assert main([str(word) for word in resume]) == 0
    assert saved(folder / "last.npz") == saved(whole / "last.npz")
    assert records(folder) == records(whole)


@pytest.mark.slow
def test_a_log_that_cannot_be_written(images, tmp_path):
    """A line of which only a part found room is no line."""
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert main(begin(images, whole, "--epochs", "3")) == 0
    assert main(begin(images, folder, "--epochs", "3", "--max-steps", "1")) == 0
    resume = ["train", "--resume", folder, "--max-steps", "99"]
    log = folder / "metrics.jsonl"
    room = (folder / "config.toml").stat().st_size + 20
    assert len(log.read_bytes()) < room
    full = started(resume, preexec_fn=within(room))
    _, err = full.communicate(timeout=60)
    assert full.returncode == 6
    assert f"Cannot write {log}: File too large" in err
    assert log.stat().st_size == room
    assert main([str(word) for word in resume]) == 0
    assert saved(folder / "last.npz") == saved(whole / "last.npz")
    assert records(folder) == records(whole)


@pytest.mark.slow
def test_a_picture_that_cannot_be_written(images, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(begin(images, folder, "--epochs", "1", "--max-steps", "1")) == 0
    (folder / "filters.png").unlink()
    (folder / "filters.png").mkdir()
    assert main(["train", "--resume", str(folder), "--max-steps", "9"]) == 6
    assert f"Cannot write the picture {folder / 'filters.png'}" in capsys.readouterr().err
    (folder / "filters.png").rmdir()
    assert main(["train", "--resume", str(folder)]) == 0
    assert checkpoint.load(folder / "last.npz").progress.step == 3


def test_a_folder_that_cannot_be_written_is_said_at_once(images, tmp_path, monkeypatch):
    def read_only(*arguments):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", read_only)
    config = Config(data=str(images), arch="mini", batch_size=8, output_dir=str(tmp_path / "run"))
    with pytest.raises(WriteError, match=r"Cannot write .*lock: Read-only file system"):
        prepare(config)


def numbers_left_out(text):
    """What is printed, without what a clock decides."""
    return re.sub(r"\d+ images/s|\d+ %|run\w", "", text)


@pytest.mark.slow
def test_what_goes_to_a_file_is_plain_lines(images, tmp_path):
    printed = []
    for name, colour in (("run1", {}), ("run2", {"NO_COLOR": "1"})):
        argv = begin(images, tmp_path / name, "--epochs", "2")
        process = started(argv, env=os.environ | colour)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert not set("\r\b\x1b") & set(out)
        assert sum(line.startswith("epoch 1 step ") for line in out.splitlines()) == 3
        printed.append(numbers_left_out(out))
    assert printed[0] == printed[1]


@pytest.mark.slow
@pytest.mark.parametrize("colour", [{}, {"NO_COLOR": "1"}])
def test_on_a_terminal_there_is_a_bar(colour, images, tmp_path):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    argv = begin(images, tmp_path / "run", "--epochs", "2")
    process = started(argv, env=os.environ | colour, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 9999)
        except OSError:  # how Linux tells that the other end is closed
            break
    os.close(ours)
    assert process.wait() == 0
    assert b"\repoch 1: " in shown
    assert b"Weights, log and pictures" in shown
    assert not re.search(rb"\x1b\[[\d;]*m", shown)  # a bar moves the cursor, and colours nothing


def test_ctrl_c_while_the_program_is_being_loaded(monkeypatch):
    class Finder:
        def find_spec(self, name, *arguments):
            if name == "tinyalex.cli.parser":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "tinyalex.cli.parser")
    monkeypatch.delattr(tinyalex.cli, "parser")
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert __main__.main() == 130
