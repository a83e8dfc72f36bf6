"""Every matrix product of the GPU backend is one cuBLAS call, made here.

cuBLAS is column-major: element (r, c) of a matrix stands at r + c * ld. What NumPy calls a matrix
of [rows, cols] is to cuBLAS one of cols x rows, so the row-major product Y[M,N] = A[M,K] B[K,N] is
asked for as Y^T = B^T A^T, operands swapped. Without a GPU `interpret` reads the same arguments by
cuBLAS's rules and multiplies with NumPy.
"""

from __future__ import annotations

import numpy as np

from tinyalex.gpu.cublas import N, Operand, T
from tinyalex.gpu.device import SIMULATOR, Array, count_product, current


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


def windows_by_filters(strips: Array, w: Array, y: Array, step: int) -> None:
    """y[:, :, j] = strips[:, j step : j step + kk] w^T for each column j of y.

    strips: (N Ho, length), where neighbouring windows overlap. w: (O, kk). y: (N, Ho, Wo, O).
    """
    (rows, length), (O, kk), Wo = strips.shape, w.shape, y.shape[2]
    gemm(T, N, O, rows, kk, (w, kk, 0), (strips, length, step), (y, Wo * O, O), Wo)


def window_weight_gradients(strips: Array, dy: Array, parts: Array, step: int) -> None:
    """parts[j] = dy[:, :, j]^T strips[:, j step : j step + kk], whose sum over j is dw.

    parts: (Wo, O, kk). Other shapes as in windows_by_filters.
    """
    (rows, length), (Wo, O, kk) = strips.shape, parts.shape
    windows, dys = (strips, length, step), (dy, Wo * O, O)
    gemm(N, T, kk, O, rows, windows, dys, (parts, kk, O * kk), Wo)


def gemm(
    op_a: int, op_b: int, m: int, n: int, k: int, a: Operand, b: Operand, c: Operand, batch: int
) -> None:
    """C = op(A) op(B) for each matrix of the batch; op(A) is m x k, op(B) k x n, C m x n.

    The arguments are those of cublasGemmStridedBatchedEx. All arrays are float32.
    """
    for array, _, _ in (a, b, c):
        assert array.dtype == np.float32, f"gemm takes float32, not {array.dtype}"
        assert array.flags.c_contiguous, "gemm takes contiguous arrays"
    count_product(2 * m * n * k * batch, (a[0], b[0], c[0]))
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
