"""The page of `tinyalex reproduce all`: every experiment in one file that needs no other."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from tinyalex.errors import TinyalexError, WriteError
from tinyalex.reproduce.experiment import Experiment, Request
from tinyalex.system.files import remedy, write_whole
from tinyalex.system.version import __version__

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

INTRODUCTION = """\
In 2012 the network called AlexNet won the ImageNet challenge, and its paper gave reasons for each
of its parts. Here are its experiments once more, at a size for a laptop or one GPU: what the paper
found, what was found here, and with what. Where a network was trained from several seeds, the
spread between them is told, because a difference that is smaller than it says nothing."""

OUT_OF_REACH = (
    "The errors that made the paper known, 40.7 % top-1 and 18.2 % top-5 for one network over ten "
    "views (section 6), are those of ImageNet: 1.2 million training images, for which one has to "
    "ask, and no smaller set of images stands in for them. Who has them can train the same network "
    "with tinyalex train --arch 2012 --data FOLDER and test it with tinyalex eval RUN --crops 10.",
    "15.3 % top-5 error, with which the challenge was won, is the mean of seven networks. Two of "
    "them had learned the 22,000 classes of all of ImageNet in 2011, 15 million images, with a "
    "sixth convolution above the others, before they were trained on the 1,000. Those images are "
    "out of reach even of most who have the others. Five networks without them, 16.4 %, are within "
    "it: tinyalex eval averages all runs that it is given.",
)


def write_page(
    experiments: Iterable[Experiment], failed: Mapping[str, TinyalexError], request: Request
) -> Path:
    """index.html in the folder of the results, from the files that `write` left there.

    failed: the errors of the experiments that have no results.
    """
    path = request.folder / "index.html"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page(experiments, failed, request).encode())
    except OSError as error:
        raise WriteError(
            f"Cannot write {path}: {error.strerror}. {remedy(error)} Or choose another folder "
            "with --output-dir."
        ) from None
    return path


def page(
    experiments: Iterable[Experiment], failed: Mapping[str, TinyalexError], request: Request
) -> str:
    """The page as HTML: no scripts, and nothing that is not in it."""
    contents, sections = [], []
    for experiment in experiments:
        error = failed.get(experiment.name)
        link = f'<a href="#{escape(experiment.name)}">{escape(experiment.title)}</a>'
        contents.append(f"<li>{link}{' (no result)' if error else ''}</li>")
        body = (
            f"<p><b>The paper:</b> {escape(experiment.paper)}</p>\n"
            f"<p><b>No result here:</b> {escape(str(error))}</p>"
            if error
            else result(request.folder / experiment.name)
        )
        sections.append(
            f'<section id="{escape(experiment.name)}">\n<h2>{escape(experiment.title)}</h2>\n'
            f"{body}\n</section>"
        )
    out_of_reach = "\n".join(f"<p>{escape(text)}</p>" for text in OUT_OF_REACH)
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>The experiments of AlexNet</title>
<style>{STYLE}</style>
</head>
<body>
<h1>The experiments of AlexNet</h1>
<p>{escape(INTRODUCTION)}</p>
<p class="fine">tinyalex {escape(__version__)}, tinyalex reproduce all, {escape(request.date)}</p>
<nav aria-label="Contents">
<ol>
{chr(10).join(contents)}
<li><a href="#out-of-reach">What is out of reach</a></li>
</ol>
</nav>
{chr(10).join(sections)}
<section id="out-of-reach">
<h2>What is out of reach</h2>
{out_of_reach}
</section>
</body>
</html>
"""


def result(folder: Path) -> str:
    """What an experiment left: its figure, the paper's sentence, its own, and its table."""
    found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    png = base64.b64encode((folder / "figure.png").read_bytes()).decode()
    alt = f"Figure: {found['title']} What it shows is said and listed below."
    remark = f"\n<p>{escape(found['remark'])}</p>" if found["remark"] else ""
    return f"""\
<figure tabindex="0"><img alt="{escape(alt)}" src="data:image/png;base64,{png}"></figure>
<p><b>The paper:</b> {escape(found["paper"])}</p>
<p><b>Here:</b> {escape(found["found"])}</p>
{table(found["columns"], found["rows"])}
<p class="fine">{escape(found["setting"])}. Alone: tinyalex reproduce {escape(found["name"])}</p>\
{remark}"""


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of numbers stand on the right; a table too wide for the page scrolls by itself."""
    numbers = [all(NUMBER.match(c) for c in cells if c) for cells in zip(*rows, strict=True)]

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
        '<div class="table" tabindex="0" role="region" aria-label="Table">\n'
        f"<table>\n<thead>\n{head}\n</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )
