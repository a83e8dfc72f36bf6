"""HTML of pages that are one file: their style, tables and pictures."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Container, Sequence
from html import escape

from PIL import Image

from tinyalex.data.dataset import Pixels
from tinyalex.errors import printable
from tinyalex.figures.canvas import GENERATOR

SMALL, LARGEST = 64, 160  # pixels: up to which a picture stays as it is, and to which it shrinks
NUMBER = re.compile(r"[-+−]?\.?\d")  # how a cell begins that stands on the right

STYLE = """
:root { color-scheme: light dark; --text: #22272e; --pale: #5b636d; --rule: #d5d9de;
  --page: #fff; --link: #1f4e79; }
@media (prefers-color-scheme: dark) {
  :root { --text: #dde2e8; --pale: #a3acb7; --rule: #3b434d; --page: #16191d; --link: #8fbce6; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem clamp(1rem, 4vw, 3rem) 4rem;
  font: 1rem/1.55 system-ui, sans-serif; color: var(--text); background: var(--page);
  overflow-wrap: break-word; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 1rem 0; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 0 0 1rem; }
a { color: var(--link); }
p, ul, ol { max-width: 44rem; }
section { border-top: 1px solid var(--rule); margin-top: 2.5rem; padding-top: 1.5rem; }
figure { margin: 0 0 1.25rem; overflow-x: auto; border-radius: 6px; }
img { display: block; width: 100%; min-width: 42rem; height: auto; background: #fff; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--rule); }
thead th { vertical-align: bottom; min-width: 5rem; }
tbody th { font-weight: normal; min-width: 7rem; }
td { min-width: 6rem; }
.number { text-align: right; }
td.number { white-space: nowrap; }
.fine { color: var(--pale); font-size: .9rem; }
@page { margin: 15mm; }
@media print {
  :root { --text: #000; --pale: #444; --rule: #bbb; --page: #fff; --link: #000; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  h2 { break-after: avoid; }
  figure, tr { break-inside: avoid; }
  figure, .table { overflow: visible; }
  img { min-width: 0; }
}
"""


def document(title: str, body: str, style: str = "") -> str:
    """A whole page: no scripts, and nothing that is not in it. body: HTML."""
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{GENERATOR.decode()}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<style>{STYLE}{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def text(words: str) -> str:
    """Text from anywhere as HTML shows it, control characters as escapes."""
    return escape(printable(words))


def picture(pixels: Pixels, alt: str, whole: bool = False) -> str:
    """An image of uint8 (h, w, 3): a small one or a `whole` one as it is, others as small JPEGs."""
    image, file = Image.fromarray(pixels), io.BytesIO()
    kind = "png" if whole or max(image.size) <= SMALL else "jpeg"
    if kind == "jpeg":
        image.thumbnail((LARGEST, LARGEST))
    image.save(file, kind, quality=85)
    width, height = image.size
    return (
        f'<img alt="{text(alt)}" width="{width}" height="{height}" '
        f'src="{data_uri(file.getvalue(), kind)}">'
    )


def data_uri(content: bytes, kind: str) -> str:
    """The bytes of an image file as an address."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], names: Container[str] = ()) -> str:
    """Columns of numbers stand on the right; a table too wide for the page scrolls by itself.

    names: columns of words, though they may begin with a number.
    """
    numbers = [
        column not in names and all(NUMBER.match(c) for c in cells if c)
        for column, *cells in zip(columns, *rows, strict=True)
    ]

    def line(texts: Sequence[str], tags: Sequence[str]) -> str:
        classes = ["", *(' class="number"' if number else "" for number in numbers[1:])]
        cells = (
            f"<{tag}{kind}>{escape(text)}</{tag[:2]}>"
            for text, tag, kind in zip(texts, tags, classes, strict=True)
        )
        return f"<tr>{''.join(cells)}</tr>"

    head = line(columns, ['th scope="col"'] * len(columns))
    body = "\n".join(line(row, ['th scope="row"', *["td"] * (len(row) - 1)]) for row in rows)
    return (
        '<div class="table" tabindex="0" role="group" aria-label="Table">\n'
        f"<table>\n<thead>\n{head}\n</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )
