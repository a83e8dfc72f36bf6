"""The bytes of one image file -> one square RGB picture, uint8 (size, size, 3).

Every kind of file has one defined result:

    file (Pillow's mode)                     result
    RGB, RGBX, YCbCr, CMYK, HSV, LAB, P      Pillow's conversion to RGB
    1, L                                     the grey value three times
    16-bit grey (I;16, I)                    0..65535 scaled to 0..255 and rounded
    32-bit float grey (F)                    0..1 scaled to 0..255 and rounded
    I, F beyond those ranges, or NaN         refused: nobody can say what white is
    LA, PA, RGBA, or a transparent colour    laid on white, as a viewer shows it
    EXIF orientation                         applied, also to TIFF; broken EXIF counts as none
    animation, several pages                 the first frame
    truncated, empty, not an image           DataError
    AVIF, JPEG 2000, HEIC, JPEG XL           read where Pillow or a package beside it can

A JPEG is decoded at a half, a quarter or an eighth by libjpeg itself, as long as its short side
stays at least twice `size`: a photo of 12 megapixels takes a third of the time and a sixteenth of
the memory, and differs by a quarter of a grey level in the mean. (The older rule 1 did not.)

Then the centre square, as large as the picture allows, is resized to `size`, antialiased (bilinear,
its support widened by the scale). That is "short side to `size`, then centre crop" in one step, of
which no intermediate picture can become huge.
"""

import importlib
import io
import re
import struct
import threading
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageFile, UnidentifiedImageError

from tinyalex.data.jpeg import in_parts
from tinyalex.data.magic import HEAD, picture_format
from tinyalex.errors import DataError

# Named, so that no other of Pillow's readers meets a stranger's file: EPS would start Ghostscript.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# Formats that not every Pillow reads: by the name in `magic` the name of Pillow's reader, its
# module, and the package in which that is.
_MORE = {
    "AVIF": ("AVIF", "PIL.AvifImagePlugin", "pillow>=11.3"),
    "JPEG 2000": ("JPEG2000", "PIL.Jpeg2KImagePlugin", "pillow"),
    "HEIC": ("HEIF", "pillow_heif", "pillow-heif"),
    "JPEG XL": ("JXL", "pillow_jxl", "pillow-jxl-plugin"),
}
# Files so named are images; of those without a suffix the first bytes tell.
SUFFIX_FORMAT = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "JPEG"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".ppm", ".pgm"), "PPM"),
    **dict.fromkeys((".heic", ".heif"), "HEIF"),
    **dict.fromkeys((".jp2", ".j2k"), "JPEG2000"),
    **{f".{name.lower()}": name for name in ("PNG", "BMP", "GIF", "WEBP", "AVIF", "JXL")},
}
SUFFIXES = tuple(SUFFIX_FORMAT)
# Pillow takes 4 bytes a pixel, and as many again to turn or convert a picture; for a progressive
# JPEG some 10 in all, of CMYK 12, for WebP 16. So this limit is 512 MB, or 1 GB. Pillow refuses
# 179 million.
MAX_PIXELS = 64_000_000
RULE = 2  # by which pictures become pixels; packs and runs say theirs, and keep to it
STRIP = 2**18  # pixels that are converted at once, so that their copies take little memory

# The header of a frame: its length of 11 or 17 bytes, and the bits of a sample.
_TWELVE_BITS = re.compile(rb"\xff[\xc0-\xc2]\x00[\x0b\x11]\x0c")
_WHITE = {"I": 65535, "I;16": 65535, "I;16B": 65535, "I;16L": 65535, "I;16N": 65535, "F": 1}
_ALPHA = ("LA", "PA", "RGBA", "RGBa")
_PHOTOMETRIC = 0x0106  # the tag of TIFF; 0 means WhiteIsZero
_ORIENTATION = 0x0112  # the EXIF tag; 1 means upright
_TO_UPRIGHT: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(
    data: bytes,
    size: int,
    name: str,
    max_pixels: int | None = None,
    rule: int = RULE,
    strict: bool = False,
) -> npt.NDArray[np.uint8]:
    """The centre square of the image in `data`: uint8 (size, size, 3), RGB, read-only.

    name: what to call the image in an error.
    max_pixels: a larger picture is refused before its pixels are decoded; None is MAX_PIXELS.
    rule: 1 decodes JPEGs whole, as packs and runs of before were made; 2 see above.
    strict: refuse JPEGs too whose data are damaged and give some picture all the same.
    Raises DataError for whatever cannot be decoded completely.
    """
    if not data:
        raise DataError(f"{name} is empty (0 bytes). Remove it, or fetch it again.")
    try:
        with pillow_silent:
            image = opened(data, name)
            limit = MAX_PIXELS if max_pixels is None else max_pixels
            if image.width * image.height > limit:
                raise DataError(
                    f"{name} is {image.width} x {image.height} pixels, more than the limit of "
                    f"{limit:,}. Make it smaller, or raise the limit with --max-pixels, "
                    "which train, data pack and data check take."
                )
            parts = None
            if image.format in ("JPEG", "MPO"):
                if rule > 1:
                    image.draft(None, (2 * size, 2 * size))
                if strict and (parts := in_parts(data)):
                    cast(ImageFile.ImageFile, image).fp = cast(IO[bytes], parts)
            white_is_zero = _white_is_zero(image)
            image = _upright(image)  # under the same name, so that the one before is given back
            if parts and parts.fault:
                raise ValueError(f"it is damaged: {parts.fault}")
            return centre_square(_rgb(image, white_is_zero), size)
    except (DataError, MemoryError):
        raise
    except Image.DecompressionBombError as cause:
        raise DataError(f"{name} is too large: {cause} Make it smaller.") from cause
    except Exception as cause:  # damaged bytes surface from Pillow as almost anything
        remedy = "Remove it, or fetch it again."
        if "MAX_TEXT" in str(cause):  # Pillow's guard against texts that unpack to gigabytes
            remedy = "Remove it, or save it anew without the texts that are in it."
        raise DataError(
            f"{name} cannot be decoded: {cause or type(cause).__name__}. {remedy}"
        ) from cause


