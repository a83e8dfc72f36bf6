"""Speed and memory of the reference, training and inferring, beside PyTorch.

Each system runs in a process of its own, because the threads of one would spin beside the other,
and the systems take turns, so that a machine whose speed drifts treats them alike. Ratios are taken
within a round.
"""

from __future__ import annotations

import itertools
import json
import shutil
import statistics
import subprocess
import sys
import time
import timeit
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from tinyalex.bench.layer_times import layer_times
from tinyalex.bench.workload import Work, peak_bytes, reference_calls, torch_calls
from tinyalex.errors import TinyalexError, UsageError
from tinyalex.net.presets import get_architecture
from tinyalex.ranks.ranks import Ranks
from tinyalex.ranks.team import join
from tinyalex.runs.config import Config
from tinyalex.runs.sharing import backend, shared_out
from tinyalex.system.backends import get_backend

REST = 0.3  # seconds between turns: idle BLAS and OpenMP threads spin so long
MODES = ("training", "inference")

TORCH: dict[str, Literal["module", "band"]] = {
    "torch, nn.LocalResponseNorm's method": "module",
    "torch, LRN as a 1x1 band convolution": "band",
}


def bench(
    arch: str, batch_size: int, rounds: int, against: str | None, ranks: int = 1
) -> dict[str, Any]:
    """Speed of training steps and of inference, interleaved, and of each layer of the reference.

    ranks: so many processes of the reference are measured too, if more than one. `training` and
    `inference`: see `_speeds`; what `training` holds stands at the top as well. `peak_bytes`: the
    most memory that each system's process had, of ranks the largest. `sent_bytes`: those of a
    rank in a training step. `layers`: see `layer_times`.
    """
    get_architecture(arch)  # raises UsageError here, not in each child
    if against == "torch" and not find_spec("torch"):
        raise UsageError(
            "--against torch needs PyTorch, which is not installed: pip install 'tinyalex[parity]'."
        )
    systems = ["reference", *(TORCH if against == "torch" else ())]
    if ranks > 1:
        systems.append(together := f"{ranks} ranks")
    children: dict[str, _Child] = {}
    seconds: dict[str, dict[str, list[float]]] = {m: {s: [] for s in systems} for m in MODES}
    try:
        for system in systems:
            children[system] = _Child(system, arch, batch_size)
        for _ in range(rounds):
            for mode in MODES:
                for system, child in children.items():
                    time.sleep(REST)
                    seconds[mode][system].append(child.ask(mode))
        peaks = {system: child.ask("peak") for system, child in children.items()}
        sent = children[together].ask("sent") if ranks > 1 else 0
        per_layer = children["reference"].ask("layers")
    finally:
        for child in children.values():
            child.end()
    speeds = {mode: _speeds(seconds[mode], batch_size) for mode in MODES}
    return {
        "architecture": arch,
        "batch_size": batch_size,
        "rounds": rounds,
        **speeds["training"],
        **speeds,
        "peak_bytes": peaks,
        "sent_bytes": sent,
        "layers": per_layer,
    }


def _speeds(seconds: Mapping[str, Sequence[float]], batch_size: int) -> dict[str, Any]:
    """Images a second, median, of each system; the first is the reference.

    With others: `torch` is the fastest of PyTorch's, `ratio` the median over the rounds of the
    reference's speed over its, `ratio_range` that of all rounds, `ratios` both for each.
    """
    reference, *others = seconds
    speed = {system: batch_size / statistics.median(s) for system, s in seconds.items()}
    speeds: dict[str, Any] = {"reference": speed[reference], "images_per_second": speed}
    if others:
        ratios = {}
        for system in others:
            pairs = zip(seconds[reference], seconds[system], strict=True)
            rounds = sorted(its / ours for ours, its in pairs)
            ratios[system] = rounds[0], statistics.median(rounds), rounds[-1]
        speeds["ratios"] = ratios
    if theirs := [system for system in others if not system.endswith(" ranks")]:
        fastest = max(theirs, key=speed.__getitem__)
        low, middle, high = ratios[fastest]
        speeds |= {"torch": speed[fastest], "torch_version": fastest, "ratio": middle}
        speeds |= {"ratio_range": (low, high)}
    return speeds


