"""The reference against two judges: naive loops over its formulas, and numerical gradients."""

import inspect
import os
import signal
import threading
import time
from unittest import mock

import checks
import naive
import numpy as np
import pytest
import small
import strategies
from hypothesis import given
from hypothesis import strategies as st
from strategies import apart, integers, reals
from threadpoolctl import threadpool_info

from tinyalex import reference
from tinyalex.backend import Backend
from tinyalex.judge import gradcheck
from tinyalex.net.layers import KINDS
from tinyalex.reference import threads

every_op = pytest.mark.parametrize("op", strategies.ARGUMENTS)
every_layer = pytest.mark.parametrize("op", [op for op in strategies.ARGUMENTS if op != "augment"])
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


# Whole, or cut into pieces, and these into runs of an image or of a few.
cuts = st.sampled_from([(1 << 20, 1 << 21), (1, 1), (1, 500)])


@every_op
@every_dtype
@given(data=st.data(), cut=cuts)
@pytest.mark.slow
def test_whole_numbers_give_what_the_formula_gives(op, dtype, data, cut):
    """Bit for bit, ties and kinks included."""
    with _cut(*cut):
        checks.agree(reference, naive, data.draw(strategies.calls(op, integers)), dtype)


@every_op
@every_dtype
@given(data=st.data(), cut=cuts)
@pytest.mark.slow
def test_real_numbers_give_what_the_formula_gives(op, dtype, data, cut):
    with _cut(*cut):
        checks.agree(reference, naive, data.draw(strategies.calls(op, reals)), dtype)


@every_layer
@given(data=st.data())
def test_how_an_array_lies_in_memory_changes_nothing(op, data):
    """Also where another program had the channels first."""
    call = data.draw(strategies.calls(op, integers))
    x, *others = call.arguments_as(np.float64)
    y, cache = getattr(reference, op)(x, *others)
    same, own_cache = getattr(reference, op)(np.asfortranarray(x), *others)
    dy = call.dy(y)
    expected = {"y": y, **checks.backward(reference, op, dy, cache)}
    actual = {"y": same, **checks.backward(reference, op, np.asfortranarray(dy), own_cache)}
    for tensor, right in expected.items():
        assert checks.relative(actual[tensor], right) <= checks.ORDER, tensor


@every_layer
@given(data=st.data())
def test_gradients_are_the_slopes(op, data):
    kind = KINDS.get(op)
    fill = apart if kind and kind.kinked else reals
    call = data.draw(strategies.calls(op, fill).filter(_not_saturated))
    arguments, rng = call.arguments_as(np.float64), np.random.default_rng(call.seed)
    parameters = small.layer_of(op).trained if kind else ()
    for tensor, error in gradcheck.check_op(reference, op, arguments, rng, parameters):
        assert error <= gradcheck.TOLERANCE, tensor


def _not_saturated(call):
    """A probability next to 1 leaves a slope that the rounding of the loss hides."""
    return call.op != "softmax_cross_entropy" or np.abs(call.arguments[0]).max() < 5


@every_dtype
@pytest.mark.parametrize("fill", [integers, reals])
@given(data=st.data())
def test_sgd_update_is_its_formula(fill, dtype, data):
    arguments = data.draw(strategies.sgd_update(fill))
    checks.agree_on_update(reference, naive, arguments, fill, dtype)


def test_sgd_update_reaches_every_element_of_a_large_tensor():
    rng = np.random.default_rng(0)
    w, dw, v = (integers(rng, 1_000_003) for _ in range(3))
    moved = 0.5 * v - 2 * 0.25 * w - 0.25 * dw
    expected = w + moved
    reference.sgd_update([w], [dw], [v], [0.25], 0.5, [2.0])
    np.testing.assert_array_equal(v, moved)
    np.testing.assert_array_equal(w, expected)