def decode_opened(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    """An image that Pillow has opened, as `decode` does it. Raises DataError."""
    try:
        with pillow_silent:
            white_is_zero = _white_is_zero(image)
            return centre_square(_rgb(_upright(image), white_is_zero), size)
    except Exception as cause:
        raise DataError(f"The image cannot be decoded: {cause or type(cause).__name__}.") from cause


def opened(data: bytes, name: str) -> Image.Image:
    """The image in `data`, of which no pixel is decoded yet.

    Raises DataError that names the format if it is none that can be read here.
    """
    kind = picture_format(data[:HEAD])
    formats = FORMATS
    if kind in _MORE:
        reader, module, package = _MORE[kind]
        try:
            register = getattr(importlib.import_module(module), "register_heif_opener", None)
        except ImportError:
            raise DataError(
                f"{name} is a picture in the format {kind}, which needs a package that is not "
                f"there: pip install '{package}'. Or convert it to JPEG or PNG."
            ) from None
        if register:  # other plugins do so when they are imported
            register()
        formats = (reader,)
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError as cause:
        if kind is None:
            what = f"damaged, or not an image in a format that is read here ({', '.join(FORMATS)})"
        elif kind in _MORE:
            what = f"{kind} that is damaged, or that this Pillow lacks ({_MORE[kind][2]} has it)"
        elif kind == "JPEG" and _TWELVE_BITS.search(data):
            what = "JPEG with 12 bits a colour, which Pillow does not read"
        elif kind.upper() in FORMATS:
            what = f"{kind} that is damaged in its header"
        else:
            what = f"{kind}, which is not read here ({', '.join(FORMATS)})"
        raise DataError(
            f"{name} is {what}. Remove it, fetch it again, or convert it to JPEG or PNG."
        ) from cause


@dataclass(frozen=True)
class Decoder:
    """`decode` with all that is the same for every picture of a data set."""

    size: int
    max_pixels: int | None = None
    rule: int = RULE
    strict: bool = False

    def __call__(self, data: bytes, name: str) -> npt.NDArray[np.uint8]:
        """The picture in `data`, the file `name`: uint8 (size, size, 3). Raises DataError."""
        return decode(data, self.size, name, self.max_pixels, self.rule, self.strict)

    def file(self, path: str) -> npt.NDArray[np.uint8]:
        """The picture in a file: uint8 (size, size, 3). Raises DataError."""
        try:
            data = Path(path).read_bytes()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise DataError(f"Cannot read the picture {path}: {reason}.") from None
        return self(data, path)


def centre_square(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    """The centre of an RGB image resized to uint8 (size, size, 3), read-only.

    The square lies on whole pixels, so that an image that has the right short side is not blurred.
    """
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    box = (left, top, left + short, top + short)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # first: PNG may carry its EXIF behind the pixels, and TIFF turns by itself
    turn = _TO_UPRIGHT.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def orientation(image: Image.Image) -> object:
    """EXIF orientation: 2 to 8 for a picture that is shown turned or mirrored."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except (SyntaxError, ValueError, struct.error):
        return 1


def _white_is_zero(image: Image.Image) -> bool:
    """True if a grey TIFF has its values the other way round, which Pillow minds up to 8 bits."""
    tags = getattr(image, "tag_v2", {})
    return image.mode in _WHITE and tags.get(_PHOTOMETRIC) == 0


def _rgb(image: Image.Image, white_is_zero: bool) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    whole = Image.new("RGB", image.size)
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        below = min(top + rows, image.height)
        strip = _converted(image.crop((0, top, image.width, below)))
        whole.paste(ImageChops.invert(strip) if white_is_zero else strip, (0, top))
    return whole


def _converted(image: Image.Image) -> Image.Image:
    white = _WHITE.get(image.mode)
    if white is not None:
        return Image.fromarray(_grey(np.asarray(image, np.float32), white)).convert("RGB")
    if image.mode in _ALPHA or "transparency" in image.info:
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _grey(values: npt.NDArray[np.float32], white: int) -> npt.NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= white:  # NaN fails too
        raise ValueError(f"it has values from {low:g} to {high:g}, not within 0 to {white}")
    grey: npt.NDArray[np.uint8] = np.rint(values * np.float32(255 / white)).astype(np.uint8)
    return grey


class _PillowSilent:
    """Keep Pillow's warnings (EXIF, size) to itself while any thread decodes.

    What matters about a file is its result or its DataError, whatever the warning filters are.
    `warnings.catch_warnings` swaps a list that all threads share, so that two threads inside it
    would undo each other: the first one in swaps it, the last one out swaps it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._swap = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._swap.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._swap.close()


pillow_silent = _PillowSilent()
