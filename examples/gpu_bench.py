"""How fast whole training steps of `alexnet` are on this GPU, in under 5 minutes.

    python examples/gpu_bench.py

first holds each precision against the reference with `tinyalex compare`, and leaves out one that
differs. Then, at batch 128 and 1024, it times steps of the GPU backend in each precision and, where
PyTorch finds the GPU, of PyTorch: bfloat16 autocast, channels_last, cudnn.benchmark, fused SGD;
eager, as a CUDA graph, and last, as that may take a minute, compiled; each with its own
normalisation and with the faster one by a convolution. The systems take turns, each in a process of
its own; each turn is printed at once, each table when its turns are over. A step of ours is all of
one in `tinyalex train`: draws, upload, crops, and the loss and logits read back; PyTorch's images
lie cropped on the GPU, and it reads the loss only.

This script has not run on a GPU yet. Without one it says what is missing and exits with 2.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where tinyalex is not installed
os.environ["NUMBA_ENABLE_CUDASIM"] = "0"  # before Numba is imported, here and by the children

from tinyalex.bench.workload import COLOUR, RATE, Work
from tinyalex.net.draws import training_draws
from tinyalex.net.network import Network
from tinyalex.net.optimizer import SGD
from tinyalex.net.presets import get_architecture
from tinyalex.net.step import train_step
from tinyalex.system import doctor
from tinyalex.system.backends import get_backend

ROUNDS, SECONDS = 3, 1.0  # turns of each system, and what a turn may take
BATCHES = 128, 1024

# What an H200 computes and moves in a second. The floor of a step is what it takes if each product
# needs its arithmetic or its bytes, whichever is longer, and all else its bytes.
FLOPS = {"fp32": 60e12, "tf32": 400e12, "bf16": 790e12}
BANDWIDTH = 4.3e12
TORCH_FLOORS = {128: 1.34, 1024: 8.1}  # ms, in bfloat16, with no columns in memory


def our_step(work, precision):
    """A function that trains one step, and one that gives the memory back between turns."""
    import cupy

    ops, parameters = get_backend("gpu", (0,), precision), work.parameters()
    network = Network(work.architecture, ops, parameters, work.mean)
    sgd = SGD(network, work.architecture.recipe, {n: 0 * w for n, w in parameters.items()})

    def step():
        draws = training_draws(work.architecture, len(work.labels), COLOUR, 0, 0, 0)
        train_step(sgd, work.images, work.labels, draws, RATE)

    return step, cupy.get_default_memory_pool().free_all_blocks


def torch_step(work, how):
    """What `our_step` returns, of PyTorch, which has its own dropout."""
    import torch
    import torch.nn.functional as F

    from tinyalex.judge.torch_twin import Twin
    from tinyalex.net.layers import Dropout

    class TwinOnGPU(Twin):
        def apply(self, row, x, draws):
            if isinstance(row, Dropout):
                return F.dropout(x, row.rate)
            return super().apply(row, x, draws)

    torch.backends.cudnn.benchmark = True
    architecture, recipe = work.architecture, work.architecture.recipe
    how, form = how.split()
    twin = TwinOnGPU(architecture, work.parameters(), work.mean, form)
    x = twin.apply(architecture.rows[0], torch.from_numpy(work.images), work.draws)
    x = x.contiguous(memory_format=torch.channels_last).cuda()
    target = torch.from_numpy(work.labels).long().cuda()
    twin.parameters = {n: w.detach().cuda().requires_grad_() for n, w in twin.parameters.items()}
    decay = recipe.weight_decay
    sgd = torch.optim.SGD(
        twin.parameters.values(), RATE, recipe.momentum, weight_decay=decay, fused=True
    )
    forward = torch.compile(twin.logits, fullgraph=True) if how == "compile" else twin.logits

    def step():
        sgd.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            loss = F.cross_entropy(forward(x, work.draws), target)
        loss.backward()
        sgd.step()
        return loss

    if how != "graph":
        return lambda: step().item(), torch.cuda.empty_cache
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def replay():
        graph.replay()
        loss.item()

    return replay, torch.cuda.empty_cache


def serve(kind, how, batch):
    """A child: when it is ready, and for each line that comes in, it answers with a line.

    The answers are milliseconds of a step and what it asks of the GPU.
    """
    step, give_back = (our_step if kind == "ours" else torch_step)(
        Work.of(get_architecture("alexnet"), batch), how
    )
    print("ready", flush=True)
    for _ in sys.stdin:
        for _ in range(3):
            step()
        began, times = time.perf_counter(), []
        while len(times) < 3 or time.perf_counter() < began + SECONDS:
            at = time.perf_counter()
            step()
            times.append(1e3 * (time.perf_counter() - at))
        answer = {"ms": statistics.median(times)}
        answer |= asked(step, how) if kind == "ours" else {"floor": TORCH_FLOORS[batch]}
        give_back()
        print(json.dumps(answer), flush=True)


def asked(step, precision):
    """What a step asks of the GPU, and how long that takes at least."""
    from tinyalex.gpu import device

    with device.counting() as counts:
        step()
    words = (
        f"{counts.launches.total()} launches, {counts.bytes.total() / 1e9:.1f} GB, "
        f"{counts.allocations} allocations, {counts.waits} waits"
    )
    return {"asked": words, "floor": 1e3 * counts.floor(FLOPS[precision], BANDWIDTH)}


def measure(systems, batch):
    """The answers of each system that came to the end; what ended another it has said itself."""
    command = [sys.executable, __file__]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = {s: subprocess.Popen([*command, *s, str(batch)], **pipes) for s in systems}
    # Nobody's turn begins while another compiles.
    answers = {system: [] for system in systems if children[system].stdout.readline()}
    for _ in range(ROUNDS):
        for system in list(answers):
            with suppress(BrokenPipeError):  # it has ended, and answers nothing
                print("turn", file=children[system].stdin, flush=True)
            if answer := children[system].stdout.readline():
                print(batch, *system, answer.strip(), flush=True)
                answers[system].append(json.loads(answer))
            else:
                del answers[system]
    for child in children.values():
        child.kill()
        child.communicate()
    return answers


def row(kind, how, batch, answers):
    """A line of the table."""
    low, *_, high = ms = sorted(answer["ms"] for answer in answers)
    middle = statistics.median(ms)
    share = 100 * answers[0]["floor"] / middle
    speed = f"{middle:8.2f} ({low:.2f} to {high:.2f}) {1e3 * batch / middle:>9,.0f}"
    return (
        f"{batch:>5}  {kind:<6}{how:<15}{speed:<35} {share:>5.0f} %  {answers[0].get('asked', '')}"
    )


def agreeing():
    """The precisions in which the GPU backend agrees with the reference."""
    compare = ("-m", "tinyalex", "compare", "--backend", "gpu", "--arch", "alexnet", "-b", "8")
    for precision in FLOPS:
        print(f"=== compare {precision}", flush=True)
        command = [sys.executable, *compare, "--precision", precision]
        if subprocess.run(command, cwd=sys.path[0]).returncode:
            print(f"=== {precision} differs and is left out", flush=True)
        else:
            yield precision


def main():
    if missing := doctor.missing():
        print(doctor.report()[0])
        print(f"gpu_bench cannot run without {', '.join(missing)}.", file=sys.stderr)
        return 2
    ours = [("ours", precision) for precision in agreeing()]
    has_cuda = "import torch; torch.zeros(1).cuda(); print(torch.__version__, torch.version.cuda)"
    torch = subprocess.run([sys.executable, "-c", has_cuda], capture_output=True, text=True)
    query = "--query-gpu=name,driver_version,clocks.max.sm,power.limit"
    with suppress(OSError):  # where there is no nvidia-smi, the driver's version stays unsaid
        subprocess.run(["nvidia-smi", query, "--format=csv,noheader"])
    print(doctor.report()[0], f"torch: {torch.stdout.strip() or 'finds no GPU'}", "", sep="\n")

    def theirs(*hows):
        forms = [f"{how} {form}" for how in hows for form in ("module", "band")]
        return [("torch", how) for how in forms if torch.returncode == 0]

    what = "ms a step (range), images/s"
    for systems in (ours + theirs("eager", "graph"), ours[-1:] + theirs("compile")):
        for batch in BATCHES:
            answers = measure(systems, batch)
            print(f"{'batch':>5}  {'system':<21}{what:<35} {'floor':>7}  what a step asks for")
            print(*(row(*s, batch, a) for s, a in answers.items() if a), sep="\n", flush=True)
    return 0 if len(ours) == len(FLOPS) else 1


if __name__ == "__main__":
    sys.exit(serve(*sys.argv[1:3], int(sys.argv[3])) if sys.argv[1:] else main())
