"""Every matrix product of the GPU backend is one cuBLAS call, made here.

cuBLAS is column-major: element (r, c) of a matrix stands at r + c * ld. What NumPy calls a matrix
of [rows, cols] is to cuBLAS one of cols x rows, so the row-major product Y[M,N] = A[M,K] B[K,N] is
asked for as Y^T = B^T A^T, operands swapped. Without a GPU `interpret` reads the same arguments by
cuBLAS's rules and multiplies with NumPy.

cuBLAS is called through ctypes because CuPy's wrappers refuse to run while a CUDA graph is
captured, and convert or copy the operands of batched products.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from tinyalex.errors import TinyalexError
from tinyalex.gpu import device
from tinyalex.gpu.device import SIMULATOR, current, xp

Array = Any

N, T = 0, 1  # cublasOperation_t: as stored, transposed
FLOAT32 = 0  # cudaDataType_t: CUDA_R_32F
# cublasComputeType_t on float32 operands: plain, rounded to TF32, rounded to bfloat16.
COMPUTE = {"fp32": 68, "tf32": 77, "bf16": 75}
DEFAULT_ALGORITHM = -1
WORKSPACE_BYTES = 32 << 20  # what cuBLAS asks for on a Hopper GPU; fixed, so that a graph finds it


def rows_by_filters(col: Array, w: Array, y: Array, groups: int) -> None:
    """y = col w^T, group by group: the forward product of conv2d (groups of one: of linear).

    col: (rows, groups * kk). w: (groups * k, kk). y: (rows, groups * k): the groups' results side
    by side, and so NHWC.
    """
    rows, kk, k = len(col), w.shape[1], len(w) // groups
    gemm(T, N, k, rows, kk, (w, kk, k * kk), (col, groups * kk, kk), (y, groups * k, k), groups)


def weight_gradient(col: Array, dy: Array, dw: Array, groups: int) -> None:
    """dw = dy^T col, group by group. Shapes as in rows_by_filters."""
    rows, kk, k = len(col), dw.shape[1], len(dw) // groups
    gemm(N, T, kk, k, rows, (col, groups * kk, kk), (dy, groups * k, k), (dw, kk, k * kk), groups)


def column_gradient(dy: Array, w: Array, dcol: Array, groups: int) -> None:
    """dcol = dy w, group by group. Shapes as in rows_by_filters."""
    rows, kk, k = len(dcol), w.shape[1], len(w) // groups
    gemm(N, N, kk, rows, k, (w, kk, k * kk), (dy, groups * k, k), (dcol, groups * kk, kk), groups)


Operand = tuple[Array, int, int]
"""An array, its leading dimension, and the elements from one matrix of the batch to the next."""


def gemm(
    op_a: int, op_b: int, m: int, n: int, k: int, a: Operand, b: Operand, c: Operand, batch: int
) -> None:
    """C = op(A) op(B) for each matrix of the batch; op(A) is m x k, op(B) k x n, C m x n.

    The arguments are those of cublasGemmStridedBatchedEx. All arrays are float32.
    """
    for array, _, _ in (a, b, c):
        assert array.dtype == np.float32, f"gemm takes float32, not {array.dtype}"
        assert array.flags.c_contiguous, "gemm takes contiguous arrays"
    if device.counts:
        device.counts.launch("gemm", (a[0], b[0], c[0]))
    if SIMULATOR:
        interpret(op_a, op_b, m, n, k, a, b, c, batch)
    else:
        current().cublas.gemm(op_a, op_b, m, n, k, a, b, c, batch)


def interpret(
    op_a: int, op_b: int, m: int, n: int, k: int, a: Operand, b: Operand, c: Operand, batch: int
) -> None:
    """The twin of cublasGemmStridedBatchedEx: its rules checked, its sums done by NumPy."""

    def matrices(operand: Operand, op: int, rows: int, cols: int) -> Array:
        array, ld, stride = operand
        if op == T:
            rows, cols = cols, rows
        assert ld >= rows, f"leading dimension {ld} is less than {rows} rows"
        assert (batch - 1) * stride + (cols - 1) * ld + rows <= array.size, "beyond the end"
        shape, item = (batch, rows, cols), array.itemsize
        strides = (stride * item, item, ld * item)
        view = np.lib.stride_tricks.as_strided(array.reshape(-1), shape, strides)
        return view.swapaxes(1, 2) if op == T else view

    matrices(c, N, m, n)[...] = matrices(a, op_a, m, k) @ matrices(b, op_b, k, n)


class Cublas:
    """A cuBLAS handle on one stream of the current device.

    The workspace is our own, so that it outlives a captured graph. Setting the stream would reset
    it, so it is set last.
    """

    def __init__(self, stream: int, precision: str) -> None:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        self.compute = COMPUTE[precision]
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
        with device.room(WORKSPACE_BYTES):
            self.workspace = xp.empty(WORKSPACE_BYTES, np.uint8)
        try:
            self.call("cublasCreate_v2", ctypes.byref(self.handle))
        except RuntimeError as error:
            raise TinyalexError(
                f"cuBLAS does not start: {error}. If the GPU's memory is full, nvidia-smi shows by "
                "whom."
            ) from None
        self.call("cublasSetStream_v2", self.handle, stream)
        self.call("cublasSetWorkspace_v2", self.handle, self.workspace.data.ptr, WORKSPACE_BYTES)
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
        def matrix(operand: Operand) -> tuple[int, int, int, int]:
            array, ld, stride = operand
            return array.data.ptr, FLOAT32, ld, stride

        one, zero = ctypes.byref(self.one), ctypes.byref(self.zero)
        sizes = (self.handle, op_a, op_b, m, n, k)
        how = (batch, self.compute, DEFAULT_ALGORITHM)
        self.call(
            "cublasGemmStridedBatchedEx",
            *sizes,
            one,
            *matrix(a),
            *matrix(b),
            zero,
            *matrix(c),
            *how,
        )
