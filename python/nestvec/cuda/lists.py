"""Lists of rows that scans append to, and the k best results, one of each for every query."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..planes import BLOCK
from .device import Device, DeviceArray

RESULTS = 2048  # k, at most: `most_results` of the extension
FEW = 8  # queries so few that rounds are what takes time: fewer of them, and longer lists
SHARES = 2**21  # results that a search of all rows may leave to be merged


def refuse_many(k: int) -> None:
    """ValueError for more results than a GPU lists."""
    if k > RESULTS:
        raise ValueError(f"k={k}; a GPU lists at most {RESULTS} results a query: search on the CPU")


class Lists:
    """Rows and values that reached a query's threshold, `room` at most."""

    def __init__(self, device: Device, nq: int, room: int, stream: int) -> None:
        self.device, self.nq, self.room, self.stream = device, nq, room, stream
        self.rows = device.empty((nq, room), np.int32, stream)
        self.values = device.empty((nq, room), np.float32, stream)
        self.counts = device.empty(nq, np.int32, stream)
        self.thresholds = device.empty(nq, np.float32, stream)
        self.lost = device.empty(nq, np.int32, stream)
        arrays = (self.rows, self.values, self.counts, self.thresholds, self.lost)
        self.native = device.native.Lists(*(array.buffer for array in arrays), nq, room)
        self.begin()

    def begin(self, least: float = -np.inf) -> None:
        """Empty all lists."""
        self.device.native.begin_lists(self.native, least, self.stream)

    def keep(self, count: int) -> None:
        """Leave the `count` best of each list, whose least value becomes the threshold."""
        self.device.native.keep_best(self.native, min(count, self.room), self.stream)

    def ordered(self, k: int, units: DeviceArray | None, offsets: DeviceArray | None, names: Names, best: Best) -> None:
        """The k best in order, as ``offsets + units * value``."""
        self.keep(k)
        self.device.native.order_lists(
            self.native, k, buffer(units), buffer(offsets), buffer(names.ids), names.base, names.n, best.scores.buffer,
            best.ids.buffer, self.stream,
        )  # fmt: skip


def rounds(n: int, first: int, growth: int) -> list[tuple[int, int]]:
    """Blocks of 64 rows in rounds: every `stride`-th one, less each `skip`-th of those, which earlier rounds took.

    The first round takes up to `first` rows, each one after it leaves up to `growth` times as many taken as before.
    """
    blocks, least = -(-n // BLOCK), max(first // BLOCK, 1)
    count = max(math.ceil(math.log(max(blocks / least, 1), growth) - 1e-9), 0)
    factor = 2
    while least * factor**count < blocks:
        factor += 1
    return [(factor**i, factor if i < count else 0) for i in range(count, -1, -1)]


class Names:
    """Ids of n rows: given, or `base` and those that follow."""

    def __init__(self, ids: DeviceArray | None, base: int, n: int) -> None:
        self.ids, self.base, self.n = ids, base, n


class Best:
    """The k best results of each query, in order: float64 scores, higher is better, and int64 ids, -1 for none."""

    def __init__(self, device: Device, nq: int, k: int, stream: int) -> None:
        self.k = k
        self.scores = device.empty((nq, k), np.float64, stream)
        self.ids = device.empty((nq, k), np.int64, stream)
        device.native.begin_best(self.scores.buffer, self.ids.buffer, nq, k, stream)

    @staticmethod
    def shares(nq: int, k: int, n: int) -> int:
        """Into how many shares rows are cut when all are scored."""
        return max(1, min(256, SHARES // max(nq * k, 1), n // 1024))


def buffer(array: DeviceArray | None) -> Any:
    """What kernels take for an array that may be missing."""
    return None if array is None else array.buffer
