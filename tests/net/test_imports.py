"""Imports run one way: no circle among the modules, those inside functions and by name included."""

from __future__ import annotations

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import tinyalex

BESIDE = ("reference", "gpu")


def modules() -> dict[str, Path]:
    """Every module of the product by its full name, and its file."""
    package, *beside = map(Path, tinyalex.__path__)  # in a checkout reference/ and gpu/ lie beside
    folders = [(package, package), *((at, at / name) for at in beside for name in BESIDE)]
    found = {}
    for root, folder in folders:
        for path in sorted(folder.rglob("*.py")):
            parts = ("tinyalex", *path.relative_to(root).with_suffix("").parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imported(tree: ast.Module, known: dict[str, Path]) -> set[str]:
    """The modules that a file imports anywhere, by a statement or by a text that is their name."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in known else node.module)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
    return names & known.keys()


def test_no_module_imports_itself_by_way_of_others():
    known = modules()
    assert {"tinyalex.gpu.device", "tinyalex.reference.conv", "tinyalex.net.step"} <= known.keys()
    graph = {n: imported(ast.parse(p.read_text("utf-8")), known) - {n} for n, p in known.items()}
    assert "tinyalex.gpu.two_gpu" in graph["tinyalex.system.backends"]
    order = list(TopologicalSorter(graph).static_order())  # CycleError names the circle
    assert len(order) == len(known)


def test_no_module_has_the_name_of_one_of_the_standard_library():
    names = {name.rpartition(".")[2] for name in modules()}
    assert not names & sys.stdlib_module_names