@pytest.mark.parametrize("lost", [0, 2])
def test_sgd_update_refuses_what_it_cannot_change_in_place(lost):
    """A transposed array cannot be seen flat: its copy would be updated and thrown away."""
    arrays = [np.ones((2, 3)) for _ in range(3)]
    arrays[lost] = np.ones((3, 2)).T
    w, dw, v = arrays
    with pytest.raises(ValueError, match="contiguous"):
        reference.sgd_update([w], [dw], [v], [0.1], 0.9, [0.0])


def test_asarray_makes_what_sgd_update_can_change():
    w, dw, v = (reference.asarray(np.ones((3, 2)).T) for _ in range(3))
    reference.sgd_update([w], [dw], [v], [0.25], 0.5, [0.0])
    np.testing.assert_array_equal(w, np.full((2, 3), 1.25))


@every_layer
@given(data=st.data())
def test_arguments_are_left_as_they_were(op, data):
    call = data.draw(strategies.calls(op, reals))
    arguments = call.arguments_as(np.float64)
    y, cache = getattr(reference, op)(*arguments)
    dy = call.dy(y)
    checks.backward(reference, op, dy, cache)
    np.testing.assert_array_equal(dy, call.dy(y))
    for after, before in zip(arguments, call.arguments_as(np.float64), strict=True):
        np.testing.assert_array_equal(after, before)


@every_op
@given(data=st.data())
def test_the_number_of_threads_changes_no_bit(op, data):
    """Of small arrays too, cut so that there are pieces, and runs of one image in each."""
    call = data.draw(strategies.calls(op, reals))
    with _cut(1, 1):
        one, three = (_on(n, checks.results, reference, call, np.float32) for n in (1, 3))
    for tensor, value in one.items():
        np.testing.assert_array_equal(value, three[tensor])


def test_the_number_of_threads_changes_no_bit_of_a_layer_of_real_size():
    """Products that are large enough for BLAS to use threads of its own."""
    rng = np.random.default_rng(0)
    x, w, b = reals(rng, (9, 13, 13, 192)), reals(rng, (256, 3, 3, 96)), reals(rng, 256)
    call = strategies.Call("conv2d", (x, w, b, 1, 1, 2), reals, seed=1)
    found = [_on(n, checks.results, reference, call, np.float32) for n in (1, 2, 8)]
    for tensor, value in found[0].items():
        for other in found[1:]:
            np.testing.assert_array_equal(value, other[tensor])


def _on(cores, function, *arguments):
    with mock.patch.object(threads, "_cores", cores):
        return function(*arguments)


def _cut(piece_bytes, run_bytes):
    return mock.patch.multiple(threads, PIECE_BYTES=piece_bytes, RUN_BYTES=run_bytes)


@pytest.mark.parametrize("cores", [1, 3])
def test_pieces_come_in_their_order_from_as_many_threads_as_cores(cores):
    """However long each takes."""
    ids, all_at_work = set(), threading.Barrier(cores)

    def work(piece):
        if threading.get_ident() not in ids:
            ids.add(threading.get_ident())
            all_at_work.wait(timeout=10)
        time.sleep(0.02 if piece.start == 0 else 0.001)
        return piece

    found = _on(cores, threads.in_pieces, work, 10, 1 << 40)
    assert found == [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 10)]
    assert len(ids) == cores


def test_no_more_threads_are_asked_than_there_are_pieces():
    with mock.patch.object(threads._threads, "submit", wraps=threads._threads.submit) as submit:
        assert _on(8, threads.in_pieces, lambda piece: piece, 1, 1 << 40) == [slice(0, 1)]
        assert not submit.called
        assert len(_on(8, threads.in_pieces, lambda piece: piece, 10, 1 << 40)) == 4
        assert submit.call_count == 3