def table(result: Mapping[str, Any]) -> str:
    """Format what `bench` returns for people."""
    batch, rounds = result["batch_size"], result["rounds"]
    lines = [
        f"{result['architecture']}, batch {batch}: one training step of the reference",
        f"{'layer':<8} {'forward ms':>11} {'backward ms':>12} {'GFLOP/s':>8} {'products ms':>12} "
        f"{'share':>6}",
    ]
    for row in result["layers"]:
        products = row["products"]
        times = max(row["forward"] + row["backward"], products)  # measured apart, they may cross
        line = f"{row['name']:<8} {row['forward']:>11.1f} {row['backward']:>12.1f}"
        if products:
            line += f" {row['gflops']:8.0f} {products:>12.1f} {100 * products / times:>4.0f} %"
        lines.append(line)
    products = sum(row["products"] for row in result["layers"])
    lines.append(
        f"products: the layer's matrix products alone; in all {products:.0f} ms, which "
        f"would be {1e3 * batch / products:.1f} images a second"
    )
    for mode in MODES:
        lines += ["", f"{mode}, images a second, median of {rounds} rounds in turn:"]
        for system, speed in result[mode]["images_per_second"].items():
            line = f"  {system:<38} {speed:8.1f}"
            if ratio := result[mode].get("ratios", {}).get(system):
                low, middle, high = ratio
                line += f"   reference is {middle:.2f} x as fast ({low:.2f} to {high:.2f})"
            lines.append(line)
    lines += ["", "memory of the process at its highest:"]
    for system, n in result["peak_bytes"].items():
        lines.append(f"  {system:<38} " + (f"{n / 2**20:8.0f} MiB" if n else " unknown"))
    if sent := result.get("sent_bytes"):
        lines += ["", f"a rank sends {sent / 1e6:.2f} MB in a training step"]
    return "\n".join(lines)


def mpiexec() -> str:
    """The launcher beside this Python, or on the PATH. Raises UsageError if there is none."""
    found = shutil.which("mpiexec", path=str(Path(sys.executable).parent))
    if not (path := found or shutil.which("mpiexec")):
        raise UsageError("There is no mpiexec to start ranks with: pip install 'tinyalex[mpi]'.")
    return path


class _Child:
    """A system under test in a process that answers one JSON line to each word."""

    def __init__(self, system: str, arch: str, batch_size: int) -> None:
        begin = [mpiexec(), "-n", system.split()[0]] if system.endswith(" ranks") else []
        self.process = subprocess.Popen(
            [
                *begin,
                sys.executable,
                "-P",
                "-m",
                "tinyalex.bench.bench",
                system,
                arch,
                str(batch_size),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the parent, which ends its children
        )
        self.system = system
        try:
            for mode in MODES:
                self.ask(mode)  # the first time allocates and compiles
        except KeyboardInterrupt:  # nobody has it yet who could end it
            self.end()
            raise

    def ask(self, word: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; its error follows
        answer = self.process.stdout.readline()
        if not answer:
            code = self.process.wait()
            self.end()
            raise TinyalexError(
                f"The benchmark of {self.system!r} ended with code {code}; what it said of that "
                "stands above. If memory was short (code -9 too), try a smaller --batch-size."
            )
        return json.loads(answer)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def _serve(system: str, arch: str, batch_size: int) -> None:
    """The child's side: answers each word that comes in, with the seconds of a training step or an
    inference, with the peak of its memory, or with the times of the layers."""
    work, team = Work.of(get_architecture(arch), batch_size), join()
    ops = get_backend("reference")
    if system == "reference" or system.endswith(" ranks"):
        config = Config(batch_size=batch_size).resolved(work.architecture)
        ops = backend(ops, team, shared_out(config, work.architecture, team))
        calls = reference_calls(work, ops)
        sent = ops.sent if isinstance(ops, Ranks) else Counter[str]()
    else:
        calls = torch_calls(work, TORCH[system])

    def answer(word: str) -> Any:
        if word == "layers":
            return layer_times(work, ops)
        if word == "peak":
            return max(team.gather([peak_bytes()]))
        if word == "sent":
            before = sent.total()
            calls["training"]()
            return sent.total() - before
        calls[word]()  # not timed: after its rest the processor is slow, by a tenth, for a while
        team.agree(0)
        return max(team.gather([timeit.timeit(calls[word], number=1)]))

    words = iter(sys.stdin) if team.first else itertools.repeat("")
    while word := team.tell(team.first and next(words, "")):
        result = answer(word.strip())
        if team.first:
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    try:
        _serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    except MemoryError as error:
        sys.exit(f"not enough memory: {error}")
