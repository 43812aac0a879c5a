"""Certified scans of rows as they are stored, for dims where no plane ends and for rows that have no planes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..planes import BLOCK, padded
from .device import DeviceArray
from .lists import Lists, buffer, rounds

if TYPE_CHECKING:
    from .dense import Exact

STEP = 32  # dims of queries are filled up to a multiple
FIRST = 4096  # rows of the first round, whose best make the first thresholds
FEW = 8  # queries so few that rounds are what takes time: fewer of them


def scan(search: Exact, allowed: DeviceArray | None, step: int) -> DeviceArray:
    """Scan all rows in rounds, each with the thresholds that those before it made, into ``search.best``.

    Bounds are inner products of the leading dims by tensor cores, of a query times a power of two and rounded to the
    type of the rows (bfloat16 for float32 rows, which are rounded too), plus what that can change: about 2^-12 of the
    norms for float16, 2^-9 for bfloat16 and 2^-7.5 for float32, and dims times 2^-22 for sums in float32. Rows whose
    bound reaches the k-th best score are scored exactly.

    Returns
    -------
    (nq,) int32
        Not 0 for queries whose lists had no room: they need a search that leaves nothing out.
    """
    halved = Halved(search)
    n, first = search.resident.n, padded(max(FIRST, 8 * search.task.k), BLOCK)
    lists = Lists(search.device, search.nq, min(2 * first, padded(n, BLOCK)), search.stream)
    for stride, skip in rounds(n, first, 32 if search.nq <= FEW else 8):
        halved.list_rows(stride, skip, allowed, step, lists)
        search.rescore(lists, halved.multiply, halved.offset)
    return lists.lost


class Halved:
    """Queries of a search in halves; `multiply` and `offset` (nq,) turn scores into the units of bounds."""

    def __init__(self, search: Exact) -> None:
        device, nq, stream = search.device, search.nq, search.stream
        width = padded(search.task.dims, STEP)
        self.search = search
        halves = device.empty((nq, width), np.uint16, stream)
        self.errors, steps = (device.empty(nq, np.float32, stream) for _ in range(2))
        self.multiply, self.offset = (device.empty(nq, np.float64, stream) for _ in range(2))
        self._native = device.native.HalfQueries(halves.buffer, nq, width, self.errors.buffer, steps.buffer)
        device.native.pack_halves(search.vectors, self._native, self.multiply.buffer, self.offset.buffer, stream)

    def list_rows(self, stride: int, skip: int, allowed: DeviceArray | None, step: int, lists: Lists) -> None:
        """Append the rows of one of the `rounds` whose bounds reach the thresholds."""
        self.search.native.scan_halves(
            self.search.vectors, self._native, stride, skip, buffer(allowed), step, lists.native, self.search.stream
        )
