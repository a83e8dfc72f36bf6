"""What the reference asks of the system's memory."""

import subprocess
import sys

import pytest

STEPS = """
import platform, resource
from tinyalex.net.presets import get_architecture
from tinyalex.system.backends import get_backend
from tinyalex.bench.workload import Work, reference_calls
work = Work.of(get_architecture("cifar-18pct"), 512)  # the largest array has 64 MiB
step = reference_calls(work, get_backend("reference"))["training"]
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF)
step()
after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_minflt - before.ru_minflt, platform.libc_ver()[0] or "another")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="this is about the allocator of Linux")
def test_a_step_uses_the_memory_of_the_one_before_it():
    """Page by page, what the system clears for it: one array alone would be 32 pages at least."""
    child = subprocess.run(
        [sys.executable, "-c", STEPS], capture_output=True, text=True, check=True
    )
    faults, libc = child.stdout.split()
    if libc != "glibc":
        pytest.skip(f"{libc} keeps memory, or not, in its own way")
    assert int(faults) < 32
