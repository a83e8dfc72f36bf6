"""Whatever happens to output, terminal or memory: a run ends saved, and with one paragraph."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image
from runs import pictures, refused

from tinyalex.cli.parser import main
from tinyalex.errors import printable
from tinyalex.reference import threads
from tinyalex.runs import checkpoint
from tinyalex.system.threads import Threads
from tinyalex.training import recorder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full, signals and limits")
FLAGS = ["--arch", "mini", "-b", "8", "-p", "1", "--backend", "reference"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("streams") / "pictures", train=7, val=2)


def shell(line, *arguments, patch="", **settings):
    """The command under a shell, which closes or redirects its streams. $0: the command."""
    code = f"import sys\n{patch}\nfrom tinyalex.__main__ import main\nsys.exit(main())"
    command = Path(settings.pop("folder")) / "tinyalex"
    command.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}' \"$@\"\n")
    command.chmod(0o755)
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}", str(command), *map(str, arguments)],
        capture_output=True, text=True, timeout=60, **settings,
    )  # fmt: skip


def train(images, folder):
    return "train", "--data", images, *FLAGS, "--epochs", 3, "--output-dir", folder


@pytest.mark.parametrize(
    ("redirected", "code", "told"),
    [
        ("> /dev/full", 6, "Cannot write the output: No space left on device."),
        ("| head -1", 141, ""),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        ("2> /dev/full", 0, ""),
    ],
)
def test_an_output_that_takes_no_more(redirected, code, told, images, tmp_path):
    folder = tmp_path / "run"
    ended = shell(f'"$0" "$@" {redirected}', *train(images, folder), folder=tmp_path)
    assert ended.returncode == code, ended.stderr
    assert told in ended.stderr
    assert ended.stderr.count("\n") == bool(told)
    step = checkpoint.load(folder / "last.npz").progress.step
    assert step == 9 if code == 0 else step < 9
    assert main(["train", "--resume", str(folder), "--max-steps", str(step + 1)]) == 0


def test_any_command_with_a_full_output(tmp_path):
    for command in ("summary", "doctor", "--help"):
        ended = shell(f'"$0" {command} > /dev/full', folder=tmp_path)
        assert (ended.returncode, ended.stderr.count("\n")) == (6, 1), ended.stderr


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_hang_up_and_a_job_s_end_save(number, images, tmp_path):
    folder = tmp_path / "run"
    argv = [*map(str, train(images, folder)), "--epochs", "5000"]
    process = subprocess.Popen([sys.executable, "-m", "tinyalex", *argv], stdout=-1, stderr=-1)
    while not (folder / "best.npz").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    process.send_signal(number)  # twice, as from the system and from the shell
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert b"All is saved up to step" in err
    assert checkpoint.load(folder / "last.npz").progress.step


def test_a_run_that_ignores_hang_ups_goes_on(images, tmp_path):
    """As under nohup."""
    argv = [*map(str, train(images, tmp_path / "run")), "--epochs", "5000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tinyalex", *argv],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    while not (tmp_path / "run" / "best.npz").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 128 + signal.SIGUSR1


@pytest.mark.parametrize(
    ("function", "further", "saved"),
    [("relu", "All is saved up to step 2", 2), ("sgd_update", "What was saved before", 1)],
)
def test_a_memory_limit_ends_a_run_saved(
    function, further, saved, images, tmp_path, monkeypatch, capsys
):
    """In the forward pass nothing has moved; in the update what was saved before stays."""
    folder, between_steps = tmp_path / "run", recorder.Recorder.between_steps

    def short(*arguments):
        raise MemoryError

    def soon(self):
        between_steps(self)
        if self.run.progress.step == 2:
            monkeypatch.setattr(self.run.ops, function, short)
            for stage in self.run.network.stages:
                if stage.rows[0].kind == function:
                    object.__setattr__(stage, "forward", short)

    argv = ["train", "--data", images, *FLAGS, "--output-dir", folder]
    assert main([*map(str, argv), "--max-steps", "1"]) == 0
    capsys.readouterr()
    monkeypatch.setattr(recorder.Recorder, "between_steps", soon)
    argv = ["train", "--resume", folder, "--max-steps", "9"]
    refused(capsys, 1, "not enough memory", further, argv=argv)
    assert checkpoint.load(folder / "last.npz").progress.step == saved


def test_a_pack_that_gets_shorter_ends_a_run_saved(images, tmp_path, monkeypatch, capsys):
    """A mapped file would end the process with SIGBUS, and without a word."""
    pack, between_steps = tmp_path / "pack", recorder.Recorder.between_steps
    assert main(["data", "pack", str(images), "-o", str(pack), "--size", "32"]) == 0

    def soon(self):
        between_steps(self)
        if self.run.progress.step == 2:
            os.truncate(pack / "train.rgb", 5000)

    monkeypatch.setattr(recorder.Recorder, "between_steps", soon)
    capsys.readouterr()
    argv = train(pack, tmp_path / "run")
    told = "train.rgb has become shorter", "All is saved up to step"
    refused(capsys, 4, *told, argv=argv)
    assert checkpoint.load(tmp_path / "run" / "last.npz").progress.step >= 2


def test_no_thread_to_be_had_is_no_memory():
    def refuses(*arguments):
        raise RuntimeError("can't start new thread")

    pool = Threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuses)
        with pytest.raises(MemoryError):
            pool.submit(print)
    pool.shutdown(wait=False)


def interrupted_start(monkeypatch):
    """Ctrl-C at the moment at which a thread has begun, and Thread.start() has not ended."""
    wait = threading.Event.wait
    landed = []

    def wait_and_interrupt(self, timeout=None):
        if not landed:
            landed.append(1)
            signal.raise_signal(signal.SIGINT)
        return wait(self, timeout)

    monkeypatch.setattr(threading.Event, "wait", wait_and_interrupt)
    return landed


def test_ctrl_c_inside_the_start_of_a_thread_leaves_no_sleeper(monkeypatch):
    before = set(threading.enumerate())
    pool = Threads(2)
    with monkeypatch.context() as patch:
        landed = interrupted_start(patch)
        with pytest.raises(KeyboardInterrupt):
            pool.submit(time.sleep, 0)
    assert landed
    pool.shutdown()
    assert set(threading.enumerate()) <= before


def test_ctrl_c_in_the_threads_of_the_reference_leaves_them_usable(monkeypatch):
    monkeypatch.setattr(threads, "_cores", 2)
    monkeypatch.setattr(threads, "_threads", Threads(2))
    work = lambda piece: piece.stop  # noqa: E731
    with monkeypatch.context() as patch:
        interrupted_start(patch)
        with pytest.raises(KeyboardInterrupt):
            threads.in_pieces(work, 4, 2**30)
    assert threads.in_pieces(work, 4, 2**30) == [1, 2, 3, 4]
    threads._threads.shutdown()


def test_control_characters_of_names_reach_no_terminal(tmp_path, capsys):
    photos = tmp_path / "pho\x1b[31mtos"
    for name in ("a\x1b]0;mine\x07", "b\nc", "d\x9b"):
        for i in range(3):
            path = photos / name / f"{i}\x1b.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (i, 80 * i, 0)).save(path)
    run = tmp_path / "run"
    picture = photos / "b\nc" / "0\x1b.png"
    (photos / "b\nc" / "bad\x1b.png").write_bytes(b"no picture")
    argv = ["train", "--data", photos, *FLAGS[:2], "-b", "4", "--max-steps", "1"]
    for command in (
        ["data", "check", photos],
        [*argv, "--output-dir", tmp_path / "none"],
        [*argv, "--on-bad-image", "skip", "--output-dir", run],
        ["eval", run],
        ["predict", run, picture, photos / "b\nc" / "bad\x1b.png"],
        ["show", "curves", run, "-o", tmp_path / "c\x1b.png"],
        ["data", "pack", photos, "--on-bad-image", "skip", "-o", tmp_path / "pa\x1bck"],
        ["train", "--data", tmp_path / "none\x1b"],
        ["train", "--arch", "m\x1b"],
        ["m\x1b"],
    ):
        main([str(word) for word in command])
        out = capsys.readouterr()
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", out.out + out.err), command
        assert "\nc" not in out.out + out.err


def test_what_is_printable():
    assert printable("a\u202fb\u3000c\n") == "a\u202fb\u3000c\\n"  # spaces of names made on a Mac
    assert printable("Ärger 猫 'x'") == "Ärger 猫 'x'"
    assert printable("a\x1b\n\x7f\udcff\u202e") == "a\\x1b\\n\\x7f\\udcff\\u202e"
    assert printable("a\\b") == "a\\b"
