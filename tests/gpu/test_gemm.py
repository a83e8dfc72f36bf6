"""What is asked of cuBLAS: its arguments, read by its rules without a GPU, and the call in C."""

import ctypes
import sys
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import SEEDS, integers

from tinyalex.gpu import gemm
from tinyalex.gpu.cublas import Cublas

FORMULAS = {
    "rows_by_filters": "rgi,gki->rgk",  # y = col w^T
    "weight_gradient": "rgi,rgk->gki",  # dw = dy^T col
    "column_gradient": "rgk,gki->rgi",  # dcol = dy w
}
"""r: rows. g: groups; linear has one. i: inputs of a filter, k: filters of a group."""

every_product = pytest.mark.parametrize("product", FORMULAS)
SIZES = st.fixed_dictionaries(
    {"r": st.integers(1, 6), "g": st.integers(1, 3), "i": st.integers(1, 7), "k": st.integers(1, 5)}
)


class Product:
    """One of gemm.py's products on drawn operands, and the same by NumPy."""

    def __init__(self, name, sizes, seed=0):
        *factors, _ = self.terms = FORMULAS[name].replace("->", ",").split(",")
        rng = np.random.default_rng(seed)
        self.name, self.groups = name, sizes["g"]
        self.factors = [integers(rng, [sizes[letter] for letter in term]) for term in factors]
        self.expected = np.einsum(FORMULAS[name], *self.factors)

    def __call__(self):
        """The result for matrices as conv2d has them: groups side by side, those of w stacked."""
        result = np.full_like(self.expected, np.nan)
        arrays = zip((*self.factors, result), self.terms, strict=True)
        matrices = [
            a.reshape(len(a), -1) if term[0] == "r" else a.reshape(-1, a.shape[-1])
            for a, term in arrays
        ]
        getattr(gemm, self.name)(*matrices, self.groups)
        return result


@every_product
@given(sizes=SIZES, seed=SEEDS)
def test_the_arguments_ask_for_the_product(product, sizes, seed):
    product = Product(product, sizes, seed)
    with mock.patch.object(gemm, "gemm", gemm.interpret):
        np.testing.assert_array_equal(product(), product.expected)


ARGUMENTS = ["op_a", "op_b", "m", "n", "k", "a", "b", "c", "batch"]
MISTAKES = {
    "a not transposed as it should be": lambda g: g | {"op_a": 1 - g["op_a"]},
    "b not transposed as it should be": lambda g: g | {"op_b": 1 - g["op_b"]},
    "factors in NumPy's order": lambda g: g | {"a": g["b"], "b": g["a"]},
    "m and n swapped": lambda g: g | {"m": g["n"], "n": g["m"]},
    "m and k swapped": lambda g: g | {"m": g["k"], "k": g["m"]},
    "one group only": lambda g: g | {"batch": 1},
    "a group too many": lambda g: g | {"batch": g["batch"] + 1},
} | {
    f"{size} off by {off}": lambda g, size=size, off=off: g | {size: g[size] + off}
    for size in "mnk"
    for off in (-1, 1)
}
for operand in "abc":
    for field, place in (("leading dimension", 1), ("stride", 2)):
        for what, change in (("less", -1), ("more", 1), ("zero", None)):

            def mistake(g, operand=operand, place=place, change=change):
                changed = list(g[operand])
                changed[place] = 0 if change is None else changed[place] + change
                return g | {operand: tuple(changed)}

            MISTAKES[f"{field} of {operand} {what}"] = mistake


@every_product
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_argument_is_noticed(product, mistake):
    """By cuBLAS's rules or by the result."""
    product = Product(product, {"r": 6, "g": 2, "i": 5, "k": 4})

    def wrong(*arguments):
        right = dict(zip(ARGUMENTS, arguments, strict=True))
        gemm.interpret(**MISTAKES[mistake](right))

    with mock.patch.object(gemm, "gemm", wrong), pytest.raises((AssertionError, ValueError)):
        np.testing.assert_array_equal(product(), product.expected)


