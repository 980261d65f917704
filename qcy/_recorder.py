"""Recording: calls of primitives become the steps of a program, and their results get places.

Design
------
a. A `Recorder` hands out places instead of arrays. Primitives that meet a place do not run: they
   leave their step with its recorder, and return the place of the result. So whatever calls
   primitives can be recorded, and is written once.
b. Places lie in one arena. Who records says when a result is not needed any more (`release`), and
   its memory goes to a later one: the arena is as large as what lives at one moment.
"""

import numpy as np

from qcy._program import ARENA_MEMORY, FIRST_PORT
from qcy._step import Place

#: Places begin on a cache line.
LINE = 64


class Recorder:
    """Collects steps, and plans where their results lie.

    Attributes
    ----------
    steps : list of Step
    n_ports : int
        Arrays that a run will be given, inputs and outputs.
    size : int
        Bytes of the arena so far.
    """

    def __init__(self):
        self.steps = []
        self.n_ports = 0
        self.size = 0
        self._free = []         # (offset, bytes) in the arena, by offset
        self._taken = {}        # offset: bytes

    def port(self, shape, dtype):
        """Return the place of an array that a run will be given."""
        self.n_ports += 1
        return Place(FIRST_PORT + self.n_ports - 1, 0, shape, dtype, self)

    def allocate(self, shape, dtype):
        """Return a new place in the arena."""
        n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        n_bytes = max(1, -(-n_bytes // LINE)) * LINE
        fits = [(size, offset) for offset, size in self._free if size >= n_bytes]
        if fits:
            size, offset = min(fits)
            self._free.remove((offset, size))
            if size > n_bytes:
                self._free.append((offset + n_bytes, size - n_bytes))
                self._free.sort()
        else:
            # The last free piece, if it ends where the arena does, grows.
            last = self._free[-1] if self._free else (self.size, 0)
            offset = last[0] if sum(last) == self.size else self.size
            if last[1] and offset == last[0]:
                self._free.pop()
            self.size = offset + n_bytes
        self._taken[offset] = n_bytes
        return Place(ARENA_MEMORY, offset, shape, dtype, self)

    def release(self, offset):
        """Give the memory of a place in the arena back, by its offset."""
        merged = []
        for piece in sorted([*self._free, (offset, self._taken.pop(offset))]):
            if merged and sum(merged[-1]) == piece[0]:
                merged[-1] = (merged[-1][0], merged[-1][1] + piece[1])
            else:
                merged.append(piece)
        self._free = merged

    @property
    def taken(self):
        """Offsets of the places in the arena that are in use."""
        return set(self._taken)

    def add(self, step):
        """Take a step in."""
        self.steps.append(step)
