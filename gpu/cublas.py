"""cuBLAS through ctypes: a handle on one stream, and its product.

CuPy's wrappers refuse to run while a CUDA graph is captured, and convert or copy the operands of
batched products.
"""

from __future__ import annotations

import ctypes
from typing import Any

from tinyalex.backend import Array
from tinyalex.errors import TinyalexError

N, T = 0, 1  # cublasOperation_t: as stored, transposed
FLOAT32 = 0  # cudaDataType_t: CUDA_R_32F
# cublasComputeType_t on float32 operands: plain, rounded to TF32, rounded to bfloat16.
COMPUTE = {"fp32": 68, "tf32": 77, "bf16": 75}
DEFAULT_ALGORITHM = -1
WORKSPACE_BYTES = 32 << 20  # what cuBLAS asks for on a Hopper GPU; fixed, so that a graph finds it

Operand = tuple[Array, int, int]
"""An array, its leading dimension, and the elements from one matrix of the batch to the next."""


class Cublas:
    """A cuBLAS handle on one stream of the current device.

    workspace: WORKSPACE_BYTES of the device's memory, ours so that it outlives a captured graph.
    Setting the stream would reset it, so it is set last.
    """

    def __init__(self, stream: int, workspace: Array, precision: str) -> None:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        self.workspace, self.compute = workspace, COMPUTE[precision]
        self.library = ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)
        self.library.cublasGetStatusString.restype = ctypes.c_char_p
        i, l, p = ctypes.c_int, ctypes.c_longlong, ctypes.c_void_p
        matrix: tuple[Any, ...] = (p, i, i, l)
        self.library.cublasGemmStridedBatchedEx.argtypes = (
            *(p, i, i, i, i, i, p, *matrix, *matrix),
            *(p, *matrix, i, i, i),
        )
        self.library.cublasSetWorkspace_v2.argtypes = [p, p, ctypes.c_size_t]
        self.library.cublasSetStream_v2.argtypes = [p, p]
        self.handle = p()
        try:
            self.call("cublasCreate_v2", ctypes.byref(self.handle))
        except RuntimeError as error:
            raise TinyalexError(
                f"cuBLAS does not start: {error}. If the GPU's memory is full, nvidia-smi shows by "
                "whom."
            ) from None
        self.call("cublasSetStream_v2", self.handle, stream)
        self.call("cublasSetWorkspace_v2", self.handle, workspace.data.ptr, WORKSPACE_BYTES)
        self.one, self.zero = ctypes.c_float(1), ctypes.c_float(0)

    def call(self, name: str, *arguments: Any) -> None:
        status = getattr(self.library, name)(*arguments)
        if status:
            message = self.library.cublasGetStatusString(status).decode()
            raise RuntimeError(f"{name} failed: {message} ({status})")

    def gemm(
        self,
        op_a: int,
        op_b: int,
        m: int,
        n: int,
        k: int,
        a: Operand,
        b: Operand,
        c: Operand,
        batch: int,
    ) -> None:
        """C = op(A) op(B), the arguments as in `tinyalex.gpu.gemm.gemm`."""

        def matrix(operand: Operand) -> tuple[int, int, int, int]:
            array, ld, stride = operand
            return array.data.ptr, FLOAT32, ld, stride

        self.call(
            "cublasGemmStridedBatchedEx",
            *(self.handle, op_a, op_b, m, n, k),
            *(ctypes.byref(self.one), *matrix(a), *matrix(b)),
            *(ctypes.byref(self.zero), *matrix(c)),
            *(batch, self.compute, DEFAULT_ALGORITHM),
        )
