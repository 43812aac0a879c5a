"""`CudaNestedIndex`: a nested index in the memory of a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .. import arrays
from ..planes import BLOCK, OVERREAD, level_starts, level_widths, padded, words_within
from ..search import Packed, Part, Task, as_results
from . import halves
from .device import Device, DeviceArray
from .lists import RESULTS, Best, Lists, Names, buffer

if TYPE_CHECKING:
    from ..index import NestedIndex

Array = npt.NDArray[Any]

GROUP = 1024  # queries per pass: what lists take
ROOM = 8192  # rows of a list, at least
FIRST = 4096  # rows of the first round, whose best make the first thresholds
FEW = 8  # queries so few that rounds are what takes time: fewer of them
TYPES = {"float32": 0, "float16": 1, "bfloat16": 2}


class Resident:
    """Rows and planes of all parts of an index, one behind the other in blocks of 64."""

    def __init__(self, device: Device, parts: Sequence[Part], bounds: Array, row_type: str | None) -> None:
        self.device, self.bounds = device, bounds
        self.firsts = np.cumsum([0, *(padded(part.last, BLOCK) for part in parts)]).tolist()
        self.capacity = self.firsts[-1]
        self.n = self.firsts[-2] + parts[-1].last if parts else 0
        self.ends = device.put(bounds)
        self.row_type = row_type
        segments = [part.segment for part in parts]
        self.names = self._named(parts)
        if row_type is not None:
            self.rows = device.empty((self.capacity, int(bounds[-1])), segments[0].rows.dtype)
            for part, first in zip(parts, self.firsts, strict=False):
                self.rows.write(part.segment.rows[: part.last], first * int(bounds[-1]))
        if segments and len(segments[0].codes):
            self._put_bytes(parts)
        self.gaps = any(part.last % BLOCK for part in parts[:-1])

    def _named(self, parts: Sequence[Part]) -> Names:
        one = parts[0].segment if len(parts) == 1 else None
        if one is not None and not one.ids.size:
            return Names(None, one.base, self.n)
        ids = np.full(self.capacity, -1, np.int64)
        for part, first in zip(parts, self.firsts, strict=False):
            some = part.segment
            ids[first : first + part.last] = (
                some.ids[: part.last] if some.ids.size else np.arange(some.base, some.base + part.last)
            )
        return Names(self.device.put(ids), 0, self.n)

    def _put_bytes(self, parts: Sequence[Part]) -> None:
        widths = level_widths(self.bounds, 4)
        starts = level_starts(widths, self.capacity)
        self.codes = self.device.empty(self.capacity * int(widths.sum()) + OVERREAD, np.uint8)
        self.stats = self.device.empty((3 * len(widths), self.capacity), np.float32)
        for part, first in zip(parts, self.firsts, strict=False):
            segment, size = part.segment, padded(part.last, BLOCK)
            for start, own, width in zip(starts.tolist(), segment.starts.tolist(), widths.tolist(), strict=True):
                self.codes.write(segment.codes[own : own + size * width], start + first * width)
            for number in range(len(self.stats)):
                self.stats.write(segment.stats[number, :size], number * self.capacity + first)
        self.starts = self.device.put(starts)
        self.plane = self.device.native.Plane(
            self.codes.buffer, self.starts.buffer, self.ends.buffer, self.stats.buffer, None, len(widths), self.capacity
        )

    def allowed(self, parts: Sequence[Part], stream: int) -> tuple[DeviceArray | None, int]:
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


class CudaNestedIndex:
    """A copy of a `NestedIndex` in a GPU's memory, as `NestedIndex.to` makes it; later changes do not reach it."""

    def __init__(self, index: NestedIndex, device: Device) -> None:
        self._index = index.twin()
        self.device = device
        device.activate()
        contents = self._index._contents
        parts = [Part(segment, 0, n) for _, segment, n in self._index._reader_parts(contents)]
        self._resident = Resident(device, parts, self._index._bounds, self._index.rows)
        device.wait()

    def search(
        self, q: Any, k: int, *, dims: int | None = None, filter: Any = None, stream: int = 0
    ) -> tuple[Array, Array]:
        """The k best rows for each query, as `NestedIndex.search` finds them."""
        k = arrays.result_count(k)
        _, task, parts, bounds = self._index._ready(q, k, dims, filter)
        if task.k > RESULTS:
            raise ValueError(f"k={task.k}; a GPU lists at most {RESULTS} results a query: search the index on the CPU")
        self.device.activate()
        scores, ids = np.empty((len(task.queries), task.k)), np.empty((len(task.queries), task.k), np.int64)
        for first in range(0, len(task.queries), GROUP):
            some = slice(first, first + GROUP)
            allowed, step = self._resident.allowed([part.of_queries(some) for part in parts], stream)
            search = Exact(self._resident, replace(task, queries=task.queries[some]), stream)
            best = search.run(bounds, allowed, step)
            scores[some], ids[some] = best.scores.numpy(stream), best.ids.numpy(stream)
        return as_results(scores, ids, k, task.metric)


