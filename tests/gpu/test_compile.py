"""Every kernel compiles for GPUs that are not here, without double arithmetic and without spills.

`python -m pytest tests/test_compile.py -s` shows how many registers each takes.
"""

import json
import os
import subprocess
import sys

import offline
import pytest

pathfinder = pytest.importorskip(
    "cuda.pathfinder", reason="no compiler for GPUs: pip install 'numba-cuda[cu13]'"
)

MAY_DROP_NAN = {"loss.lane_kernel", "loss.image_kernel"}
"""Whose maximum leaves a NaN out; the sum that follows lets it in again."""


@pytest.fixture(scope="module")
def compiled_kernels():
    """What became of each kernel, compiled in another process."""
    for library in ("nvvm", "nvJitLink"):
        try:
            pathfinder.load_nvidia_dynamic_lib(library)
        except pathfinder.DynamicLibNotFoundError:
            pytest.skip(f"{library} is not installed: pip install 'numba-cuda[cu13]'")
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}
    child = subprocess.run(
        [sys.executable, offline.__file__], env=environment, capture_output=True, text=True
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


def test_every_kernel_is_kept_under_a_name_of_its_own():
    """By which Numba names the index of what it has compiled, and a profiler the launches."""
    names = [kernel.loop((2, (3, 4))).__qualname__ for _, kernel in offline.kernels()]
    assert len(set(names)) == len(names)
    assert len(
        {
            kernel.loop(sizes).__qualname__
            for _, kernel in offline.kernels()
            for sizes in ((), (1,), (2, (3, 4)))
        }
    ) == 3 * len(names)


@pytest.mark.slow
def test_kernels_compile_to_single_precision_in_registers(compiled_kernels):
    for kernel in compiled_kernels:
        print("{kernel:36} {arch} {registers:4} registers".format(**kernel))
    assert len(compiled_kernels) == len(offline.SIZES) * len(offline.ARCHITECTURES)
    for kernel in compiled_kernels:
        assert not kernel["double"], f"{kernel} computes in double precision"
        assert kernel["stack"] == kernel["spilled"] == 0, f"{kernel} does not fit into registers"
        assert kernel["kernel"] in MAY_DROP_NAN or not kernel["drops_nan"], (
            f"{kernel} takes a maximum or minimum that leaves a NaN out"
        )


@pytest.mark.slow
def test_a_launch_gives_what_the_machine_code_takes(compiled_kernels):
    """Pointers and numbers in the order of Numba's tuples, each as wide as its parameter."""
    for kernel in compiled_kernels:
        assert kernel["taken"] == kernel["given"], kernel
        assert len(kernel["given"]) > 1


INSTRUCTIONS = {
    "conv.col2im_kernel": 180,
    "conv.relu_col2im_kernel": 190,
    "lrn.lrn_backward_kernel": 240,
    "pool.lrn_max_pool_backward_kernel": 700,
}
"""At most, of those kernels that compute more than they move."""


@pytest.mark.slow
def test_kernels_that_compute_have_few_instructions(compiled_kernels):
    for kernel in compiled_kernels:
        print("{kernel:36} {arch} {instructions:4} instructions".format(**kernel))
        assert kernel["instructions"] <= INSTRUCTIONS.get(kernel["kernel"], 1000), kernel


@pytest.mark.slow
def test_columns_are_read_three_at_once(compiled_kernels):
    """Before one of them is stored, and before any branch on whether it is wanted."""
    found = [k["in_flight"] for k in compiled_kernels if k["kernel"] == "conv.im2col_kernel"]
    assert min(found) >= 3
