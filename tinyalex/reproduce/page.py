"""The page of `tinyalex reproduce all`: every experiment in one file that needs no other."""

import json
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

from tinyalex.errors import TinyalexError
from tinyalex.figures.markup import data_uri, document, table
from tinyalex.ranks.team import join
from tinyalex.reproduce.experiment import Experiment, Request, write_text
from tinyalex.system.version import __version__

TITLE = "The experiments of AlexNet"

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
    if join().first:
        write_text(path, page(experiments, failed, request))
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
    body = f"""\
<h1>{TITLE}</h1>
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
</section>"""
    return document(TITLE, body)


def result(folder: Path) -> str:
    """Section on an experiment: its figure, the paper's sentence, its own, and its table."""
    saved = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    png = data_uri((folder / "figure.png").read_bytes(), "png")
    alt = f"Figure: {saved['title']} What it shows is said and listed below."
    remark = f"\n<p>{escape(saved['remark'])}</p>" if saved["remark"] else ""
    return f"""\
<figure tabindex="0"><img alt="{escape(alt)}" src="{png}"></figure>
<p><b>The paper:</b> {escape(saved["paper"])}</p>
<p><b>Here:</b> {escape(saved["found"])}</p>
{table(saved["columns"], saved["rows"])}
<p class="fine">{escape(saved["setting"])}. Alone: tinyalex reproduce {escape(saved["name"])}</p>\
{remark}"""
