"""Images from files: decoding, layouts, archives, batches. Every tree is made here, with Pillow."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import random
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin, features
from trees import (
    Pixels,
    Tree,
    below,
    classes_of,
    encoded,
    labelled,
    picture,
    tarred,
    written,
    zipped,
)

from tinyalex.data import archives as archives_module
from tinyalex.data import batches as batches_module
from tinyalex.data import decode as decode_module
from tinyalex.data import open_data
from tinyalex.data.batches import (
    Kept,
    batches,
    epoch_order,
    keep_in_memory,
    mean_and_colour,
)
from tinyalex.data.dataset import Dataset
from tinyalex.data.decode import decode, decode_opened
from tinyalex.data.layout import Images
from tinyalex.data.mounts import open_storage
from tinyalex.errors import DataError
from tinyalex.runs.config import Config

REAL = Path(__file__).parents[3] / "shared" / "data"
Tell = Callable[[str], None]

# Decoding


def _palette(**info: object) -> Image.Image:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 10, 20, 30])
    image.info.update(info)
    return image


WHITE = (255, 255, 255)
GREY_16 = np.full((4, 4), 257 * 100 + 128, np.uint16)  # rounds down: 128 is just under half of 257
MODES: dict[str, tuple[Image.Image, str, dict[str, object], tuple[int, int, int]]] = {
    "1": (Image.new("1", (4, 4), 1), "PNG", {}, WHITE),
    "L": (Image.new("L", (4, 4), 77), "PNG", {}, (77, 77, 77)),
    "L with a transparent value": (Image.new("L", (4, 4), 7), "PNG", {"transparency": 7}, WHITE),
    "LA": (Image.new("LA", (4, 4), (0, 51)), "PNG", {}, (204, 204, 204)),
    "P": (_palette(), "PNG", {}, (10, 20, 30)),
    "P with an alpha palette": (_palette(), "PNG", {"transparency": b"\xff\x00"}, WHITE),
    "P in GIF, transparent": (_palette(), "GIF", {"transparency": 1}, WHITE),
    "PA": (Image.new("PA", (4, 4), (1, 0)), "TIFF", {}, WHITE),
    "RGB": (Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", {}, (1, 2, 3)),
    "RGB with a transparent colour": (
        Image.new("RGB", (4, 4), (1, 2, 3)),
        "PNG",
        {"transparency": (1, 2, 3)},
        WHITE,
    ),
    "RGBA, invisible": (Image.new("RGBA", (4, 4), (9, 9, 9, 0)), "PNG", {}, WHITE),
    "RGBA, a fifth": (Image.new("RGBA", (4, 4), (255, 0, 0, 51)), "PNG", {}, (255, 204, 204)),
    "CMYK": (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF", {}, (255, 0, 0)),
    "CMYK in JPEG": (Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "JPEG", {}, (0, 0, 0)),
    "YCbCr": (Image.new("YCbCr", (4, 4), (128, 128, 128)), "TIFF", {}, (128, 128, 128)),
    "LAB": (Image.new("LAB", (4, 4), (0, 128, 128)), "TIFF", {}, (0, 0, 0)),
    "16-bit grey PNG": (Image.fromarray(GREY_16), "PNG", {}, (100, 100, 100)),
    "16-bit grey TIFF": (Image.fromarray(GREY_16 + 1), "TIFF", {}, (101, 101, 101)),
    "16-bit white": (Image.fromarray(GREY_16 * 0 + 65535), "PNG", {}, WHITE),
    "big-endian 16-bit": (Image.new("I;16B", (4, 4), 257 * 9), "TIFF", {}, (9, 9, 9)),
    "I": (Image.new("I", (4, 4), 257 * 200), "TIFF", {}, (200, 200, 200)),
    "F": (Image.new("F", (4, 4), 0.2), "TIFF", {}, (51, 51, 51)),
}


@pytest.mark.parametrize("case", MODES)
def test_every_mode_has_one_result(case: str) -> None:
    image, file_format, options, colour = MODES[case]
    result = decode(encoded(image, file_format, **options), 2, case)
    assert result.dtype == np.uint8
    rounding = 1 if case == "LAB" else 0  # goes through a colour profile
    assert np.abs(result.astype(int) - colour).max() <= rounding
    assert result.shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("mode", "value"), [("I", -1), ("I", 65536), ("F", 1.5), ("F", -0.1), ("F", float("nan"))]
)
def test_grey_without_a_defined_white_is_refused(mode: str, value: float) -> None:
    with pytest.raises(DataError, match=r"grey\.tif .*not within 0 to"):
        decode(encoded(Image.new(mode, (4, 4), value), "TIFF"), 2, "grey.tif")


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(file_format: str, orientation: int) -> None:
    upright = Image.new("RGB", (32, 32), "black")
    upright.paste("white", (0, 0, 16, 8))  # a wide bar in the top left tells all 8 apart
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = decode(encoded(stored, file_format, exif=exif), 32, "photo")
    assert np.abs(result.astype(int) - np.asarray(upright)).max() < 64  # JPEG and WebP lose a bit


@pytest.mark.parametrize(("bits", "order"), [(8, "<"), (8, ">"), (16, "<")])
def test_white_may_be_zero(bits: int, order: str) -> None:
    """A TIFF by hand, as Pillow writes none of 16 bits: one strip of 4 x 4 values, all 1/5."""
    values = np.full(16, (2**bits - 1) // 5, f"{order}u{bits // 8}").tobytes()
    tags = {256: 4, 257: 4, 258: bits, 259: 1, 262: 0, 273: 8 + 2 + 12 * 9 + 4, 277: 1, 278: 4}
    entries = b"".join(
        struct.pack(f"{order}HHLHxx", tag, 3, 1, value)
        for tag, value in {**tags, 279: len(values)}.items()
    )
    head = {"<": b"II*\0\x08\0\0\0", ">": b"MM\0*\0\0\0\x08"}[order]
    data = head + struct.pack(f"{order}H", 9) + entries + bytes(4) + values
    assert np.all(decode(data, 2, "grey.tif") == 204)


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("P", (4, 4), 1), Image.new("P", (4, 4), 0)]
    for frame in frames:
        frame.putpalette([255, 0, 0, 10, 20, 30])
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data, 1, "moving.gif").tolist() == [[[10, 20, 30]]]


def test_png_named_jpeg_is_read() -> None:
    assert decode(picture(5), 1, "n02105855_2933.JPEG").tolist() == [[[5, 5, 5]]]


def _bars(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 24))
def test_result_is_the_resized_centre_square(width: int, height: int, size: int) -> None:
    image = _bars(width, height)
    short = min(width, height)
    result = decode(encoded(image, "PNG"), size, "bars")
    assert result.shape == (size, size, 3)
    if size == short:  # nothing to resize: the pixels themselves
        left, top = (width - short) // 2, (height - short) // 2
        assert np.array_equal(result, np.asarray(image)[top : top + short, left : left + short])


def test_shrinking_averages_instead_of_skipping() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    inner = decode(encoded(Image.fromarray(stripes), "PNG"), 8, "stripes")[1:-1, 1:-1]
    assert np.abs(inner.astype(int) - 128).max() <= 1


def photo(width: int, height: int) -> Image.Image:
    """Smooth shapes and some noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width] / min(width, height)
    waves = np.stack([np.sin(7 * x + 3 * y), np.cos(9 * y), np.sin(5 * x * y)], axis=-1)
    noise = rng.normal(0, 4, (height, width, 3))
    return Image.fromarray((127 + 100 * waves + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("short", "scale"), [(100, 1), (127, 1), (128, 2), (255, 2), (256, 4), (511, 4), (512, 8)]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_large_jpegs_are_decoded_at_the_scale_of_the_rule(
    short: int, scale: int, mode: str
) -> None:
    size = 32
    data = encoded(photo(short + 60, short).convert(mode), "JPEG")
    whole, scaled = decode(data, size, "photo", rule=1), decode(data, size, "photo")
    opened = Image.open(io.BytesIO(data))
    opened.draft(None, (opened.width // scale, opened.height // scale))
    assert opened.size == (-(-(short + 60) // scale), -(-short // scale))
    expected = decode_opened(opened, size)
    assert np.array_equal(scaled, expected)
    assert (scale == 1) == np.array_equal(scaled, whole)
    assert np.abs(scaled.astype(int) - whole).mean() < 2  # odd sides: half a pixel elsewhere


def test_the_rule_of_a_run_is_that_of_decode() -> None:
    assert Config().decoding == decode_module.RULE


def test_what_is_turned_is_turned_at_any_scale() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(photo(300, 200), "JPEG", exif=exif)
    turned = decode(encoded(photo(300, 200), "JPEG"), 32, "photo")
    difference = decode(data, 32, "photo").astype(int) - np.rot90(turned, -1)
    assert np.abs(difference).max() <= 1  # columns are rounded before rows


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (33, 65), (200, 150)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"optimize": True},
        {"restart_marker_blocks": 2},
        {"subsampling": 0},
    ],
    ids=str,
)
def test_sound_jpegs_are_not_accused(
    mode: str, size: tuple[int, int], options: dict[str, object]
) -> None:
    for image in (photo(*size).convert(mode), Image.new(mode, size)):
        data = encoded(image, "JPEG", **options)
        for more in (b"", bytes(40), b"\xff\xd9", data, b"a video" + data[:-2]):
            expected = decode(data + more, 16, "photo")
            assert np.array_equal(decode(data + more, 16, "photo", strict=True), expected)
        padded = data[:-2] + bytes(20) + data[-2:]  # some encoders leave unused bytes
        assert decode(padded, 16, "photo", strict=True).shape == (16, 16, 3)


def test_several_pictures_in_one_file_are_sound() -> None:
    frames = [photo(64, 48), photo(32, 32)]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert np.array_equal(decode(data, 8, "x", strict=True), decode(data, 8, "x"))


@pytest.mark.slow
def test_damaged_jpegs_are_found(tell: Tell) -> None:
    chooser, refused, cases = random.Random(0), 0, 100
    for case in range(cases):
        data = bytearray(encoded(photo(420 + case, 400), "JPEG", quality=90))
        at = chooser.randrange(2000, len(data) - 4200)
        data[at : at + 4096] = bytes(4096)
        decode(bytes(data), 16, "zeros", strict=False)
        try:
            decode(bytes(data), 16, "zeros", strict=True)
        except DataError as error:
            refused += "it is damaged: its data" in str(error)
    tell(f"{refused} of {cases} photos with 4 KB of zeros refused")
    assert refused >= 90


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1)])
def test_tiny_and_thin_images_work(shape: tuple[int, int]) -> None:
    result = decode(encoded(Image.new("RGB", shape, (7, 8, 9)), "PNG"), 256, "thin")
    assert np.all(result == (7, 8, 9))


