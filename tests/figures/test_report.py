"""The page of a run: that what it says is so, stands there once, and needs nothing else."""

from __future__ import annotations

import base64
import io
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pages import parsed
from PIL import Image
from read_back import texts
from runs import few_images, pictures, refused

from tinyalex.cli.parser import main
from tinyalex.data import open_data
from tinyalex.errors import printable
from tinyalex.figures import draw, report, run_figures
from tinyalex.measure.evaluate import interval_in_words, probabilities
from tinyalex.net.draws import initial_parameters
from tinyalex.runs import checkpoint
from tinyalex.runs.config import Config
from tinyalex.runs.folder import RunFolder
from tinyalex.runs.weights import load_networks

pytestmark = pytest.mark.xdist_group("report")  # at one run

HOSTILE = ("<script>alert(1)<&script>", 'say "it\'s" & <b>', "tab\tred\x1b[31m")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Noise in three classes of ill names: 12 pictures to train on and 10 to validate, a class."""
    folder = pictures(tmp_path_factory.mktemp("photos"), 12, 10)
    for split in ("train", "val"):
        for name, ill in zip(("blue", "green", "red"), HOSTILE, strict=True):
            (folder / split / name).rename(folder / split / ill)
    return folder


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """A finished run of `mini` on them, and its page."""
    folder = tmp_path_factory.mktemp("run") / "a run"
    argv = ["train", "--data", str(photos), "--arch", "mini", "-b", "12", "--epochs", "2"]
    assert main([*argv, "--output-dir", str(folder)]) == 0
    assert main(["report", str(folder)]) == 0
    return folder


@pytest.fixture
def answers(run, photos):
    """The validation images, and the probabilities of all classes."""
    split = open_data(str(photos), 32, seed=0).val
    images = np.stack([split.read(i) for i in range(len(split.labels))])
    return split, probabilities(load_networks([str(run)])[1], images)


def test_it_needs_no_other_file_and_is_whole(run):
    page, text = parsed(run / "report.html"), (run / "report.html").read_text()
    assert text.count("<h1>") == 1
    assert '<html lang="en">' in text
    assert len(text) < 2e6
    for outside in ("http:", "https:", "url(", "@import", "<script"):
        assert outside not in text
    assert all(value.startswith("data:image/") for value in page.all_of("src"))
    assert all(value.startswith("data:image/") for value in page.all_of("srcset"))
    assert len(page.all_of("alt")) == len(page.all_of("src"))
    assert all(page.all_of("alt"))
    ids = page.all_of("id")
    assert len(set(ids)) == len(ids) == 7
    assert [f"#{id}" for id in ids] == page.all_of("href")
    assert not {"onload", "onclick", "onerror"} & {key for _, key, _ in page.attributes}


def test_names_are_shown_as_they_are_and_run_nothing(run):
    page = parsed(run / "report.html")
    for name in HOSTILE:
        assert page.text.count(printable(name)) >= 3
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", (run / "report.html").read_text())


def test_the_error_is_that_of_all_validation_images(run, answers):
    split, probs = answers
    wrong = float((probs.argmax(1) != split.labels).mean())
    page = parsed(run / "report.html")
    assert f"{100 - 100 * wrong:.2f} % of 30 validation images right" in page.text
    assert f"top-1 error {100 * wrong:.2f} % ({interval_in_words(wrong, 30)})" in page.text
    assert "top-5" not in page.text  # of three classes


def test_the_worst_mistakes_are_the_surest_ones(run, answers):
    split, probs = answers
    wrong = np.flatnonzero(probs.argmax(1) != split.labels)
    surest = wrong[np.argsort(-probs[wrong].max(1), kind="stable")][:12]
    assert len(surest) > 3
    text = (run / "report.html").read_text()
    items = re.findall(r"<li>(.*)</li>", text[text.index('class="mistakes"') :])
    for i, item in zip(surest, items, strict=False):
        assert f"✗ {report.text(HOSTILE[probs[i].argmax()])} {100 * probs[i].max():.1f}&" in item
        own = probs[i, split.labels[i]]
        assert f"✓ {report.text(HOSTILE[split.labels[i]])} {100 * own:.1f}&" in item
        data = re.search(r"data:image/png;base64,([^\"]*)", item)[1]
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            np.testing.assert_array_equal(np.asarray(picture), split.read(int(i)))


def test_a_network_without_mistakes_shows_none(photos):
    dataset = open_data(str(photos), 32, seed=0)
    sure = np.ones(len(dataset.val.labels))
    html = report.mistakes(dataset, dataset.val, dataset.val.labels, sure, sure)
    assert html == "<p>There is none.</p>"


def test_the_matrix_counts_every_image(run, answers):
    split, probs = answers
    text = (run / "report.html").read_text()
    matrix = text[text.index('<table class="matrix">') : text.index("Right at first guess")]
    cells = re.findall(r'<td style="--s: [\d.]+">(\d*)</td>', matrix)
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (split.labels, probs.argmax(1)), 1)
    assert [int(cell or 0) for cell in cells] == expected.ravel().tolist()


def test_the_commands_on_it_work(run, capsys):
    code = re.findall(r"<code>(.*?)</code>", (run / "report.html").read_text(), re.DOTALL)
    commands, program = (parsed_text(part) for part in code)
    predict, evaluate, *_ = (shlex.split(line) for line in commands.split("\n"))
    assert Path(predict[-1]).is_file()
    assert main(predict[1:]) == main(evaluate[1:]) == 0
    capsys.readouterr()
    exec(program, {})
    assert capsys.readouterr().out.count(" %  ") == 3


def parsed_text(html):
    return re.sub("&(lt|gt|amp|quot|#x27);", lambda m: CHARACTERS[m[1]], html)


CHARACTERS = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "#x27": "'"}


def test_kernels_stand_beside_what_the_seed_drew(run):
    _, state = checkpoint.load_run(run)
    config = Config(seed=state.config["seed"])
    found = draw.initial_kernels(state.network, config, state.progress)
    drawn = initial_parameters(state.network, config.seed)["conv1.weight"]
    np.testing.assert_array_equal(found, drawn)
    assert draw.initial_kernels(state.network, replace(config, weights="x"), state.progress) is None
    text = parsed(run / "report.html").text
    assert "tower a: GPU 1 in the paper, before training" in text
    assert "initial values 1.00: still mostly the noise they began as." in text


def test_kernels_that_have_moved_are_not_called_noise():
    drawn = np.random.default_rng(0).normal(size=(2, 5, 5, 3))
    assert draw.moved_in_words(drawn, None) == ""
    assert draw.moved_in_words(drawn, drawn + drawn[::-1]) == (
        "Correlation with their initial values 0.72."
    )


def test_of_a_thousand_classes_the_ends_are_shown():
    titles = [f"{i} of a thousand" for i in range(1000)]
    labels = np.repeat(np.arange(1000), 2)
    given = labels.copy()
    given[[0, 1, 14]] = 999, 999, 3
    html = report.classes(labels, given, titles)
    assert "matrix" not in html
    assert html.count("<tr>") == 3 + 2 + 10 + 10
    first, *_ = re.findall(r"<tr><th scope=\"row\">.*?</tr>", html)
    assert first == (
        '<tr><th scope="row">0 of a thousand</th><td>999 of a thousand</td>'
        '<td class="number">2 of 2</td></tr>'
    )
    assert "<td>999 of a thousand (2)</td>" in html


@pytest.mark.parametrize("classes", [5, 6, 20, 21])
def test_top5_and_the_matrix_depend_on_the_number_of_classes(classes):
    scores = report.Scores(7, 1.0, 1 / 7, 0.0)
    assert ("top-5" in report.result(scores, "validation", classes)) == (classes > 5)
    labels = np.arange(classes)
    html = report.classes(labels, labels, ["x"] * classes)
    assert ('class="matrix"' in html) == (classes <= 20)


@pytest.mark.slow
def test_weights_alone_have_a_page_too(run, photos, tmp_path, capsys):
    shutil.copy(run / "last.npz", tmp_path)
    assert main(["report", str(tmp_path / "last.npz"), "-o", str(tmp_path / "of.html")]) == 0
    page = parsed(tmp_path / "of.html")
    assert "Curves" not in page.text
    assert main(["export", str(run), "-o", str(tmp_path / "weights")]) == 0  # with an empty log
    assert main(["report", str(tmp_path / "weights")]) == 0
    assert "Curves" not in parsed(tmp_path / "weights" / "report.html").text
    assert "2 of 2, 6 steps" in page.text
    shutil.copytree(photos / "train", tmp_path / "flat")
    argv = ["report", str(run), "--data", str(tmp_path / "flat"), "-o", str(tmp_path / "of.html")]
    assert main(argv) == 0  # over the page of before
    page = parsed(tmp_path / "of.html")
    assert "of all 36 images right" in page.text
    assert "alike" not in page.text


@pytest.mark.slow
def test_it_is_written_over_nothing_else(run, tmp_path, capsys):
    notes = tmp_path / "notes.html"
    notes.write_text("<!doctype html><title>tinyalex</title>")
    refused(capsys, 2, notes, "in the way", argv=["report", run, "-o", notes])
    refused(capsys, 2, "name.html", argv=["report", run, "-o", tmp_path / "page.txt"])
    refused(capsys, 6, "nowhere", argv=["report", run, "-o", tmp_path / "nowhere" / "page.html"])
    assert "doctype" in notes.read_text()


# The pictures


def test_half_of_the_pictures_are_mistakes_if_there_are_so_many(run, answers):
    split, probs = answers
    (network,) = load_networks([str(run)])[1]
    chosen, shown, seen, wrong = draw.mixed(network, split, 0)
    mistaken = probs.argmax(1) != split.labels
    assert (seen, wrong) == (30, mistaken.sum())
    assert len(set(chosen.tolist())) == 8
    assert mistaken[chosen].tolist() == [True] * 4 + [False] * 4
    np.testing.assert_allclose(shown, probs[chosen], rtol=1e-5)


@pytest.mark.slow
def test_every_picture_names_its_run_and_epoch(run, photos):
    (state,), (network,) = load_networks([str(run)])
    made = draw.origin(RunFolder(run), state.progress)
    assert made == f"run a run, epoch {state.progress.epoch}"
    dataset = open_data(str(photos), 32, seed=0)
    for name in ("predictions", "neighbors", "confusion"):
        found = texts(getattr(draw, name)(network, dataset, 0, made))
        assert any(made in text for text in found)
        if name == "confusion":
            assert {"true", "predicted"} <= set(found)
    found = texts(draw.filters(network, made, None))
    assert any(made in text for text in found)
    assert set(draw.TOWERS) <= set(found)
    found = texts(run_figures.curves(*draw.curves(RunFolder(run), 30)))
    best = min(state.progress.history, key=lambda record: record["val_top1_error"])
    (subtitle,) = (text for text in found if "run a run" in text)
    assert f"2 of 2 epochs; best: epoch {best['epoch']}" in subtitle
    assert interval_in_words(best["val_top1_error"], 30) in subtitle
    assert not any("top-5" in text for text in found)


def test_weights_from_elsewhere_and_runs_inside_an_epoch_are_named(run):
    _, state = checkpoint.load_run(run)
    folder = RunFolder(run)
    inside = replace(state.progress, epoch=1, step=4, batch=1)
    assert draw.origin(folder, inside) == "run a run, epoch 1, step 4"
    assert "not trained here" in draw.origin(folder, replace(state.progress, step=0))


@pytest.mark.slow
def test_the_page_of_the_built_in_images(tmp_path, monkeypatch, capsys):
    few_images(monkeypatch, 640)
    run = tmp_path / "run"
    assert main(["train", "--epochs", "1", "--output-dir", str(run)]) == 0
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.endswith(f"{run / 'report.html'}\n")
    page = parsed(run / "report.html")
    assert "top-5 error" in page.text
    assert "picture.jpg" in page.text