class Exact:
    """Certified exact search of a batch."""

    def __init__(self, resident: Resident, task: Task, stream: int) -> None:
        self.resident, self.task, self.stream = resident, task, stream
        self.device, self.native = resident.device, resident.device.native
        self.nq = len(task.queries)
        self.queries = self.device.put(task.queries, stream)
        self.vectors = self.native.Vectors(
            self.queries.buffer, self.nq, task.queries.shape[1], resident.rows.buffer, resident.n,
            int(resident.bounds[-1]), TYPES[task.row_type], task.dims, arrays.METRICS[task.metric],
        )  # fmt: skip
        self.best = Best(self.device, self.nq, task.k, stream)

    def run(self, bounds: Array | None, allowed: DeviceArray | None, step: int) -> Best:
        """Scan in rounds of more and more rows, each with the thresholds that those before it made.

        `bounds` are the ends of planes to scan; None: none ends at the dims searched, and rows are scanned.
        """
        lost = halves.scan(self, allowed, step) if bounds is None else self._scan(bounds, allowed, step)
        self._score_all(lost, allowed, step)
        return self.best

    def _scan(self, bounds: Array, allowed: DeviceArray | None, step: int) -> DeviceArray:
        task, resident, stream = self.task, self.resident, self.stream
        packed = Packed(task, bounds, 0)
        codes, sums, stats = (self.device.put(one, stream) for one in (packed.codes, packed.sums, packed.stats))
        multiply, offset = self.device.put(packed.multiply, stream), self.device.put(packed.offset, stream)
        coded = self.native.Queries(
            codes.buffer, self.nq, packed.codes.shape[1], sums.buffer, stats.buffer, packed.codes.shape[0],
            len(bounds), None, None,
        )  # fmt: skip
        at, rows = 0, padded(max(FIRST, 8 * task.k), BLOCK)
        lists = Lists(self.device, self.nq, max(ROOM, rows), stream)
        growth = 32 if self.nq <= FEW else 8
        while at < resident.n:
            end = min(at + rows, resident.n)
            self.native.scan_certified(
                resident.plane, coded, len(bounds), arrays.METRICS[task.metric], at, end, buffer(allowed), step,
                lists.native, stream,
            )  # fmt: skip
            self.rescore(lists, multiply, offset)
            at, rows = end, rows * growth
        return lists.lost

    def rescore(self, lists: Lists, multiply: DeviceArray | None, offset: DeviceArray | None) -> None:
        """Score what is listed, and empty the lists; `multiply` and `offset` make thresholds of scores."""
        names, best = self.resident.names, self.best
        self.native.rescore(
            lists.native, self.vectors, buffer(multiply), buffer(offset), buffer(names.ids), names.base, names.n,
            best.scores.buffer, best.ids.buffer, best.k, self.stream,
        )  # fmt: skip

    def _score_all(self, lost: DeviceArray | None, allowed: DeviceArray | None, step: int) -> None:
        """The k best of all rows: for all queries, or for those whose lists had no room."""
        names, n, best = self.resident.names, self.resident.n, self.best
        shares = Best.shares(self.nq, best.k, n)
        partial = Best(self.device, self.nq * shares, best.k, self.stream)
        self.native.top_k_of_rows(
            self.vectors, buffer(lost), self.nq, n, shares, buffer(allowed), step, buffer(names.ids), names.base,
            partial.scores.buffer, partial.ids.buffer, best.scores.buffer, best.ids.buffer, best.k, self.stream,
        )  # fmt: skip