def test_pixel_limit_is_checked_before_decoding() -> None:
    data = bytearray(picture(side=10))
    decode(bytes(data), 2, "ten", max_pixels=100)
    with pytest.raises(DataError, match=r"ten is 10 x 10 pixels.*99.*--max-pixels"):
        decode(bytes(data), 2, "ten", max_pixels=99)
    for side in (9_000, 30_000):  # Pillow warns of the first and refuses the second
        lie = bytearray(encoded(Image.new("L", (1, 1)), "BMP"))
        lie[18:26] = side.to_bytes(4, "little") * 2
        with pytest.raises(DataError, match=r"huge\.bmp is .*(limit|exceeds)"):
            decode(bytes(lie), 2, "huge.bmp")


DECODED = """
import sys
from pathlib import Path
from tinyalex.data.decode import decode
from tinyalex.bench.workload import peak_bytes
before = peak_bytes()
for path in map(Path, sys.argv[1:]):
    decode(path.read_bytes(), 227, path.name)
print(peak_bytes() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a process there knows its own peak alone")
def test_a_picture_takes_twice_its_pixels_at_most(tmp_path: Path, tell: Tell) -> None:
    """Pillow keeps most kinds in 4 bytes a pixel; turning or converting them makes another copy."""
    side, exif = 4000, Image.Exif()
    exif[0x0112] = 6
    for name, mode in (("16", "I;16"), ("alpha", "RGBA"), ("grey alpha", "LA"), ("palette", "P")):
        file = encoded(Image.new(mode, (side, side)), "PNG", compress_level=1, exif=exif)
        (tmp_path / f"{name}.png").write_bytes(file)
    argv = [sys.executable, "-c", DECODED, *map(str, sorted(tmp_path.iterdir(), reverse=True))]
    child = subprocess.run(argv, capture_output=True, text=True, check=True)
    tell(f"{int(child.stdout) / side**2:.1f} bytes a pixel")
    assert int(child.stdout) < 10 * side**2


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "CMYK", "I;16", "F"])
def test_strips_are_the_whole(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if mode in ("I;16", "F"):
        values = np.random.default_rng(0).integers(0, 65536, (37, 50), np.uint16)
        image = Image.fromarray(values if mode == "I;16" else values / np.float32(65535))
    else:
        image = _bars(50, 37).convert(mode)
    data = encoded(image, "TIFF")
    whole = decode(data, 20, "whole")
    monkeypatch.setattr(decode_module, "STRIP", 170)
    assert np.array_equal(decode(data, 20, "strips"), whole)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM"])
def test_cut_files_are_refused_by_name(file_format: str) -> None:
    data = encoded(_bars(40, 40), file_format)
    decode(data, 8, "whole")
    for length in (0, 1, len(data) // 4, len(data) // 2, len(data) - 200):
        with pytest.raises(DataError, match=r"^cut\.img "):
            decode(data[:length], 8, "cut.img")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"404: not found\n", "damaged, or not an image"),
        (bytes(5000), "damaged, or not an image"),
        (encoded(Image.new("L", (4, 4)), "EPS"), "PostScript, which is not read here"),
        (b"\xff\xd8\xff\xe0", "JPEG that is damaged in its header"),
        (b"\xff\xd8\xff\xc1\x00\x11\x0c" + bytes(40), "JPEG with 12 bits a colour"),
    ],
)
def test_other_files_are_refused_by_name(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"^page\.jpg is {message}"):
        decode(data, 8, "page.jpg")


@pytest.mark.parametrize(
    ("kind", "reader", "suffix"),
    [("AVIF", "AVIF", "avif"), ("JPEG 2000", "JPEG2000", "jp2")],
)
def test_formats_of_some_pillows(
    kind: str, reader: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not features.check({"AVIF": "avif", "JPEG2000": "jpg_2000"}[reader]):
        pytest.skip(f"this Pillow was built without {kind}")
    data = encoded(Image.new("RGB", (32, 32), (200, 30, 90)), reader)
    assert np.abs(decode(data, 4, "photo").astype(int) - (200, 30, 90)).max() < 12
    tree = {f"{c}/{i}.{suffix.upper()}": data for c in "ab" for i in range(2)}
    assert len(open_data(written(tmp_path, tree), 4, hold_out=False).train.labels) == 4
    monkeypatch.setitem(Image.OPEN, reader, (Image.OPEN["PPM"][0], Image.OPEN["PPM"][1]))
    with pytest.raises(DataError, match=f"photo is {kind} that is damaged, or that this Pillow"):
        decode(data, 4, "photo")


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
JPEG_XL = b"\xff\x0a" + bytes(40)


@pytest.mark.parametrize(
    ("data", "kind", "module", "package"),
    [
        (HEIC, "HEIC", "pillow_heif", "pillow-heif"),
        (JPEG_XL, "JPEG XL", "pillow_jxl", "pillow-jxl-plugin"),
    ],
)
def test_a_missing_package_is_named(
    data: bytes, kind: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(DataError, match=rf"^photo is .* {kind}, .*pip install '{package}'"):
        decode(data, 4, "photo")


@pytest.mark.parametrize(
    ("module", "file_format"), [("pillow_heif", "HEIF"), ("pillow_jxl", "JXL")]
)
def test_packages_beside_pillow_read_more(module: str, file_format: str) -> None:
    plugin = pytest.importorskip(module, reason="an optional reader of pictures")
    if module == "pillow_heif":
        plugin.register_heif_opener()
    data = encoded(Image.new("RGB", (64, 64), (200, 30, 90)), file_format)
    assert np.abs(decode(data, 4, "photo").astype(int) - (200, 30, 90)).max() < 12


def test_files_without_a_known_suffix_are_read_by_content(tmp_path: Path) -> None:
    jpeg = encoded(Image.new("RGB", (8, 8)), "JPEG")
    names = ("1.jfif", "2.jpe", "3.MPO", "4", "5.JPG")
    tree = {f"{c}/{name}": jpeg for c in "ab" for name in names} | {"a/README": b"a text"}
    dataset = open_data(written(tmp_path, tree), 4, hold_out=False)
    assert list(dataset.train.names) == sorted(f"{c}/{name}" for c in "ab" for name in names)
    assert dataset.notes == ("Files in the class folders that are no images: 1 without a suffix.",)


def test_damage_gives_pixels_or_a_data_error_and_never_a_warning() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    chooser = random.Random(0)
    outcomes: set[object] = set()
    for file_format in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "PPM"):
        options = {"exif": exif} if file_format in ("JPEG", "PNG", "WEBP") else {}
        whole = encoded(_bars(20, 24), file_format, **options)
        for _ in range(100):
            damaged = bytearray(whole)
            damaged[chooser.randrange(min(200, len(whole)))] = chooser.randrange(256)
            try:
                outcomes.add(decode(bytes(damaged), 8, "damaged").shape)
            except DataError:
                outcomes.add("refused")
    assert outcomes == {(8, 8, 3), "refused"}


BROKEN_EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03\0\0\0\x01\0\x01"


def test_broken_exif_is_no_exif_and_no_warning() -> None:
    data = encoded(Image.new("RGB", (8, 8), (50, 50, 50)), "JPEG", exif=BROKEN_EXIF)
    with pytest.warns(UserWarning, match="EXIF"):  # else this file would prove nothing
        Image.open(io.BytesIO(data)).getexif()
    threads = [threading.Thread(target=decode, args=(data, 8, "photo")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert decode(data, 1, "photo").shape == (1, 1, 3)


RAW_PROFILE = PngImagePlugin.PngInfo()
RAW_PROFILE.add_text("Raw profile type exif", "\nexif\n4\nnot hexadecimal")


@pytest.mark.parametrize(
    "options",
    [{"exif": b"Exif\0\0M"}, {"exif": b"Exif\0\0MM\0*\0"}, {"pnginfo": RAW_PROFILE}],
    ids=["no header", "cut", "no hexadecimal"],
)
def test_exif_that_pillow_stumbles_over_is_no_exif(options: dict[str, object]) -> None:
    data = encoded(Image.new("L", (4, 4), 50), "PNG", **options)
    with pytest.raises((SyntaxError, struct.error, ValueError)):
        Image.open(io.BytesIO(data)).getexif()
    assert np.all(decode(data, 2, "photo") == 50)


# Layouts

SPLIT_TREE = {
    **below("train", classes_of(cat=3, dog=2)),
    **below("val", classes_of(cat=1, dog=2)),
}


def test_train_and_val_folders(tmp_path: Path) -> None:
    dataset = open_data(written(tmp_path / "pets", SPLIT_TREE), 4)
    assert (dataset.name, dataset.classes, dataset.titles) == (
        "pets",
        ("cat", "dog"),
        ("cat", "dog"),
    )
    assert dataset.train.labels.dtype == np.int32
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert dataset.train.names[4] == "train/dog/001.png"
    assert np.all(dataset.train.read(4) == 1)
    assert dataset.val is not None
    assert dataset.val.labels.tolist() == [0, 1, 1]
    assert dataset.notes == ()


@pytest.mark.parametrize("train", ["train", "Train", "training"])
@pytest.mark.parametrize("val", ["val", "valid", "validation", "test", "Testing"])
def test_names_of_the_two_folders(tmp_path: Path, train: str, val: str) -> None:
    tree = {**below(train, classes_of(a=2, b=2)), **below(val, classes_of(a=1, b=1))}
    dataset = open_data(written(tmp_path, tree), 4)
    assert (len(dataset.train.labels), dataset.classes) == (4, ("a", "b"))
    assert dataset.val is not None
    assert len(dataset.val.labels) == 2


def test_classes_are_sorted_by_code_point_and_hidden_folders_are_none(tmp_path: Path) -> None:
    tree = below("train", classes_of(**{"10": 1, "2": 1, "b": 1, "B": 1, "ä": 1}))
    hidden = {
        "train/.ipynb_checkpoints/1.png": picture(),
        "train/2/._0.png": b"not an image",
        "__MACOSX/train/2/0.png": b"",
        "train/2/notes.txt": b"hello",
    }
    dataset = open_data(written(tmp_path, {**hidden, **tree}), 4)
    assert dataset.classes == ("10", "2", "B", "b", "ä")
    assert len(dataset.train.labels) == 5


def test_files_may_lie_deeper_in_a_class(tmp_path: Path) -> None:
    tree = {"train/a/images/deep/1.JPEG": picture(), "train/b/2.TIFF": picture()}
    dataset = open_data(written(tmp_path, tree), 4)
    assert dataset.classes == ("a", "b")


def test_labels_never_shift(tmp_path: Path) -> None:
    tree = {
        **below("train", classes_of(a=1, b=1, c=1, d=1)),
        **below("val", classes_of(b=1, d=2, zebra=3)),
        "val/a/readme.txt": b"",
    }
    dataset = open_data(written(tmp_path, tree), 4)
    assert dataset.classes == ("a", "b", "c", "d")
    assert dataset.val is not None
    assert dataset.val.labels.tolist() == [1, 3, 3]
    assert dataset.notes == (
        "Files in the folders of val that are no images: 1 .txt.",
        "There are no validation images of a, c.",
        "Left out of validation, because train lacks the class: 3 images of zebra.",
    )


TINY = {
    "train/n02/images/n02_0.JPEG": picture(1),
    "train/n02/n02_boxes.txt": b"n02_0.JPEG\t0\t0\t62\t62\n",
    "train/n01/images/n01_0.JPEG": picture(2),
    "val/images/val_0.JPEG": picture(3),
    "val/images/val_1.JPEG": picture(4),
    "val/images/val_2.JPEG": picture(5),
    "val/val_annotations.txt": b"val_1.JPEG\tn01\t0\t0\t9\t9\r\nval_0.JPEG\tn02\t0\t0\t9\t9\n",
    "wnids.txt": b"n02\nn01\n",
    "words.txt": b"n01\tgoldfish, Carassius auratus\nn02\tkoala\nn03\tentity\n",
    "test/images/test_0.JPEG": picture(6),
}


def test_tiny_imagenet(tmp_path: Path) -> None:
    dataset = open_data(written(tmp_path, TINY), 4)
    assert (dataset.classes, dataset.titles) == (("n01", "n02"), ("goldfish", "koala"))
    assert labelled(dataset.val, dataset) == {
        "val/images/val_1.JPEG": "n01",
        "val/images/val_0.JPEG": "n02",
    }
    assert dataset.notes == (
        "Files in the class folders that are no images: 1 .txt.",
        "Left out, because val/val_annotations.txt does not list them: 1 image.",
        "Not used: 1 image in test.",
    )


def test_tiny_imagenet_annotations_that_do_not_fit(tmp_path: Path) -> None:
    longer = TINY["val/val_annotations.txt"] + b"val_9.JPEG\tn01\t0\n"
    dataset = open_data(written(tmp_path / "long", {**TINY, "val/val_annotations.txt": longer}), 4)
    assert "Listed in val/val_annotations.txt but not there: 1 image." in dataset.notes
    broken = {**TINY, "val/val_annotations.txt": b"val_1.JPEG\tn01\t0\nval_0.JPEG n02\n"}
    with pytest.raises(DataError, match=r"Line 2 of .*val_annotations\.txt"):
        open_data(written(tmp_path / "broken", broken), 4)


def test_titles_from_image_names(tmp_path: Path) -> None:
    tree = {
        "n01443537/n01443537_goldfish.JPEG": picture(),
        "n01537544/n01537544_indigo_bunting.JPEG": picture(),
        "n01664065/n01664065_10026.JPEG": picture(),
        "plain/plain_thing.JPEG": picture(),
    }
    dataset = open_data(written(tmp_path, tree), 4)
    assert dataset.titles == ("goldfish", "indigo bunting", "n01664065", "plain")


def _cifar_batch(*records: tuple[int, Pixels]) -> bytes:
    return b"".join(bytes([label]) + image.transpose(2, 0, 1).tobytes() for label, image in records)


def _cifar_tree() -> tuple[dict[str, bytes], Pixels]:
    images = np.random.default_rng(1).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    tree = {
        f"data_batch_{number}.bin": _cifar_batch((number % 2, images[number]))
        for number in range(1, 6)
    }
    tree["test_batch.bin"] = _cifar_batch((1, images[6]), (0, images[0]))
    tree["batches.meta.txt"] = b"airplane\nautomobile\n\n"
    return tree, images


@pytest.mark.parametrize("packed", [False, True])
def test_cifar_binary(tmp_path: Path, packed: bool) -> None:
    tree, images = _cifar_tree()
    path = (
        tarred(tmp_path / "cifar.tar.gz", below("cifar-10-batches-bin", tree), "w:gz")
        if packed
        else written(tmp_path, tree)
    )
    dataset = open_data(path, 32)
    assert dataset.classes == ("airplane", "automobile")
    found = dict(zip(dataset.train.names, range(5), strict=True))
    for number in range(1, 6):
        index = found[f"data_batch_{number}.bin/00000"]
        assert dataset.train.labels[index] == number % 2
        assert np.array_equal(dataset.train.read(index), images[number])
    assert dataset.val is not None
    assert labelled(dataset.val, dataset)["test_batch.bin/00000"] == "automobile"
    assert open_data(path, 16).train.read(0).shape == (16, 16, 3)


@pytest.mark.parametrize("content", [b"", bytes(3072), bytes([2]) + bytes(3072)])
def test_cifar_batch_that_is_none(tmp_path: Path, content: bytes) -> None:
    tree = {**_cifar_tree()[0], "data_batch_3.bin": content}
    with pytest.raises(DataError, match=r"data_batch_3\.bin .* is not a batch of CIFAR-10"):
        open_data(written(tmp_path, tree), 32)


def test_cifar_incomplete(tmp_path: Path) -> None:
    tree = _cifar_tree()[0]
    del tree["data_batch_4.bin"]
    assert "training batches" in open_data(written(tmp_path / "four", tree), 32).notes[0]
    del tree["batches.meta.txt"]
    with pytest.raises(DataError, match=r"lacks batches\.meta\.txt"):
        open_data(written(tmp_path / "nameless", tree), 32)


def _python2(values: dict[bytes, object]) -> bytes:
    """A pickle as Python 2 wrote CIFAR-10: its texts are of bytes, an array is of NumPy's."""

    def text(value: bytes) -> bytes:
        return b"T" + len(value).to_bytes(4, "little") + value

    def saved(value: object) -> bytes:
        if isinstance(value, bytes):
            return text(value)
        if isinstance(value, int):
            return b"J" + value.to_bytes(4, "little")
        if isinstance(value, np.ndarray):
            call = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
            kind = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR"
            kind += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            shape = saved(value.shape[0]) + saved(value.shape[1]) + b"\x86"
            return call + b"(K\x01" + shape + kind + b"\x89" + text(value.tobytes()) + b"tb"
        assert isinstance(value, list)
        return b"](" + b"".join(map(saved, value)) + b"e"

    pairs = (saved(key) + saved(value) for key, value in values.items())
    return b"\x80\x02}(" + b"".join(pairs) + b"u."


def _cifar_pickles() -> dict[str, bytes]:
    """The same batches as those of `_cifar_tree`."""
    tree, _ = _cifar_tree()
    pickles = {
        name.removesuffix(".bin"): _python2(
            {
                b"batch_label": b"a batch",
                b"labels": [record[0] for record in records],
                b"data": np.stack([np.frombuffer(record[1:], np.uint8) for record in records]),
                b"filenames": [b"a.png"] * len(records),
            }
        )
        for name, data in tree.items()
        if name.endswith(".bin")
        for records in [[data[at : at + 3073] for at in range(0, len(data), 3073)]]
    }
    meta = {b"label_names": [b"airplane", b"automobile"], b"num_vis": 3072}
    return {**pickles, "batches.meta": _python2(meta), "readme.html": b""}


def test_cifar_pickles_are_the_binary_batches(tmp_path: Path) -> None:
    binary = open_data(written(tmp_path / "bin", _cifar_tree()[0]), 32)
    python = tarred(tmp_path / "py.tar.gz", below("cifar-10-batches-py", _cifar_pickles()), "w:gz")
    expected = [(name.replace(".bin", ""), *rest) for name, *rest in _everything(binary)]
    assert _everything(open_data(python, 32)) == expected


@pytest.mark.parametrize(
    "evil",
    [
        b"cos\nsystem\n(S'touch canary'\ntR.",
        b"\x80\x02cbuiltins\neval\nU\x12open('canary', 'w')\x85R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch canary\x85R.",
        b"(S'touch canary'\nios\nsystem\n.",
        b"\x80\x02cnumpy\nload\nU\x06canary\x85R.",
        b"\x80\x02}U\x06labels]s.",
        b"\x80\x02",
        b"no pickle",
        pickle.dumps({b"labels": [0], b"data": 5}, protocol=2),
        pickle.dumps({b"labels": [9], b"data": np.zeros((1, 3072), np.uint8)}, protocol=3),
        pickle.dumps({b"labels": [1], b"data": np.zeros((1, 3072), np.float32)}, protocol=3),
    ],
)
def test_pickles_run_no_code(tmp_path: Path, evil: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / "py", {**_cifar_pickles(), "data_batch_2": evil})
    with pytest.raises(DataError, match=r"data_batch_2 is not .*cifar-10-python\.tar\.gz"):
        open_data(path, 32)
    assert not Path("canary").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not count memory in this way")
