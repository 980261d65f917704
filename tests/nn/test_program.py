"""A program gives what the layers give, one by one; its arena is reused and never shared."""

import pickle
import threading

import models
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import qcy
from qcy._recorder import LINE, Recorder

#: Models all of whose layers have kernels that can be recorded.
RECORDED = [name for name in models.ZOO if name not in ("transposed", "lonely", "gated")]


def quantized(name, layout="NCHW", **options):
    """Return a quantized model, and inputs for it."""
    _, q = models.quantized(name, layout, **options)
    _, shapes = models.build(name, layout)
    return q, models.as_tuple(models.batches(shapes, 1, size=4, layout=layout)[0])


def layer_by_layer(q, inputs):
    """Return the outputs as codes, without the program."""
    results = q._RUN(q, inputs).results(qcy.QuantizedTensor)
    return results if isinstance(results, tuple) else (results,)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("name", RECORDED)
def test_a_program_gives_what_the_layers_give(kernels, name, dtype, layout):
    q, inputs = quantized(name, layout, dtype=dtype)
    want = layer_by_layer(q, inputs)
    codes_in = models.as_codes(q, inputs)
    for n_threads in (1, 2, 3):
        with qcy.threads(n_threads):
            reals, codes = q(*inputs), q(*codes_in)
        reals = reals if isinstance(reals, tuple) else (reals,)
        codes = codes if isinstance(codes, tuple) else (codes,)
        for expected, real, code in zip(want, reals, codes, strict=True):
            assert code == expected
            assert_array_equal(real, expected.dequantize().data)
    assert None not in q._programs.values()


def test_what_cannot_be_recorded_runs_layer_by_layer():
    q, inputs = quantized("transposed")
    assert_array_equal(q(*inputs), layer_by_layer(q, inputs)[0].dequantize().data)
    assert list(q._programs.values()) == [None]
    with pytest.raises(TypeError, match="layers without a kernel of their own"):
        q.bind(*inputs)


def test_each_shape_has_a_program_of_its_own():
    q, (x,) = quantized("residual")
    whole = q(x)
    assert_array_equal(np.concatenate([q(x[:1]), q(x[1:])]), whole)
    assert q(x[:0]).shape == (0, 5)
    wide = np.concatenate([x, x], axis=3)
    assert q(wide).shape == (4, 5)
    assert len(q._programs) == 5


def test_programs_are_not_kept_without_end():
    q, (x,) = quantized("softmax")
    for n in range(40):
        q(np.repeat(x, n, axis=0))
    assert len(q._programs) <= 16


def test_bound_calls_read_their_inputs_anew():
    q, (x,) = quantized("depthwise")
    x = x.copy()
    call = q.bind(x, n_threads=2)
    for scale in (1, 0.5, -1):
        x *= np.float32(scale)
        assert call() is call.out
        assert_array_equal(call.out, q(x))


def test_bound_calls_refuse_what_they_would_copy():
    q, (x,) = quantized("softmax")
    for other in (x.astype(np.float64), np.asfortranarray(x)):
        with pytest.raises(ValueError, match="must be C-ordered float32 arrays"):
            q.bind(other)


def test_a_nan_is_refused_and_the_program_goes_on():
    q, (x,) = quantized("residual")
    want = q(x)
    bad = x.copy()
    bad[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="x must not hold NaN, got 1 of them"):
        q(bad)
    assert_array_equal(q(x), want)


def test_wrong_shapes_are_refused_as_without_a_program():
    q, (x,) = quantized("residual")
    with pytest.raises(ValueError, match="channels"):
        q(x[:, :2])


def test_many_threads_run_one_program():
    q, (x,) = quantized("concat")
    batches = [np.roll(x, i, axis=3) for i in range(8)]
    want = [q(batch) for batch in batches]
    got = [[] for _ in batches]

    def work(i):
        for _ in range(30):
            got[i].append(q(batches[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for expected, results in zip(want, got, strict=True):
        assert len(results) == 30
        for result in results:
            assert_array_equal(result, expected)


def test_pickles_carry_no_program():
    q, inputs = quantized("residual")
    want = q(*inputs)
    copy = pickle.loads(pickle.dumps(q))
    assert copy._programs == {}
    assert_array_equal(copy(*inputs), want)


def test_the_memory_plan_holds_what_lives_at_one_moment():
    q, (x,) = quantized("residual")
    plan = q.memory_plan(x.shape)
    image, batch = 8 * 8 * 8, len(x)
    # Three results of a convolution live at once, beside what the image took at the door.
    assert 2 * image * batch <= plan["arena_bytes"] <= 4 * image * batch
    assert plan["steps"] >= len(q.nodes)


@given(data=st.data())
def test_places_that_live_together_do_not_overlap(data):
    recorder, alive = Recorder(), {}
    for _ in range(data.draw(st.integers(1, 40))):
        if alive and data.draw(st.booleans()):
            offset = data.draw(st.sampled_from(sorted(alive)))
            del alive[offset]
            recorder.release(offset)
        else:
            place = recorder.allocate((data.draw(st.integers(0, 300)),), np.uint8)
            assert place.offset % LINE == 0
            assert place.offset not in alive
            alive[place.offset] = max(place.size, 1)
        ends = [0]
        for offset, size in sorted(alive.items()):
            assert offset >= ends[-1]
            ends.append(offset + size)
        assert ends[-1] <= recorder.size
        assert recorder.taken == set(alive)


def test_memory_given_back_is_used_again():
    recorder = Recorder()
    first = recorder.allocate((100,), np.uint8)
    second = recorder.allocate((100,), np.uint8)
    recorder.release(first.offset)
    assert recorder.allocate((128,), np.uint8).offset == first.offset
    recorder.release(second.offset)
    assert recorder.allocate((1000,), np.uint8).offset == second.offset    # the end grows
    assert recorder.size == 128 + 1024