@pytest.mark.parametrize("failing", [0, 1], ids=["here", "in a helper"])
def test_an_error_in_a_piece_arrives_when_no_thread_works_any_more(failing):
    working, both = [], threading.Barrier(2)

    def work(piece):
        both.wait(timeout=10)
        working.append(piece)
        if (threading.current_thread() is not threading.main_thread()) == bool(failing):
            raise ArithmeticError("of this piece")
        time.sleep(0.02)
        working.remove(piece)

    with pytest.raises(ArithmeticError, match="of this piece"):
        _on(2, threads.in_pieces, work, 2, 1 << 40)
    assert len(working) == 1  # the one that failed
    assert _on(2, threads.in_pieces, lambda piece: piece.stop, 2, 1 << 40) == [1, 2]


def limits():
    """The numbers of BLAS's threads."""
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_blas_has_one_thread_whichever_thread_calls():
    seen = []

    def call():
        threads.in_pieces(lambda piece: seen.extend(limits()), 1, 1)

    call()
    other = threading.Thread(target=call)
    other.start()
    other.join()
    call()
    assert set(seen) == {1}


def test_two_callers_at_once_leave_blas_as_it_was():
    """The limit is the process's: who comes second must not take the first one's for the usual."""
    before, first_is_in, second_is_in, seen = limits(), threading.Event(), threading.Event(), []

    def first(piece):
        first_is_in.set()
        second_is_in.wait(timeout=0.1)  # in vain, if only one may be in

    def second(piece):
        second_is_in.set()
        caller.join()
        seen.extend(limits())

    caller = threading.Thread(target=threads.in_pieces, args=(first, 1, 1))
    caller.start()
    first_is_in.wait()
    threads.in_pieces(second, 1, 1)
    assert set(seen) == {1}
    assert limits() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_threads_of_its_own():
    threads.in_pieces(lambda piece: None, 8, 1 << 40)
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        found = _on(2, threads.in_pieces, lambda piece: piece.start, 8, 1 << 40)
        os._exit(0 if found == [0, 2, 4, 6] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("groups", [1, 2])
def test_a_large_batch_is_its_images(groups):
    """However many images share a piece, and a run within it; the last run is a shorter one."""
    rng = np.random.default_rng(0)
    x, w, b = integers(rng, (52, 13, 12, 64)), integers(rng, (32, 3, 3, 64 // groups)), np.zeros(32)
    dy = integers(rng, (52, 13, 12, 32))
    y, cache = reference.conv2d(x, w, b, 1, 1, groups)
    dx, dw, db = reference.conv2d_backward(dy, cache)
    singles = [reference.conv2d(x[[n]], w, b, 1, 1, groups) for n in range(52)]
    back = [reference.conv2d_backward(dy[[n]], cache) for n, (_, cache) in enumerate(singles)]
    np.testing.assert_array_equal(y, np.concatenate([y for y, _ in singles]))
    np.testing.assert_array_equal(dx, np.concatenate([dx for dx, _, _ in back]))
    np.testing.assert_array_equal(dw, sum(dw for _, dw, _ in back))
    np.testing.assert_array_equal(db, sum(db for _, _, db in back))


@given(strategies.calls("conv2d", reals))
def test_conv2d_makes_no_dx_unless_it_is_needed(call):
    y, cache = reference.conv2d(*call.arguments)
    _, dw, db = reference.conv2d_backward(call.dy(y), cache)
    dx, *others = reference.conv2d_backward(call.dy(y), cache, need_dx=False)
    assert dx is None
    np.testing.assert_array_equal(others[0], dw)
    np.testing.assert_array_equal(others[1], db)


@every_layer
@given(data=st.data())
def test_nan_is_passed_on(op, data):
    """A NaN in x comes out wherever the formula reads it, and so reaches the loss."""
    call = data.draw(strategies.calls(op, reals))
    x = call.arguments[0].copy()
    x.flat[data.draw(st.integers(0, x.size - 1))] = np.nan
    expected, _ = getattr(naive, op)(x, *call.arguments[1:])
    y, _ = getattr(reference, op)(x, *call.arguments[1:])
    assert np.isnan(y[np.isnan(expected)]).all()


def test_relu_has_no_slope_at_zero():
    x = np.array([[-1.0, -0.0, 0.0, 1.0]])
    _, cache = reference.relu(x)
    np.testing.assert_array_equal(reference.relu_backward(np.ones_like(x), cache), [[0, 0, 0, 1]])


def test_the_first_of_equal_maxima_takes_the_gradient():
    x = np.array([[1.0, 2, 2], [2, 0, 2], [2, 2, 2]]).reshape(1, 3, 3, 1)
    _, cache = reference.max_pool(x, 2, 1)
    dx = reference.max_pool_backward(np.array([1.0, 10, 100, 1000]).reshape(1, 2, 2, 1), cache)
    np.testing.assert_array_equal(dx[0, :, :, 0], [[0, 11, 0], [100, 0, 1000], [0, 0, 0]])


def zeros(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        ("conv2d", (zeros(1, 5, 5, 4), zeros(2, 3, 3, 4), zeros(2), 1, 0, 2)),
        ("conv2d", (zeros(1, 5, 5, 4), zeros(3, 3, 3, 2), zeros(3), 1, 0, 2)),
        ("conv2d", (zeros(1, 2, 5, 4), zeros(2, 3, 3, 4), zeros(2), 1, 0, 1)),
        ("conv2d", (zeros(1, 5, 2, 4), zeros(2, 3, 3, 4), zeros(2), 1, 0, 1)),
        ("lrn", (zeros(1, 2, 2, 5), 5, 2.0, 1e-4, 0.75, 2)),
        ("max_pool", (zeros(1, 2, 5, 1), 3, 2, False)),
        ("avg_pool", (zeros(1, 5, 2, 1), 3, 2, False)),
        ("linear", (zeros(2, 6), zeros(3, 5), zeros(3))),
        ("linear", (zeros(2, 1, 2, 3), zeros(3, 5), zeros(3))),
        ("dropout", (zeros(2, 6), np.ones((2, 5), np.uint8), 1.0)),
        ("softmax_cross_entropy", (zeros(2, 3), np.zeros(1, np.int32))),
        ("softmax_cross_entropy", (zeros(2, 3), np.array([0, 3]))),
        ("softmax_cross_entropy", (zeros(2, 3), np.array([0, -1]))),
        ("sgd_update", ([zeros(2)], [zeros(2)], [zeros(2)], [0.1, 0.1], 0.9, [0.0])),
        ("sgd_update", ([zeros(2)], [zeros(3)], [zeros(2)], [0.1], 0.9, [0.0])),
    ],
)
def test_arguments_that_do_not_fit_are_refused(op, arguments):
    with pytest.raises((ValueError, IndexError)):
        getattr(reference, op)(*arguments)


NUMPYS = ("asarray", "to_numpy", "host_empty", "upload")  # functions of NumPy's own


def test_the_reference_is_a_backend():
    for name in Backend.__annotations__:
        assert hasattr(reference, name)
    for name, promised in inspect.getmembers(Backend, inspect.isfunction):
        if not name.startswith("_") and name not in NUMPYS:
            promised_names = list(inspect.signature(promised).parameters)[1:]
            assert list(inspect.signature(getattr(reference, name)).parameters) == promised_names


@given(strategies.calls("max_pool", integers))
def test_relu_may_stand_before_or_behind_the_pool(call):
    """As in the CIFAR-10 nets; whole numbers tie often."""
    x, *window = call.arguments
    below, before = reference.relu(x)
    y, pool = reference.max_pool(below, *window)
    dy = call.dy(y)
    dx = reference.relu_backward(reference.max_pool_backward(dy, pool), before)
    largest, pool = reference.max_pool(x, *window)
    z, behind = reference.relu(largest)
    np.testing.assert_array_equal(z, y)
    dz = reference.max_pool_backward(reference.relu_backward(dy, behind), pool)
    np.testing.assert_array_equal(dz, dx)
