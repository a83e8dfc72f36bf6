"""What the tests of the GPU's kernels share: other ways to run them, and mistakes made in them."""

import random
import sys
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from unittest import mock

import checks
import fusions
import numpy as np
import offline
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tinyalex import gpu, reference
from tinyalex.gpu import device, launch
from tinyalex.net.layers import KINDS

# Not as attributes of tinyalex.gpu, among which `linear`, say, is a function.
MODULES = [
    import_module(f"tinyalex.gpu.{file}")
    for file in sorted({name.partition(".")[0] for name, _ in offline.kernels()})
]
"""Every file of gpu/ that has a kernel."""

PRODUCTS = ["augment", "conv2d", "linear"]
OTHERS = [kind for kind in KINDS if kind not in PRODUCTS and hasattr(gpu, kind)]
"""The kinds of layers that test_agreement_conv.py judges, and those of test_agreement_layers.py.

What tinyalex.gpu does not have, test_completeness.py asks for."""


def backend(modules, names):
    """The functions of these names from the modules; all else is the reference's."""
    functions = {"asarray": device.asarray, "to_numpy": device.to_numpy}
    for name in names:
        [functions[name]] = {f for module in modules if (f := vars(module).get(name))}
    return fusions.with_fusions(reference, **functions)


LOOPS = pytest.mark.skipif(
    not device.SIMULATOR, reason="a kernel's work is plain Python in the simulator only"
)


def in_order(order):
    """Launches that run the work in plain Python, for the indices order(count)."""

    def each(kernel, calls):
        for count, *arguments in calls:
            checked = kernel.checked(arguments)
            for i in order(count):
                kernel.work(np.int32(i), *checked)

    return mock.patch.object(launch.kernel, "each", each)


def results_in_every_order(compute):
    """compute() with indices that run forwards, backwards and shuffled."""
    for order in (range, lambda count: reversed(range(count)), shuffled):
        with in_order(order):
            yield compute()


def shuffled(count):
    return random.Random(0).sample(range(count), count)


@contextmanager
def compilations():
    """The kernels that are asked for, each with the sizes it would be compiled for; none runs."""
    seen = set()

    def each(kernel, calls):
        for call in calls:
            seen.add((kernel.__name__, *call[len(call) - kernel.sizes :]))

    with mock.patch.object(launch.kernel, "each", each):
        yield seen


class Mutation(NamedTuple):
    """In gpu/<file>.py the text old, which stands there once, becomes new; op then disagrees."""

    op: str
    file: str
    old: str
    new: str


def every_mutation(mutations):
    """Runs a test with each of them."""
    names = [f"{m.file}-{m.op}-{m.new[:40]!r}" for m in mutations]
    return pytest.mark.parametrize("mutation", mutations, ids=names)


def mutated(mutation):
    """Copies of the MODULES, with the mistake in one of them if any; no file is changed."""
    copies = []
    with mock.patch.dict(sys.modules):
        for module in MODULES:
            path, copy = Path(module.__file__), ModuleType(module.__name__)
            source = path.read_text(encoding="utf-8")
            if mutation and path.stem == mutation.file:
                assert source.count(mutation.old) == 1, "the mistake has to have one place"
                source = source.replace(mutation.old, mutation.new)
            sys.modules[module.__name__] = copy
            exec(compile(source, path, "exec"), copy.__dict__)
            copies.append(copy)
    return copies


def assert_noticed(compare, drawn: st.SearchStrategy):
    """Asserts that compare() fails on something drawn."""
    search = settings(
        max_examples=200,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )
    # A wrong index may also leave the array, which a GPU would not say.
    with (
        in_order(range),
        pytest.raises((AssertionError, IndexError), match=r"beyond|not equal|out of bounds"),
    ):
        search(given(drawn)(compare))()


def agree(ops, truth):
    """The comparison of two backends in float32, as a function of the call."""
    return lambda call: checks.agree(ops, truth, call, np.float32)
