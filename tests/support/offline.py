"""Compiles every kernel for GPUs that are not here, and prints what became of it, as JSON.

Run in a process of its own: under NUMBA_ENABLE_CUDASIM, which the other tests need where there is
no GPU, nothing compiles.
"""

import importlib
import json
import pkgutil
import re
import sys
from ctypes import c_float, c_int32
from types import ModuleType, SimpleNamespace

ARCHITECTURES = [(8, 0), (9, 0)]

POOL1 = (55, 55, 96, 27, 27, 3, 2)
CONV2 = (27, 27, 2, 48, 27, 27, 5, 5, 1, 2, 1204)

SIZES = {
    "activation.dropout_kernel": (),
    "activation.relu_backward_kernel": (),
    "activation.relu_kernel": (),
    "activation.scale_kernel": (),
    "activation.tanh_backward_kernel": (),
    "activation.tanh_kernel": (),
    "augment.augment_kernel": (256, 227),
    "bias.bias_kernel": (256,),
    "bias.bias_relu_kernel": (256,),
    "bias.relu_sums_kernel": (256,),
    "bias.sums_kernel": (256,),
    "conv.augment_strips_kernel": (256, 227, 55, 11, 4, 0, 228),
    "conv.col2im_kernel": (CONV2,),
    "conv.im2col_kernel": (1, CONV2),
    "conv.narrow_kernel": (363, 364),
    "conv.narrow_strips_kernel": (55, 96, 11, 11, 376),
    "conv.relu_col2im_kernel": (CONV2,),
    "conv.widen_kernel": (363, 364),
    "conv.widen_strips_kernel": (11, 11, 376),
    "linear.bias_relu_dropout_kernel": (4096,),
    "loss.image_kernel": (1000,),
    "loss.lane_kernel": (1000,),
    "loss.mean_kernel": (),
    "loss.softmax_backward_kernel": (1000,),
    "lrn.lrn_backward_kernel": ((48, 5),),
    "lrn.lrn_kernel": ((48, 5),),
    "lrn.lrn_map_backward_kernel": ((55, 55, 96, 5),),
    "lrn.lrn_map_kernel": ((55, 55, 96, 5),),
    "pool.avg_pool_backward_kernel": (POOL1,),
    "pool.avg_pool_kernel": (POOL1,),
    "pool.lrn_max_pool_backward_kernel": (48, 5, 1, POOL1),
    "pool.lrn_max_pool_kernel": (48, 5, 1, POOL1),
    "pool.max_pool_backward_kernel": (POOL1,),
    "pool.max_pool_kernel": (1, POOL1),
    "pool.relu_max_pool_backward_kernel": (POOL1,),
    "sgd.sgd_kernel": (),
}
"""What each kernel is compiled for: the sizes of a layer of AlexNet."""

RUNS = {"sgd.sgd_kernel": 16}
"""Calls in one launch, where it is not one: AlexNet's parameters."""


def kernels():
    """Every kernel of the GPU backend, as file.name."""
    from tinyalex import gpu
    from tinyalex.gpu.launch import kernel

    for file in pkgutil.iter_modules(gpu.__path__):
        module = importlib.import_module(f"tinyalex.gpu.{file.name}")
        for name, value in vars(module).items():
            if isinstance(value, kernel) and value.work.__module__ == module.__name__:
                yield f"{file.name}.{name}", value


class Pointer:
    """Stands for an array of any kind."""

    def __init__(self, kind):
        self.dtype, self.size = launch.DTYPES[kind], 5
        self.flags, self.data = SimpleNamespace(c_contiguous=True), SimpleNamespace(ptr=1 << 40)


def arguments(kernel, sizes):
    """Some for a kernel, of the right kinds."""
    own = kernel.kinds[: len(kernel.kinds) - kernel.sizes]
    numbers = {"float": 0.5, "Count": 3}
    return [*(numbers[k] if k in numbers else Pointer(k) for k in own), *sizes]


def compile_kernel(name, kernel, architecture):
    """What stands in the PTX, and what the linker says of the machine code."""
    from cuda.core import Linker, LinkerOptions, ObjectCode
    from numba import cuda
    from numba.cuda import dispatcher

    # Numba asks the GPU what it can do when a kernel calls functions of its own.
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=architecture)
    sizes = SIZES[name]
    loop, signature = kernel.loop(sizes), kernel.signature(RUNS.get(name, 1))
    ptx, _ = cuda.compile(loop, signature, device=False, abi="numba", cc=architecture, output="ptx")
    ptx = ptx.decode() if isinstance(ptx, bytes) else ptx
    accesses = "".join(re.findall(r"\b([ls])[dt]\.global", ptx))  # loads and stores
    count = RUNS.get(name, 1)
    (entry,) = re.findall(r"\.entry \w+\((.*?)\)", ptx, re.DOTALL)
    launch.how = "gpu"
    _, row = kernel.in_a_row(((7, kernel.checked(arguments(kernel, sizes))),) * count)
    given = [{c_int32: "32", c_float: "32", int: "64"}[type(value)] for value in row]
    arch = "sm_{}{}".format(*architecture)
    options = LinkerOptions(arch=arch, verbose=True, ptxas_options=["-v"])
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=options)
    linker.link("cubin")
    log = linker.get_info_log()
    memory = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes", log)
    stack, stored, loaded = map(int, memory.groups())
    return {
        "kernel": name,
        "arch": arch,
        "instructions": len(re.findall(r"^\t(?!\.|//).*;$", ptx, re.MULTILINE)),
        "in_flight": max(map(len, re.findall("l+", accesses)), default=0),
        "given": given,
        "taken": re.findall(r"\.param \.[a-z](\d+)", entry),
        "registers": int(re.search(r"Used (\d+) registers", log)[1]),
        "stack": stack,
        "spilled": stored + loaded,
        "double": ".f64" in ptx,
        "drops_nan": bool(re.search(r"\b(max|min)\.(ftz\.)?f32", ptx)),
    }


if __name__ == "__main__":
    sys.modules["cupy"] = ModuleType("cupy")  # nothing here has an array
    from tinyalex.gpu import launch

    found = [compile_kernel(*pair, a) for pair in kernels() for a in ARCHITECTURES]
    json.dump(found, sys.stdout)
