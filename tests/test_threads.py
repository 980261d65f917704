"""Threads never change a byte, never outnumber the budget, and never hang a forked child."""

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import oracles
import pytest
from numpy.testing import assert_array_equal

import qcy
from qcy import _threads
from qcy.primitive import conv2d_q8_accum, gemm_nn_q8, gemm_nn_q8_accum, pack_q8

HAS_FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
DEFAULT = _threads.effective_n_threads()
# What can run a parallel loop here: qcy's own pool, or OpenMP if asked for.
LAYERS = [_threads.threading_layer, *(["openmp"] if _threads.openmp_enabled else [])]
ON_EACH_LAYER = pytest.mark.parametrize("layer", dict.fromkeys(LAYERS))
RNG = np.random.default_rng(0)
A = RNG.integers(0, 256, (512, 256), np.uint8)          # big enough to be run in parallel
B = RNG.integers(-128, 128, (256, 256), np.int8)


def run(script, layer=_threads.threading_layer, timeout=60):
    """Run a script in a fresh interpreter, on one of `LAYERS`; return what it printed."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(script)],
        capture_output=True, text=True, timeout=timeout, check=False,
        env={**os.environ, "QCY_THREADING": layer},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def together(function, n=8):
    """Call `function(i)` from n Python threads at once; return the results, raise an error."""
    results, errors, start = [None] * n, [], threading.Barrier(n)

    def call(i):
        start.wait()
        try:
            results[i] = function(i)
        except BaseException as error:
            errors.append(error)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(n)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not errors, errors
    return results


# ------------------------------------------------------------------------- the number of threads


def test_blocks_nest_and_end():
    assert _threads.effective_n_threads() == DEFAULT
    with qcy.threads(3):
        assert _threads.effective_n_threads() == 3
        with qcy.threads(1):
            assert _threads.effective_n_threads() == 1
            assert _threads.effective_n_threads(2) == 2         # by name wins
        assert _threads.effective_n_threads() == 3
    assert _threads.effective_n_threads() == DEFAULT


def test_a_block_can_be_entered_again_and_within_itself():
    block = qcy.threads(2)
    with block:
        with qcy.threads(5), block:
            assert _threads.effective_n_threads() == 2
        assert _threads.effective_n_threads() == 2
    with block:
        assert _threads.effective_n_threads() == 2
    assert _threads.effective_n_threads() == DEFAULT


def test_a_block_ends_with_an_error():
    with pytest.raises(KeyError), qcy.threads(2):
        raise KeyError
    assert _threads.effective_n_threads() == DEFAULT


def test_a_block_belongs_to_its_python_thread():
    def inside(i):
        with qcy.threads(i + 1):
            return together(lambda _: _threads.effective_n_threads(), 1)[0], \
                _threads.effective_n_threads()

    with qcy.threads(7):
        assert together(inside, 4) == [(DEFAULT, i + 1) for i in range(4)]


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (0, ValueError, "at least 1, got 0"), (-2, ValueError, "at least 1, got -2"),
        (None, TypeError, "must be an int, got None"), (True, TypeError, "an int, got True"),
        (2.0, TypeError, r"an int, got 2\.0"), ("2", TypeError, "an int, got '2'"),
    ],
)
def test_bad_numbers(n, error, message):
    with pytest.raises(error, match=message):
        qcy.threads(n)
    assert _threads.effective_n_threads() == DEFAULT


def test_the_default_is_at_most_the_cpus():
    assert 1 <= DEFAULT <= os.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        assert len(os.sched_getaffinity(0)) >= DEFAULT
        script = """
            import os
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            from qcy import _threads
            print(_threads.effective_n_threads())
        """
        assert run(script) == "1\n"


# ---------------------------------------------------------------------------------- the budget


def test_eight_python_threads_never_run_more_than_the_default(kernels):
    want = oracles.sums(A, B, 5)
    _threads.most_running(reset=True)

    def hammer(i):
        for _ in range(20):
            assert_array_equal(gemm_nn_q8_accum(A, B, a_zero_point=5), want)

    together(hammer)
    assert 1 <= _threads.most_running() <= DEFAULT


def test_eight_convolutions_neither(kernels):
    x = RNG.integers(0, 256, (2, 30, 30, 16), np.uint8)
    w = RNG.integers(-128, 128, (32, 16, 3, 3), np.int8)
    want = conv2d_q8_accum(x, w, layout="NHWC", n_threads=1)
    _threads.most_running(reset=True)
    for result in together(lambda i: conv2d_q8_accum(x, w, layout="NHWC")):
        assert_array_equal(result, want)
    assert _threads.most_running() <= DEFAULT


def test_limits_of_many_python_threads_share_one_budget():
    _threads.most_running(reset=True)

    def hammer(i):
        with qcy.threads(1 + i % 3):
            for _ in range(20):
                gemm_nn_q8_accum(A, B)

    together(hammer)
    assert 1 <= _threads.most_running() <= max(3, DEFAULT)


def test_a_number_asked_for_by_name_may_exceed_the_default():
    _threads.most_running(reset=True)
    gemm_nn_q8_accum(A, B, n_threads=DEFAULT + 2)
    assert _threads.most_running() == DEFAULT + 2
    gemm_nn_q8_accum(A, B)
    with _threads.borrowed() as n:      # all was given back
        assert n == DEFAULT


def test_what_was_borrowed_is_given_back_after_an_error():
    for _ in range(DEFAULT + 1):
        with pytest.raises(KeyError), _threads.borrowed():
            raise KeyError
    with _threads.borrowed() as n:
        assert n == DEFAULT


def test_a_call_takes_what_is_left_and_waits_for_the_first():
    with _threads.borrowed(DEFAULT) as n:
        assert n == DEFAULT
        entered = threading.Event()

        def wait_for_one():
            with _threads.borrowed() as n:
                entered.set()
                return n

        results = []
        waiting = threading.Thread(target=lambda: results.append(wait_for_one()))
        waiting.start()
        assert not entered.wait(0.05)
    waiting.join(10)
    assert not waiting.is_alive()
    assert 1 <= results[0] <= DEFAULT


# ----------------------------------------------------------------------------------- the bytes


@pytest.mark.parametrize("shape", [(512, 256, 256), (8, 700, 1024), (333, 129, 77)])
def test_products_are_the_same_bytes(kernels, shape):
    m, k, n = shape
    rng = np.random.default_rng(m)
    a = rng.integers(0, 256, (m, k), np.uint8)
    packed = pack_q8(rng.integers(-128, 128, (k, n), np.int8), b_zero_point=2, b_scale=0.01)
    results = [
        gemm_nn_q8(a, packed, a_scale=0.1, out_scale=3, a_zero_point=9, n_threads=n).tobytes()
        for n in (1, 2, 3)
    ]
    assert results[0] == results[1] == results[2]


def test_one_pack_serves_python_threads_with_different_scales(kernels):
    # What is folded for one call lies in a cache that another call replaces meanwhile.
    packed = pack_q8(B, b_scale=0.01, bias=np.arange(256))
    sums = [oracles.sums(A[:40], B, zero, bias=np.arange(256)) for zero in range(4)]
    steps = [oracles.multiplier(0.5, 0.01, 1 + zero) for zero in range(4)]

    def hammer(i):
        zero = i % 4
        want = oracles.requantize(sums[zero], steps[zero], 0, np.uint8)
        for _ in range(30):
            codes = gemm_nn_q8(A[:40], packed, a_scale=0.5, out_scale=1 + zero, a_zero_point=zero)
            assert_array_equal(codes, want)

    together(hammer)


@ON_EACH_LAYER
def test_many_python_threads_on_each_layer(layer):
    printed = run("""
    import threading
    import numpy as np
    from qcy import _threads
    from qcy.primitive import gemm_nn_q8_accum
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (300, 99), np.uint8), rng.integers(-128, 128, (99, 200), np.int8)
    want, wrong = a.astype(np.int64) @ b, []

    def hammer(n_threads):
        for _ in range(100):
            if not np.array_equal(gemm_nn_q8_accum(a, b, n_threads=n_threads), want):
                wrong.append(n_threads)

    callers = [threading.Thread(target=hammer, args=(1 + i % 4,)) for i in range(12)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong, wrong
    assert _threads.most_running() <= max(4, _threads.effective_n_threads())
    print(_threads.threading_layer)
    """, layer)
    assert printed == f"{layer}\n"


# ------------------------------------------------------------------------------------- the fork

SETUP = """
    import os, threading
    import numpy as np
    from qcy import _threads
    from qcy.primitive import gemm_nn_q8_accum
    a = np.random.default_rng(0).integers(0, 256, (512, 512), np.uint8)
    b = np.random.default_rng(1).integers(-128, 128, (512, 512), np.int8)
    want = a.astype(np.int64) @ b

    def in_child(check):
        pid = os.fork()
        if pid == 0:
            try:
                check()
            except BaseException as error:
                print(repr(error), flush=True)
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0

    def check_serial():
        assert np.array_equal(gemm_nn_q8_accum(a, b), want)
        if _threads.threading_layer == "serial":
            return
        assert _threads.effective_n_threads() == 1
        assert _threads.effective_n_threads(4) == 1
        with _threads.borrowed(4) as n:
            assert n == 1
        _threads.most_running(reset=True)
        assert np.array_equal(gemm_nn_q8_accum(a, b, n_threads=3), want)
        assert _threads.most_running() == 1
"""


@HAS_FORK
@ON_EACH_LAYER
def test_a_child_forked_after_a_parallel_region_runs_serially(layer):
    run(SETUP + """
    assert np.array_equal(gemm_nn_q8_accum(a, b, n_threads=2), want)
    in_child(check_serial)
    assert np.array_equal(gemm_nn_q8_accum(a, b, n_threads=2), want)    # the parent goes on
    assert _threads.effective_n_threads(3) == 3
    """, layer)


@HAS_FORK
@ON_EACH_LAYER
def test_a_child_of_a_child_runs_serially_too(layer):
    run(SETUP + """
    gemm_nn_q8_accum(a, b, n_threads=2)
    in_child(lambda: in_child(check_serial))
    """, layer)


@HAS_FORK
@ON_EACH_LAYER
def test_a_child_forked_before_any_parallel_region_may_use_threads(layer):
    run(SETUP + """
    def check():
        assert _threads.effective_n_threads(3) == 3
        assert np.array_equal(gemm_nn_q8_accum(a, b, n_threads=3), want)
    in_child(check)
    """, layer)


@HAS_FORK
@ON_EACH_LAYER
@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_fork_while_other_threads_compute_does_not_hang_the_child(layer, n_threads):
    run(SETUP + f"""
    stop = False

    def compute():
        while not stop:
            gemm_nn_q8_accum(a, b, n_threads={n_threads})

    def check():
        for _ in range(3):
            assert np.array_equal(gemm_nn_q8_accum(a, b), want)

    gemm_nn_q8_accum(a, b, n_threads={n_threads})       # the thread that forks has a team too
    computing = [threading.Thread(target=compute) for _ in range(4)]
    for thread in computing:
        thread.start()
    for _ in range(20):
        in_child(check)
    stop = True
    for thread in computing:
        thread.join()
    """, layer)
