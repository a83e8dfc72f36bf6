"""Mistakes of new users: what each is answered, and that no answer leads elsewhere."""

import os
import shlex
import shutil
from unittest import mock

import pytest
from PIL import Image
from runs import pictures

from tinyalex.cli.parser import main
from tinyalex.training.recorder import Recorder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photos/, others/ of two classes, photos.zip, a finished run, and odd files."""
    folder = tmp_path_factory.mktemp("mistakes")
    before = os.getcwd()
    os.chdir(folder)
    pictures(folder / "photos", train=6, val=2)
    pictures(folder / "others", train=4, val=1)
    for split in ("train", "val"):
        shutil.rmtree(folder / "others" / split / "red")
        (folder / "others" / split / "green").rename(folder / "others" / split / "grey")
    shutil.make_archive("photos", "zip", folder, "photos")
    with mock.patch.object(Recorder, "draw"):
        argv = "train --data photos --arch mini -b 6 --epochs 1 --output-dir runs/first -q"
        assert main(argv.split()) == 0
    Image.new("RGB", (40, 40)).save("cat.png")
    (folder / "notes.txt").write_text("no picture")
    (folder / "deep.toml").write_text("a = " + "[" * 5000 + "]" * 5000)
    (folder / "zero.toml").write_text('output_dir = "a\\u0000b"')
    (folder / "typo.toml").write_text("epoch = 3")
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe")
    os.chdir(before)
    return folder


# Command; exit code; words of the answer. No answer may have "Did you mean" but where it is here.
MISTAKES = [
    ("", 0, "usage: tinyalex"),
    ("help", 0, "usage: tinyalex"),
    ("help train", 0, "usage: tinyalex train"),
    ("trian", 2, "Did you mean 'train'?"),
    ("evaluate runs/first", 2, "Did you mean 'eval'?"),
    ("test runs/first", 2, "Did you mean 'eval'?"),
    ("infer runs/first cat.png", 2, "Did you mean 'predict'?"),
    ("fit", 2, "Did you mean 'train'?"),
    ("plot runs/first", 2, "Did you mean 'show'?"),
    ("list", 2, "Did you mean 'summary'?"),
    ("check photos", 2, "Did you mean 'data'?"),
    ("version", 2, "Did you mean '--version'?"),
    ("-v", 2, "Did you mean '--version'?"),
    ("--verson", 2, "Did you mean '--version'?"),
    ("juggle", 2, "'juggle'"),
    ("train --device cuda", 2, "Did you mean '--backend'?"),
    ("train --backend cuda", 2, "Did you mean 'gpu'?"),
    ("train --backend cpu", 2, "Did you mean 'reference'?"),
    ("train --model alexnet", 2, "Did you mean '--arch'?"),
    ("train alexnet", 2, "Did you mean '--arch alexnet'?"),
    ("summary mini", 2, "Did you mean '--arch mini'?"),
    ("gradcheck Mini+tanh", 2, "Did you mean '--arch mini+tanh'?"),
    ("train --arch AlexNet", 2, "Did you mean 'alexnet'?"),
    ("train --arch minni", 2, "Did you mean 'mini'?"),
    ("train --arch resnet50", 2, "no architecture 'resnet50'. Known:"),
    ("train photos", 2, "Did you mean '--data photos'?"),
    ("train --data photos/train/blue photos/train/red", 2, "unrecognized arguments"),
    ("train --dataset photos", 2, "Did you mean '--data'?"),
    ("train --dir=photos", 2, "Did you mean '--data'?"),
    ("train --data nosuch", 4, "nosuch does not exist."),
    ("train --data photo", 4, "Did you mean 'photos'?"),
    ("train --data https://example.com/x.zip", 2, "Fetch it first"),
    ("train --data=https://example.com/x.zip", 2, "Fetch it first"),
    ("train --data photos/train/blue", 4, "Did you mean"),
    ("train --data cat.png", 4, "a folder"),
    ("train --data pipe", 2, "pipe is a pipe"),
    ("train --data=pipe", 2, "pipe is a pipe"),
    ("train --batchsize 32", 2, "Did you mean '--batch-size'?"),
    ("train --learning-rate .1", 2, "Did you mean '--lr'?"),
    ("train --pretrained", 2, "Did you mean '--weights'?"),
    ("train --save-dir x", 2, "Did you mean '--output-dir'?"),
    ("train --patience 5", 2, "Did you mean '--early-stopping'?"),
    ("train --fp16", 2, "Did you mean '--precision'?"),
    ("train --num-classes 3", 2, "The folders of the data are the classes."),
    ("train --img-size 64", 2, "one size of images"),
    ("train --optimizer adam", 2, "SGD with momentum"),
    ("train --augment", 2, "Crops and flips are on"),
    ("train --val-split .2", 2, "A tenth is held out"),
    ("train --tensorboard", 2, "unrecognized arguments: --tensorboard. See"),
    ("train --epochs 0", 2, "a number above zero"),
    ("train --epochs ten", 2, "invalid int value: 'ten'"),
    ("train --lr 0,01", 2, "invalid float value"),
    ("train --lr -1", 2, "--lr cannot be -1.0"),
    ("train --lr=", 2, "The value of --lr is empty"),
    ("train --seed -1", 2, "zero or more"),
    ("train --output-dir photos", 2, "holds other files"),
    ("train --output-dir runs/first", 2, "--resume runs/first"),
    ("train --resume runs", 5, "The newest run there is runs/first."),
    ("train --resume nosuch", 5, "no checkpoint at nosuch. Give the folder of a run"),
    ("train --resume photos", 5, "no checkpoint at"),
    ("train --resume runs/first --weights runs/first", 2, "Give one."),
    ("train --resume runs/first --data others", 5, "--weights runs/first"),
    ("train -c nosuch.toml", 2, "Cannot read the config file"),
    ("train -c typo.toml", 2, "Did you mean 'epochs'?"),
    ("train -c deep.toml", 2, "nested too deeply"),
    ("train -c zero.toml", 2, "zero byte"),
    ("train -c cat.png", 2, "is not TOML"),
    ("eval", 2, "required: RUN"),
    ("eval nosuch", 5, "no checkpoint at nosuch"),
    ("eval runs", 5, "The newest run there is runs/first."),
    ("eval photos.zip", 5, "no checkpoint"),
    ("eval --weights runs/first", 2, "stands without a flag"),
    ("eval runs/first --crops 5", 2, "(choose from 1, 10)"),
    ("eval runs/first --data others", 4, "--weights RUN"),
    ("eval runs/first --csv table", 2, "give a name.csv"),
    ("predict runs/first", 2, "required: IMAGE"),
    ("predict cat.png runs/first", 2, "the run comes first: tinyalex predict RUN cat.png"),
    ("features cat.png runs/first -o f.npz", 2, "the run comes first"),
    ("predict runs/first nosuch.png", 4, "No such file"),
    ("predict runs/first notes.txt", 4, "not an image in a format that is read here"),
    ("predict runs/first runs", 4, "There is no picture"),
    ("predict runs/first runs/first/best.npz", 4, "There is no picture"),
    ("predict runs/first pipe", 2, "pipe is a pipe"),
    ("predict runs/first https://example.com/cat.jpg", 2, "is an address"),
    ("predict runs/first --image cat.png", 2, "Pictures stand without a flag."),
    ("predict --run runs/first cat.png", 2, "stands without a flag."),
    ("predict runs/first cat.png --top5", 2, "Did you mean '--topk'?"),
    ("predict runs/first cat.png --csv cat.png", 2, "give a name.csv"),
    ("predict notes.txt cat.png", 2, "There are no weights in notes.txt"),
    ("show runs/first", 2, "(choose from 'curves'"),
    ("show curve runs/first", 2, "Did you mean 'curves'?"),
    ("show loss runs/first", 2, "Did you mean 'curves'?"),
    ("show curves", 2, "required: RUN"),
    ("show filters photos", 5, "no checkpoint at"),
    ("data photos", 2, "(choose from 'pack', 'check')"),
    ("data chek photos", 2, "Did you mean 'check'?"),
    ("data check", 2, "required: SRC"),
    ("data check nosuch", 4, "does not exist"),
    ("data check photos --against runs", 4, "not a pack"),
    ("data pack photos", 2, "required: -o/--output"),
    ("reproduce fig1", 2, "no experiment 'fig1'. Known: relu-vs-tanh"),
    ("reproduce relu", 2, "Did you mean 'relu-vs-tanh'?"),
    ("import nosuch.pth -o new", 5, "No such file"),
    ("export runs/first", 2, "required: -o/--output"),
    ("export runs/first -o net.tflite", 2, ".onnx"),
    ("features runs/first photos -o f.npz --layer fc9", 2, "Did you mean 'fc"),
    ("bench --arch nosuch", 2, "no architecture 'nosuch'. Known:"),
    ("compare --backend nvidia", 2, "Did you mean 'gpu'?"),
    ("doctor --fix", 2, "unrecognized arguments: --fix. See"),
]


@pytest.mark.parametrize(("command", "code", "words"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_mistakes_are_answered(command, code, words, place, monkeypatch, capsys):
    if "pipe" in command and not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    monkeypatch.chdir(place)
    try:
        found = main(shlex.split(command))
    except SystemExit as ended:  # argparse's, after help
        found = ended.code
    out, err = capsys.readouterr()
    assert words in out + err
    assert found == code
    assert "Traceback" not in err
    if code:
        (line,) = err.splitlines()
        assert line.startswith("tinyalex: ")
    assert ("Did you mean" in words) == ("Did you mean" in err)
    with open("cat.png", "rb") as picture:
        assert picture.read(4) == b"\x89PNG"


def test_sixty_mistakes_are_tried():
    assert len({command for command, *_ in MISTAKES}) == len(MISTAKES) >= 60
