"""Kinds of image files besides an RGB picture of its suffix, and how they are read."""

from pathlib import PurePosixPath

from PIL import Image

from tinyalex.data.decode import SUFFIX_FORMAT, opened, orientation, pillow_silent
from tinyalex.data.magic import HEAD, picture_format

ODDITIES = {
    "grey": "The value is taken for red, green and blue.",
    "16-bit": "Its 65,536 levels are scaled to 256.",
    "floating-point": "0 to 1 is scaled to 256 levels.",
    "CMYK": "Converted without a colour profile. For the true colours convert it to RGB.",
    "with a palette": "Converted to RGB.",
    "with transparency": "Laid on white.",
    "turned by EXIF": "Turned upright, as viewers do.",
    "animated or of several pages": "The first frame is taken.",
    "of another format than its suffix": "Read as what it is. Rename it to spare other programs.",
    "more than four times as long as wide": "The centre square shows little of it. Crop it.",
    "under 16 pixels": "Enlarged. Replace it by a larger picture.",
}


def oddities(data: bytes, name: str) -> list[str]:
    """The keys of ODDITIES that hold for an image file, from its header alone."""
    if not picture_format(data[:HEAD]):
        return []  # a record of CIFAR-10
    suffix = PurePosixPath(name).suffix.lower()
    with pillow_silent:
        image = opened(data, name)
        mode, short, long = image.mode, min(image.size), max(image.size)
        turned, several = orientation(image) != 1, _several_frames(image)
    holds = {
        "grey": mode in ("1", "L", "LA"),
        "16-bit": mode.startswith("I"),
        "floating-point": mode == "F",
        "CMYK": mode == "CMYK",
        "with a palette": mode in ("P", "PA"),
        "with transparency": mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info,
        "turned by EXIF": turned,
        "animated or of several pages": several,
        "of another format than its suffix": image.format
        not in (SUFFIX_FORMAT.get(suffix, image.format), "MPO"),
        "more than four times as long as wide": long > 4 * short,
        "under 16 pixels": short < 16,
    }
    return [what for what, true in holds.items() if true]


def _several_frames(image: Image.Image) -> bool:
    """True if a frame follows the first, which is the only one that must be sound."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # of a GIF the second is read to tell; damage surfaces as almost anything
        return True
