"""The calls of ``qcy bench``, one family a class: time, and the ratio to NumPy's float32."""

from qcy._timing import medians
from qcy.bench_cases import CASES, NARROW, ODD

from .ratio import ratio

ALL = {f"{case.family} {case.name}": case for case in CASES}


class _Family:
    """Bound calls: everything is in place before they are timed."""

    param_names = ["call"]

    def setup(self, call):
        self.case = ALL[call]
        self.call, self.numpy = self.case.make(1)

    def time_bound(self, call):
        self.call()

    def track_speedup(self, call):
        return ratio(self.numpy, self.call, repeats=3 if self.case.is_long else 40)

    track_speedup.unit = "times NumPy float32"


class _Shared(_Family):
    """What is worth a second thread."""

    def setup(self, call):
        super().setup(call)
        self.on_two, _ = self.case.make(2)

    def time_two_threads(self, call):
        self.on_two()


def _family(*families):
    return [name for name, case in ALL.items() if case.family in families]


class Products(_Shared):
    """Matrices of many rows."""

    params = _family("product")


class Vectors(_Shared):
    """One row: as fast as weights come from memory."""

    params = _family("one row")


class Dynamic(_Shared):
    """Reals in and out, quantized on the way."""

    params = _family("dynamic")


class Convolutions(_Shared):
    """Channels last; NumPy's share is the product alone."""

    params = _family("convolution")


class Depthwise(_Shared):
    """One channel at a time."""

    params = _family("depthwise")


class ElementwiseFloat(_Family):
    """Conversions, arithmetic and functions of 64k elements."""

    params = _family("elementwise")


class OddShapes:
    """Shapes that fit no tile: the rate of useful operations, against the shape rounded up.

    M to 4, K to 64, N to 16; a convolution against the product of that shape. Promised: 0.6.
    """

    params = [f"{case.family} {case.name}" for case, _ in ODD]
    param_names = ["call"]
    pairs = ODD

    def setup(self, call):
        self.case, self.round = self.pairs[self.params.index(call)]
        self.calls = [case.make(1)[0] for case in (self.case, self.round)]

    def time_bound(self, call):
        self.calls[0]()

    def track_useful(self, call):
        ours, rounded = medians(self.calls, 20, 2e-4)
        return self.case.ops / ours / (self.round.ops / rounded)

    track_useful.unit = "of the rate of the shape rounded up"


class NarrowShapes(OddShapes):
    """Fewer than 16 columns: how fast, against 16. Promised: 1."""

    params = [f"{case.family} {case.name}" for case, _ in NARROW]
    pairs = NARROW

    def track_useful(self, call):
        ours, sixteen = medians(self.calls, 20, 2e-4)
        return sixteen / ours

    track_useful.unit = "times as fast as 16 columns"