def test_pickles_that_lie_take_no_memory(tmp_path: Path) -> None:
    """Five bytes ask for a memo of two thousand million places; C's unpickler would make it."""
    lie = b"\x80\x02}r\xff\xff\xff\x7f."
    path = written(tmp_path / "py", {**_cifar_pickles(), "data_batch_2": lie})
    program = (
        "import resource, sys; from tinyalex.data import open_data\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "try: open_data(sys.argv[1], 32, 0)\n"
        "except Exception as error: print(type(error).__name__, peak() - before)"
    )
    argv = [sys.executable, "-c", program, str(path)]
    child = subprocess.run(argv, capture_output=True, text=True, check=True)
    kind, kilobytes = child.stdout.split()
    assert kind == "DataError"
    assert int(kilobytes) < 100_000


# What is wrong with a folder, and where the right one is


@pytest.mark.parametrize(
    ("tree", "inside", "message"),
    [
        (SPLIT_TREE, "trian", r"trian does not exist\. Did you mean 'train'\?"),
        (SPLIT_TREE, "none/at/all", r"There is no folder .*none/at either"),
        (below("pets", SPLIT_TREE), "", r"whole data sets.*: pets\..*Did you mean .*/pets\?"),
        ({"bin/data_batch_1.bin": b""}, "", r"whole data sets.*Did you mean .*/bin\?"),
        (below("pets", classes_of(a=1, b=1)), "", r"one class, 'pets'.*Did you mean .*/pets\?"),
        (SPLIT_TREE, "train/cat", r"3 images in no class.*Did you mean .*/train\?"),
        (classes_of(only=3), "", r"one class, 'only', and at least two are needed"),
        ({**SPLIT_TREE, "train/empty/": b""}, "", r"no training images of empty\."),
        ({"a.csv": b"", "b/c.csv": b"", "d": b""}, "", r"but 2 \.csv, 1 without a suffix files"),
        ({}, "", r"holds no images .* but no files"),
        (below("val", classes_of(a=1, b=1)), "", r"validation images but no folder 'train'"),
        (
            {**below("train", classes_of(a=2, b=2)), "val/ILSVRC2012_val_1.JPEG": picture()},
            "",
            r"/val has 1 image, none of them in the folder of a class.*val_annotations",
        ),
        (
            {**below("train", classes_of(a=2, b=2)), "val/images/val_1.JPEG": picture()},
            "",
            r"/val has 1 image, none of them in the folder of a class",
        ),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, tree: Tree, inside: str, message: str) -> None:
    path = written(tmp_path, tree) / inside
    with pytest.raises(DataError, match=message):
        open_data(path, 4)


def test_images_that_belong_to_no_class_are_noted(tmp_path: Path) -> None:
    tree = {
        **SPLIT_TREE,
        "train/stray.png": picture(),
        "val/stray.png": picture(),
        "val/stray2.png": picture(),
    }
    assert open_data(written(tmp_path, tree), 4).notes == (
        "Left out beside the class folders: 1 image.",
        "Left out beside the folders of val: 2 images.",
    )


def test_test_folder_without_answers_is_left_out(tmp_path: Path) -> None:
    tree = {**below("train", classes_of(a=2, b=2)), "test/1.png": picture()}
    dataset = open_data(written(tmp_path, tree), 4)
    assert "folder test is left out" in dataset.notes[0]
    assert len(labelled(dataset.val, dataset)) == 2


def test_val_beside_the_given_train_folder_is_noted(tmp_path: Path) -> None:
    written(tmp_path, SPLIT_TREE)
    dataset = open_data(tmp_path / "train", 4)
    assert (
        dataset.notes[0] == f"{tmp_path / 'val'} is not used. To validate on it, give {tmp_path}."
    )


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(picture())
    with pytest.raises(DataError, match=r"a\.zip is not a folder, nor a \.zip or \.tar"):
        open_data(tmp_path / "a.zip", 4)


# Hold-out


@pytest.mark.parametrize(("count", "held"), [(1, 0), (2, 1), (10, 1), (19, 1), (20, 2), (95, 9)])
def test_a_tenth_of_each_class_is_held_out(tmp_path: Path, count: int, held: int) -> None:
    dataset = open_data(written(tmp_path, classes_of(many=count, few=2)), 4)
    assert dataset.val is not None
    train, val = labelled(dataset.train, dataset), labelled(dataset.val, dataset)
    assert sum(name == "many" for name in val.values()) == held
    assert sum(name == "many" for name in train.values()) == count - held
    assert not set(train) & set(val)
    assert "held out" in dataset.notes[0]


def test_hold_out_depends_on_seed_and_names_alone(tmp_path: Path) -> None:
    tree = classes_of(a=40, b=40)

    def held(path: Path, seed: int) -> set[str]:
        dataset = open_data(path, 4, seed=seed)
        return {name for name in labelled(dataset.val, dataset) if name.startswith("a/")}

    folder = written(tmp_path / "folder", tree)
    backwards = dict(reversed(list(tree.items())))
    assert held(folder, 1) == held(folder, 1) == held(zipped(tmp_path / "x.zip", backwards), 1)
    assert held(folder, 1) != held(folder, 2)
    other = written(tmp_path / "other", {**classes_of(a=40), **classes_of(c=7)})
    assert held(folder, 1) == held(other, 1)


def test_nothing_to_hold_out(tmp_path: Path) -> None:
    dataset = open_data(written(tmp_path, classes_of(a=1, b=1)), 4)
    assert dataset.val is None
    assert "no validation images" in dataset.notes[0]
    everything = open_data(written(tmp_path / "x", classes_of(a=9, b=9)), 4, hold_out=False)
    assert everything.val is None
    assert len(everything.train.labels) == 18


# With the classes of a checkpoint


def test_labels_are_indices_into_the_given_classes(tmp_path: Path) -> None:
    known = ("dog", "emu", "cat")
    dataset = open_data(written(tmp_path, SPLIT_TREE), 4, classes=known)
    assert dataset.classes == known
    assert dataset.train.labels.tolist() == [2, 2, 2, 0, 0]
    assert dataset.val is not None
    assert dataset.val.labels.tolist() == [2, 0, 0]
    assert dataset.notes == (
        "There are no training images of emu.",
        "There are no validation images of emu.",
    )


def test_unknown_classes_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, SPLIT_TREE)
    with pytest.raises(DataError, match=r"not trained on: dog\. It knows cat, emu\."):
        open_data(path, 4, classes=("cat", "emu"))