@pytest.mark.parametrize(
    "wrong", [np.zeros((6, 4)), np.zeros((4, 6), np.float32).T], ids=["float64", "not in rows"]
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_gemm_refuses_what_it_would_misread(place, wrong):
    matrices = [np.zeros(shape, np.float32) for shape in ((6, 4), (4, 4), (6, 4))]
    matrices[place] = wrong
    with pytest.raises(AssertionError, match="gemm takes"):
        gemm.rows_by_filters(*matrices, groups=1)


HEADER = """
cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n, int k,
const void* alpha,
const void* A, cudaDataType Atype, int lda, long long int strideA,
const void* B, cudaDataType Btype, int ldb, long long int strideB,
const void* beta,
void* C, cudaDataType Ctype, int ldc, long long int strideC,
int batchCount, cublasComputeType_t computeType, cublasGemmAlgo_t algo
"""
"""The parameters of cublasGemmStridedBatchedEx as cublas_api.h declares them."""

PARAMETERS = {
    name: kind for kind, name in (p.strip().rsplit(" ", 1) for p in HEADER.strip().split(","))
}
KINDS = dict.fromkeys(("cublasHandle_t", "const void*", "void*"), ctypes.c_void_p)
KINDS |= {"long long int": ctypes.c_longlong}
C_TYPES = [KINDS.get(kind, ctypes.c_int) for kind in PARAMETERS.values()]  # the others: enum, int


class Library:
    """In libcublas's place: functions in C that note their arguments and return `status`."""

    def __init__(self, status=0):
        self.status, self.calls = status, []
        prototype = ctypes.CFUNCTYPE(ctypes.c_int, *C_TYPES)
        self.cublasGemmStridedBatchedEx = prototype(self.product)
        for name in ("cublasCreate_v2", "cublasSetStream_v2", "cublasSetWorkspace_v2"):
            setattr(self, name, self.noting(name))
        self.cublasGetStatusString = self.noting("cublasGetStatusString", b"no such thing")

    def noting(self, name, result=0):
        def function(*arguments):
            self.calls.append((name, *arguments))
            return result

        return function

    def product(self, *values):
        call = dict(zip(PARAMETERS, values, strict=True))
        for factor in ("alpha", "beta"):
            call[factor] = ctypes.c_float.from_address(call[factor]).value
        self.calls.append(call)
        return self.status


def cublas(monkeypatch, library, precision="fp32"):
    """A Cublas on that library, with memory at address 64 for workspace."""
    found = SimpleNamespace(load_nvidia_dynamic_lib=lambda name: SimpleNamespace(abs_path=name))
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", found)
    monkeypatch.setattr(ctypes, "CDLL", {"cublas": library}.get)
    return Cublas(7, SimpleNamespace(data=SimpleNamespace(ptr=64)), precision)


def on_device(array):
    """An array as CuPy shows it."""
    return SimpleNamespace(data=SimpleNamespace(ptr=array.ctypes.data))


@every_product
def test_the_call_is_the_one_that_the_header_declares(monkeypatch, product):
    """What arrives in C, read by name, asks for the product."""
    library, arrays = Library(), {}
    handle = cublas(monkeypatch, library)
    product = Product(product, {"r": 6, "g": 2, "i": 5, "k": 4})

    def call(op_a, op_b, m, n, k, *operands):
        *operands, batch = operands
        arrays.update((array.ctypes.data, array) for array, _, _ in operands)
        handle.gemm(op_a, op_b, m, n, k, *((on_device(a), *rest) for a, *rest in operands), batch)
        c = library.calls[-1]
        a, b, result = (
            (arrays[c[x]], c[f"ld{x.lower()}"], c[f"stride{x}"]) for x in ("A", "B", "C")
        )
        gemm.interpret(c["transa"], c["transb"], c["m"], c["n"], c["k"], a, b, result, batch)

    with mock.patch.object(gemm, "gemm", call):
        np.testing.assert_array_equal(product(), product.expected)
    sent = library.calls[-1]
    assert sent["handle"] == handle.handle.value
    assert (sent["alpha"], sent["beta"], sent["batchCount"]) == (1, 0, 2)
    assert {sent[f"{x}type"] for x in "ABC"} == {0}, "CUDA_R_32F"
    assert sent["algo"] == -1, "CUBLAS_GEMM_DEFAULT"


def test_ctypes_knows_the_23_parameters(monkeypatch):
    handle = cublas(monkeypatch, Library())
    assert handle.library.cublasGemmStridedBatchedEx.argtypes == tuple(C_TYPES)
    assert len(C_TYPES) == 23


@pytest.mark.parametrize(
    ("precision", "compute"),
    [("fp32", 68), ("tf32", 77), ("bf16", 75)],  # CUBLAS_COMPUTE_32F, _32F_FAST_TF32, _16BF
)
def test_precision_is_how_cublas_multiplies(monkeypatch, precision, compute):
    library = Library()
    handle = cublas(monkeypatch, library, precision)
    operand = on_device(np.zeros((1, 1), np.float32)), 1, 1
    handle.gemm(0, 0, 1, 1, 1, operand, operand, operand, 1)
    assert library.calls[-1]["computeType"] == compute


def test_the_workspace_is_set_last(monkeypatch):
    """Setting the stream would reset it."""
    library = Library()
    handle = cublas(monkeypatch, library)
    create, *rest = library.calls
    assert create[0] == "cublasCreate_v2"
    assert rest == [
        ("cublasSetStream_v2", handle.handle, 7),
        ("cublasSetWorkspace_v2", handle.handle, 64, 32 * 2**20),
    ]


def test_an_error_of_cublas_is_raised(monkeypatch):
    handle = cublas(monkeypatch, Library(status=13))
    operand = on_device(np.zeros((1, 1), np.float32)), 1, 1
    with pytest.raises(RuntimeError, match=r"cublasGemmStridedBatchedEx.*no such thing \(13\)"):
        handle.gemm(0, 0, 1, 1, 1, operand, operand, operand, 1)
