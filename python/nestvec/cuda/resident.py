"""Where rows of an index are in the memory of a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..ids import Run
from ..planes import BLOCK, padded, words_within
from .device import Device, DeviceArray
from .lists import Names

Array = npt.NDArray[Any]

MOST_ROWS = 2**31 - 2**24  # lists hold rows as int32, and kernels larger ones for what is behind all rows


class Allowed(Protocol):
    """What `Part` and `BitPart` have in common."""

    @property
    def last(self) -> int: ...
    @property
    def allowed(self) -> Array: ...


class Placed:
    """Rows of all parts of an index, one behind the other in blocks of 64."""

    def __init__(self, device: Device, runs: Sequence[Run]) -> None:
        self.device = device
        self.firsts = np.cumsum([0, *(padded(run.n, BLOCK) for run in runs)]).tolist()
        self.capacity = self.firsts[-1]
        if self.capacity > MOST_ROWS:
            raise ValueError(f"a GPU searches at most {MOST_ROWS} rows, this index has {self.capacity}: split it")
        self.n = self.firsts[-2] + runs[-1].n if runs else 0
        self.gaps = any(run.n % BLOCK for run in runs[:-1])
        self.names = self._named(runs)

    def _named(self, runs: Sequence[Run]) -> Names:
        if len(runs) == 1 and not runs[0].ids.size:
            return Names(None, runs[0].base, self.n)
        ids = np.full(self.capacity, -1, np.int64)
        for run, first in zip(runs, self.firsts, strict=False):
            ids[first : first + run.n] = run.of(np.arange(run.n))
        return Names(self.device.put(ids), 0, self.n)

    def allowed(self, parts: Sequence[Allowed], stream: int | None) -> tuple[DeviceArray | None, int]:
        """Rows that may be found, as words of the device, and how many words there are for each query; None: all."""
        sets = max((len(part.allowed) for part in parts), default=0)
        if sets == 0 and not self.gaps:
            return None, 0
        words = np.zeros((max(sets, 1), self.capacity // BLOCK), np.uint64)
        for part, first in zip(parts, self.firsts, strict=False):
            at = slice(first // BLOCK, (first + padded(part.last, BLOCK)) // BLOCK)
            every = np.full((1, -(-part.last // BLOCK)), ~np.uint64(0))
            for number in range(len(words)):
                some = part.allowed[number % len(part.allowed)][None] if len(part.allowed) else every
                words[number, at] = words_within(some, 0, part.last)
                if part.last % BLOCK:
                    words[number, at][-1] &= np.uint64(2 ** (part.last % BLOCK) - 1)
        return self.device.put(words, stream), words.shape[1] if len(words) > 1 else 0