def test_only_validation_images(tmp_path: Path) -> None:
    path = written(tmp_path, below("val", classes_of(b=2)))
    dataset = open_data(path, 4, classes=("a", "b"))
    assert dataset.train.labels.tolist() == []
    assert dataset.val is not None
    assert dataset.val.labels.tolist() == [1, 1]


# Archives

PACKERS: dict[str, Callable[[Path, Tree], Path]] = {
    "folder": written,
    "zip": zipped,
    "tar": tarred,
    "tar.gz": lambda path, tree: tarred(path, tree, "w:gz"),
    "tar.bz2": lambda path, tree: tarred(path, tree, "w:bz2"),
    "tar.xz": lambda path, tree: tarred(path, tree, "w:xz"),
}


def _everything(dataset: Dataset) -> list[tuple[str, int, bytes]]:
    return [
        (split.names[i], int(split.labels[i]), split.read(i).tobytes())
        for split in (dataset.train, dataset.val)
        if split
        for i in range(len(split.labels))
    ]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("packer", list(PACKERS)[1:])
def test_archives_equal_the_folder(tmp_path: Path, packer: str, wrapped: bool) -> None:
    expected = _everything(open_data(written(tmp_path / "folder", TINY), 4))
    tree = below("tiny-imagenet-200", TINY) if wrapped else TINY
    path = PACKERS[packer](tmp_path / "data", tree)  # recognised without a suffix
    assert _everything(open_data(path, 4)) == expected


