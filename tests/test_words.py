"""Docstrings begin with a noun, or with a verb in the imperative."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PRONOUNS = "Its It That Those These This They Their Who Whose"
PREPOSITIONS = "About As At Beside Between By For From In Of On Under Upon With Without"
QUESTIONS = "How What When Where Whether Which Why"
THIRD_PERSON = (
    "Adds Appends Asks Builds Checks Closes Computes Converts Creates Cuts Decodes Deletes Ends "
    "Finds Gives Goes Joins Judges Keeps Lets Loads Locks Makes Moves Opens Packs Prints Raises "
    "Reads Removes Returns Saves Says Searches Sets Takes Tells Trains Tries Turns Unfolds Waits "
    "Watches Writes Zeroes"
)
DENIED = {*PRONOUNS.split(), *PREPOSITIONS.split(), *QUESTIONS.split(), *THIRD_PERSON.split()}
FILES = [
    path for top in ("tinyalex", "reference", "gpu") for path in sorted((ROOT / top).rglob("*.py"))
]


def ill_begun(source: str) -> list[str]:
    """The docstrings in a file that begin with a denied word, with their lines."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    begun = []
    for node in ast.walk(ast.parse(source)):
        text = ast.get_docstring(node) if isinstance(node, kinds) else None
        if text and (text.split()[0].strip(",:.") in DENIED or text.startswith("The same")):
            begun.append(f"{getattr(node, 'lineno', 1)}: {text.splitlines()[0]}")
    return begun


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_begin_with_a_noun_or_an_imperative(file):
    assert ill_begun(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text", ["Of two arrays.", "The same, faster.", "Where, in x, y is.", "Raises an error."]
)
def test_a_denied_word_is_seen(text):
    assert ill_begun(f'def f():\n    """{text}"""\n') == [f"1: {text}"]
    assert ill_begun(f'def f():\n    """Return it. {text}"""\n') == []
