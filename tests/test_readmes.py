"""The READMEs and what lies beside them: every file that they name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (".github", "examples", "findings", "gpu", "reference", "tests", "tinyalex")
PAGES = sorted([*ROOT.glob("*.md"), *(p for name in FOLDERS for p in (ROOT / name).rglob("*.md"))])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_files_that_are_there(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)", text)
    paths = re.findall(r"`([\w.]+(?:/[\w.]+)+\.(?:py|md|sh|png))`", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [p for p in paths if not any((at / p).exists() for at in (page.parent, ROOT))]
    placeholders = [path for path in missing if re.search(r"/[A-Z]+\.", path)]
    assert missing == placeholders