def test_two_top_folders_in_an_archive(tmp_path: Path) -> None:
    tree = {**below("cifar10", SPLIT_TREE), **below("pets", SPLIT_TREE)}
    with pytest.raises(DataError, match=r"whole data sets, .*: cifar10, pets"):
        open_data(zipped(tmp_path / "two.zip", tree), 4)


NASTY = ("../../evil/x.png", "a/../../x.png", "/abs/../x.png", ".hidden/x.png", "__MACOSX/x.png")


@pytest.mark.parametrize("packer", ["zip", "tar"])
def test_members_that_lead_out_are_ignored(tmp_path: Path, packer: str) -> None:
    tree = {**{name: picture() for name in NASTY}, **below("./x", SPLIT_TREE)}
    inside = tmp_path / "deep" / "er"
    inside.mkdir(parents=True)
    storage = open_storage(PACKERS[packer](inside / "data", tree))
    assert list(storage.files) == sorted(SPLIT_TREE)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["data", "deep", "er"]


def test_links_and_devices_in_a_tar(tmp_path: Path) -> None:
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as archive:
        whole = tarfile.TarInfo("a/1.png")
        whole.size = 5
        archive.addfile(whole, io.BytesIO(b"first"))
        archive.addfile(whole, io.BytesIO(b"again"))  # a later member replaces an earlier one
        for name, kind, target in [
            ("a/hard.png", tarfile.LNKTYPE, "a/1.png"),
            ("a/outside.png", tarfile.LNKTYPE, "/etc/passwd"),
            ("a/soft.png", tarfile.SYMTYPE, "/etc/passwd"),
            ("a/device.png", tarfile.CHRTYPE, ""),
            ("a/pipe.png", tarfile.FIFOTYPE, ""),
        ]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
        archive.addfile(tarfile.TarInfo("b.txt"))
    storage = open_storage(path)
    assert storage.files == ("a/1.png", "a/hard.png", "b.txt")
    assert storage.read("a/1.png") == storage.read("a/hard.png") == b"again"


def test_links_in_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        link = zipfile.ZipInfo("a/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a/real.png", b"")
        archive.writestr("b/", b"")
    storage = open_storage(tmp_path / "x.zip")
    assert storage.files == ("a/real.png",)
    assert storage.folders == {"a", "b"}


def test_links_in_a_folder_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    real = written(tmp_path / "real", {"1.png": picture(), "deep/2.png": picture()})
    (real / "deep" / "up").symlink_to(real)
    data = written(tmp_path / "data", {"other/1.png": picture()})
    (data / "linked").symlink_to(real)
    (data / "broken.png").symlink_to(tmp_path / "gone")
    os.mkfifo(data / "other" / "pipe.png")
    storage = open_storage(data)
    assert storage.files == ("broken.png", "linked/1.png", "linked/deep/2.png", "other/1.png")
    with pytest.raises(DataError, match=r"broken\.png cannot be read: No such file"):
        storage.read("broken.png")


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    tree = below("train", {f"{name}/1.png": picture(3), "tea/1.png": b"no image"})
    paths = [tarred(tmp_path / "x.tar", tree), written(tmp_path / "folder", tree)]
    for path in paths:
        dataset = open_data(path, 4)
        assert dataset.classes == ("caf\\udce9", "tea")
        assert dataset.train.names[0] == "train/caf\\udce9/1.png"
        assert np.all(dataset.train.read(0) == 3)


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    tree = {f"{label}/{number}.png": picture(number) for label in "ab" for number in range(20)}
    tar = tarred(tmp_path / "x.tar", tree).read_bytes()
    packed = gzip.compress(tar)
    whole = zipped(tmp_path / "x.zip", tree).read_bytes()
    header = bytearray(tar)
    header[10 * 1024 : 10 * 1024 + 50] = b"?" * 50  # the header of the eleventh member
    for name, content in {
        "cut.tar": tar[:3000],
        "header.tar": bytes(header),
        "cut.tar.gz": packed[: len(packed) // 2],
        "junk.tar.gz": b"\x1f\x8bjunk",
        "junk.tar.bz2": b"BZhjunk",
        "cut.zip": whole[: len(whole) // 2],
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            open_storage(tmp_path / name)


def test_zips_that_python_cannot_list_are_refused(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "x.zip", {"a/ü.png": picture(), "b/1.png": picture()}).read_bytes()
    entry = whole.index(b"PK\x01\x02")
    later, no_text = bytearray(whole), bytearray(whole)
    later[entry + 6] = 99  # the version of zip that is needed: 9.9
    no_text[entry + 46 : entry + 54] = b"\xff" * 8  # a name that is said to be UTF-8
    for content, reason in ((later, "version 9.9"), (no_text, "can't decode")):
        (tmp_path / "x.zip").write_bytes(content)
        with pytest.raises(DataError, match=rf"x\.zip is not a folder.*{reason}"):
            open_storage(tmp_path / "x.zip")


def test_damaged_and_encrypted_members_are_named(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a/1.png": b"0123456789", "b/1.png": b""})
    content = path.read_bytes()
    path.write_bytes(content.replace(b"0123456789", b"0123456780"))
    with pytest.raises(DataError, match=r"a/1\.png in .*x\.zip cannot be read: Bad CRC"):
        open_storage(path).read("a/1.png")
    encrypted = bytearray(content)
    for start in (content.index(b"PK\x03\x04") + 6, content.index(b"PK\x01\x02") + 8):
        encrypted[start] |= 1
    path.write_bytes(bytes(encrypted))
    with pytest.raises(DataError, match=r"a/1\.png in .*is encrypted"):
        open_storage(path).read("a/1.png")


def test_what_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives_module, "UNPACKED_LIMIT", 5000)
    tree = {"a/big.png": bytes(6000), "b/small.png": b""}
    with pytest.raises(DataError, match=r"Unpack it first \(gunzip"):
        open_storage(tarred(tmp_path / "x.tar.gz", tree, "w:gz"))
    assert len(open_storage(tarred(tmp_path / "x.tar", tree)).read("a/big.png")) == 6000
    with pytest.raises(DataError, match=r"a/big\.png in .* would unpack to 6,000 bytes"):
        open_storage(zipped(tmp_path / "x.zip", tree)).read("a/big.png")


@pytest.mark.parametrize("packer", PACKERS)
def test_threads_read_what_one_reads(tmp_path: Path, packer: str) -> None:
    tree = {f"{number % 3}/{number}": os.urandom(3000) for number in range(60)}
    storage = open_storage(PACKERS[packer](tmp_path / "data", tree))
    wrong: list[str] = []

    def read_all() -> None:
        wrong.extend(name for name in storage.files * 3 if storage.read(name) != tree[name])

    threads = [threading.Thread(target=read_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_nothing_of_the_user_is_changed(tmp_path: Path) -> None:
    folder = written(tmp_path / "folder", {**SPLIT_TREE, "train/cat/broken.png": b"text"})
    archive = zipped(tmp_path / "x.zip", SPLIT_TREE)

    def state() -> list[tuple[str, int, str]]:
        return [
            (str(path), path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
            for path in sorted(tmp_path.rglob("*"))
            if path.is_file()
        ]

    before = state()
    _everything(open_data(archive, 4))
    with pytest.raises(DataError, match=r"folder/train/cat/broken\.png is damaged"):
        _everything(open_data(folder, 4))
    assert state() == before


# Order and batches


class Numbers:
    """A Split of flat images: image i shows i. Counts its reads and fails at `broken`."""

    def __init__(self, count: int, broken: int = -1) -> None:
        self.labels = np.arange(count, dtype=np.int32)
        self.names: Sequence[str] = [str(number) for number in range(count)]
        self.reads: list[int] = []
        self.broken = broken

    def read(self, index: int) -> Pixels:
        self.reads.append(index)
        if index == self.broken:
            raise DataError(f"image {index} is broken")
        return np.full((2, 2, 3), index, np.uint8)


def decoders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


@given(st.integers(0, 2**40), st.integers(0, 1000), st.integers(0, 200))
def test_epoch_order_is_a_permutation_and_a_function(seed: int, epoch: int, count: int) -> None:
    order = epoch_order(seed, epoch, count)
    assert sorted(order) == list(range(count))
    assert np.array_equal(order, epoch_order(seed, epoch, count))


def test_epoch_orders_differ() -> None:
    orders = [epoch_order(seed, epoch, 50).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(orders.count(order) == 1 for order in orders)


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@given(data=st.data())
def test_batches_do_not_depend_on_workers(workers: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 30))
    batch_size = data.draw(st.integers(1, 12))
    start = data.draw(st.integers(0, 4))
    order = epoch_order(3, 0, count)
    split = Numbers(count)
    got = list(batches(split, order, batch_size, start=start, workers=workers))
    assert [batch.labels.tolist() for batch in got] == [
        order[first : first + batch_size].tolist()
        for first in range(start * batch_size, count, batch_size)
    ]
    for batch in got:
        assert batch.images.dtype == np.uint8
        assert batch.labels.dtype == np.int32
        assert batch.images.shape == (len(batch.labels), 2, 2, 3)
        assert np.array_equal(batch.images[:, 1, 0, 2], batch.labels)
        assert batch.waited >= 0
    assert set(split.reads) == set(order[start * batch_size :].tolist())
    assert decoders() == []


def _batch_digest(dataset: Dataset, workers: int) -> str:
    order = epoch_order(0, 1, len(dataset.train.labels))
    digest = hashlib.sha256()
    for batch in batches(dataset.train, order, 7, workers=workers):
        digest.update(batch.images.tobytes() + batch.labels.tobytes())
    return digest.hexdigest()


def test_batches_of_files_are_the_same_from_any_worker(tmp_path: Path) -> None:
    tree = {
        f"{label}/{number}.jpg": encoded(_bars(20 + number, 30), "JPEG")
        for label in "abc"
        for number in range(12)
    }
    paths = [written(tmp_path / "folder", tree), zipped(tmp_path / "x.zip", tree)]
    digests = {
        _batch_digest(open_data(path, 16), workers) for path in paths for workers in (0, 1, 2, 5)
    }
    assert len(digests) == 1


@pytest.mark.parametrize("workers", [1, 3])
def test_closing_early_leaves_no_threads(workers: int) -> None:
    split = Numbers(1000)
    iterator = batches(split, np.arange(1000), 10, workers=workers)
    next(iterator)
    assert decoders() != []
    iterator.close()  # type: ignore[attr-defined]
    assert decoders() == []
    reads = len(split.reads)
    assert reads <= 1 + 4 * 10  # the batch that was used and those ahead, not the epoch


def test_a_slow_image_does_not_keep_the_others_waiting_to_stop() -> None:
    gate = threading.Event()

    class Slow(Numbers):
        def read(self, index: int) -> Pixels:
            if index >= 10:
                gate.wait(10)
            return super().read(index)

    split = Slow(100)
    iterator = batches(split, np.arange(100), 10, workers=2)
    next(iterator)
    threading.Timer(0.3, gate.set).start()
    iterator.close()  # type: ignore[attr-defined]
    assert decoders() == []
    assert len([index for index in split.reads if index >= 10]) <= 2  # one for each worker


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_an_error_comes_at_its_batch_and_ends_all(workers: int) -> None:
    split = Numbers(100, broken=25)
    iterator = batches(split, np.arange(100), 10, workers=workers)
    assert [next(iterator).labels[0] for _ in range(2)] == [0, 10]
    with pytest.raises(DataError, match="image 25 is broken"):
        next(iterator)
    assert decoders() == []
    assert max(split.reads) < 50
    with pytest.raises(StopIteration):
        next(iterator)


# In memory


def test_kept_images_are_decoded_once() -> None:
    split = Numbers(20)
    kept = keep_in_memory(split, 2)
    for epoch in range(3):
        for batch in batches(kept, epoch_order(0, epoch, 20), 8, workers=3):
            assert np.array_equal(batch.images[:, 0, 0, 0], batch.labels)
    assert sorted(set(split.reads)) == list(range(20))
    reads = len(split.reads)
    list(batches(kept, np.arange(20), 8, workers=3))
    assert len(split.reads) == reads
    assert kept.names == split.names
    with pytest.raises(ValueError, match="read-only"):
        kept.read(0)[...] = 0


def test_only_what_fits_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    split = Numbers(20)
    monkeypatch.setattr(batches_module, "KEEP_BYTES", 20 * 2 * 2 * 3)
    assert isinstance(keep_in_memory(split, 2), Kept)
    monkeypatch.setattr(batches_module, "KEEP_BYTES", 20 * 2 * 2 * 3 - 1)
    assert not isinstance(keep_in_memory(split, 2), Kept)


# Mean and colour


class Given:
    def __init__(self, images: Pixels) -> None:
        self.images = images
        self.labels = np.zeros(len(images), np.int32)
        self.names: Sequence[str] = [""] * len(images)

    def read(self, index: int) -> Pixels:
        image: Pixels = self.images[index]
        return image


def test_mean_and_colour_against_numpy() -> None:
    images = np.random.default_rng(0).integers(0, 256, (70, 5, 5, 3), dtype=np.uint8)
    images[..., 1] //= 3
    images[..., 2] = images[..., 0] // 2 + images[..., 2] // 8
    progress: list[int] = []
    mean, colour = mean_and_colour(Given(images), 5, seed=0, workers=2, progress=progress.append)
    assert sum(progress) == 70
    assert mean.dtype == colour.dtype == np.float32
    np.testing.assert_allclose(mean, images.mean(axis=0), rtol=1e-6)
    covariance = np.cov(images.reshape(-1, 3).T.astype(float), bias=True)
    np.testing.assert_allclose(colour @ colour.T, covariance, rtol=1e-4, atol=1e-2)
    scales = np.linalg.norm(colour, axis=0)
    assert scales[0] > scales[1] > scales[2]
    assert np.all(colour.max(axis=0) == abs(colour).max(axis=0))
    again = mean_and_colour(Given(images), 5, seed=0, workers=0)
    assert np.array_equal(again[0], mean)
    assert np.array_equal(again[1], colour)


def test_the_colour_of_large_bright_images_is_exact() -> None:
    images = np.random.default_rng(0).integers(253, 256, (2, 600, 600, 3), dtype=np.uint8)
    images[..., 1] //= 2
    _, colour = mean_and_colour(Given(images), 600, seed=0, workers=0)
    covariance = np.cov(images.reshape(-1, 3).T.astype(float), bias=True)
    np.testing.assert_allclose(colour @ colour.T, covariance, rtol=1e-5, atol=1e-6)


def test_mean_of_a_sample_is_drawn_by_seed() -> None:
    images = np.arange(200, dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 3), np.uint8)

    def mean(seed: int, limit: int) -> float:
        found, _ = mean_and_colour(Given(images), 2, seed=seed, workers=1, limit=limit)
        return float(found[0, 0, 0])

    assert mean(0, 200) == 99.5
    assert mean(0, 50) == mean(0, 50) != mean(1, 50)
    assert abs(mean(0, 50) - 99.5) < 30


def test_grey_images_have_one_colour_direction() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (9, 3, 3, 1), dtype=np.uint8)
    _, colour = mean_and_colour(Given(grey.repeat(3, axis=3)), 3, seed=0, workers=0)
    np.testing.assert_allclose(colour[:, 0], grey.astype(float).std(), rtol=1e-5)
    np.testing.assert_allclose(colour[:, 1:], 0, atol=1e-4)


# The real ones


@pytest.mark.parametrize(
    ("name", "size", "train", "val", "title"),
    [
        ("cifar10", 32, 50_000, 10_000, "airplane"),
        ("tiny-imagenet-50", 64, 25_000, 2_500, "goldfish"),
        ("imagenet-sample-160", 256, 160, 0, "goldfish"),
    ],
)
def test_real_archives(name: str, size: int, train: int, val: int, title: str) -> None:
    path = REAL / f"{name}.zip"
    if not path.exists():
        pytest.skip(f"needs {name}.zip in ../shared/data beside the checkout")
    dataset = open_data(path, size)
    assert len(dataset.train.labels) == train
    assert (len(dataset.val.labels) if dataset.val else 0) == val
    assert dataset.titles[0] == title
    assert isinstance(dataset.train, Images)
    batch = next(batches(dataset.train, epoch_order(0, 0, train), 16, workers=2))
    assert batch.images.shape == (16, size, size, 3)
    assert batch.images.std() > 20
