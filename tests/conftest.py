"""Hypothesis profiles, the order of the tests, and what stands in for a GPU where there is none.

`dev` is quick, `ci` looks harder; `--hypothesis-profile` chooses one.
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tinyalex.system import memory

# Numba reads this when it is imported, so asking Numba whether there is a GPU would be too late.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")
memory.keep_freed()  # networks of gigabytes come and go, and not all of them by `get_backend`
ON_GPU = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") == "0"

settings.register_profile("dev", max_examples=20, deadline=None)
# Other examples every time, which Hypothesis by itself would not draw in CI; the blob repeats them.
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=False, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture
def compiled(monkeypatch):
    """Kernels compiled, for the GPU or else for the CPU: layers of real size are no work then."""
    from tinyalex.gpu import device, launch
    from tinyalex.reference import threads

    # The reference, which they are compared with, takes 2.4 GB a thread for conv1's dx.
    monkeypatch.setattr(threads, "_cores", 1)
    if device.SIMULATOR:
        monkeypatch.setattr(launch, "how", "njit")


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups then
def pytest_collection_modifyitems(items):
    """Slow tests first, so that at the end no core waits for one; one core compiles for all."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    for item in items:
        if "compiled" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("compiled"))


def pytest_runtest_setup(item):
    """On a GPU, tests that draw thousands of sizes must not compile for each of them."""
    if ON_GPU:
        from tinyalex.gpu import launch

        launch.how = "gpu" if "compiled" in item.fixturenames else "general"


@pytest.fixture
def tell(record_property):
    """tell(line) puts a line of numbers under the test report, for what was counted to be seen."""
    return lambda line: record_property("tell", line)


def pytest_terminal_summary(terminalreporter):
    """The lines of `tell`; properties of a test come back from pytest-xdist's workers too."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, line in getattr(report, "user_properties", ()):
                if name == "tell" and report.when == "call":
                    test, *_ = report.nodeid.split("::")[-1].split("@")  # its group follows
                    terminalreporter.line(f"{test}: {line}")
