"""Top-k by Hamming distance over planes of words: scans that count, in shares of rows or queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import backends, parallel, slices
from .planes import BLOCK, COPY_ROWS, EVERY, Words, allowed_rows, copy_rows, level_widths, padded, spread

Array = npt.NDArray[Any]

XOR, AND, OR = 0, 1, 2  # what kernels count, as `nestvec.kernels.bits` says
GROUP = 256  # queries per pass, at most
PLACES = 2**20  # in the lists of all queries of a pass: they then stay in cache
ROOM, SPARE = 1024, 22  # places in a query's list, at least, and per result: random codes fill about half of them
COPY, COPIED = 150, 4  # queries that count a row in the time that copying it takes; one row in so many, at most
SLICE = 0.02  # seconds a kernel call should take at most: Ctrl-C is answered between calls
CALL_WORDS = 2**25  # of rows, times queries, counted by one call before its speed is known


class BitPart(NamedTuple):
    """Rows [`first`, `last`) of a plane; row r has id ``ids[r]``, or ``base + r`` where `ids` is empty.

    `allowed` (m, words) uint64 is as for `nestvec.parts.Part`.
    """

    words: Words
    first: int
    last: int
    ids: Array
    base: int
    allowed: Array = EVERY

    def of_queries(self, queries: slice) -> BitPart:
        """The same rows as some of the queries may find them."""
        return self._replace(allowed=self.allowed[queries]) if len(self.allowed) > 1 else self


@dataclass(frozen=True)
class BitTask:
    """The `k` nearest of each of `queries` (nq, W) uint64 in the first `bits` bits, by what `scan_bits` counts."""

    queries: Array
    k: int
    bits: int
    what: int


def query_words(codes: Array, bounds: Array, bits: int) -> Array:
    """Packed codes as a scan of the first `bits` bits reads them: words of each level, zero from `bits` on."""
    ends = np.append(bounds[bounds < bits], bits).astype(np.int64)
    parts = [_query_words(codes[some], ends) for some in slices.steps(len(codes), codes.shape[1])]
    return slices.joined(parts or [_query_words(codes, ends)])


def _query_words(codes: Array, ends: Array) -> Array:
    plane = Words.allocate(padded(max(len(codes), 1), BLOCK), ends)
    backends.current().pack_words(codes, ends, plane.starts, 0, plane.words)
    widths = level_widths(ends, 64) // 64
    capacity = len(plane.words) // int(widths.sum())
    parts = [
        plane.words[start : start + capacity * width].reshape(-1, width, BLOCK).transpose(0, 2, 1).reshape(-1, width)
        for start, width in zip(plane.starts, widths.tolist(), strict=True)
    ]
    return np.ascontiguousarray(np.concatenate(parts, axis=1)[: len(codes)])


def nearest(parts: Sequence[BitPart], task: BitTask, threads: int) -> tuple[Array, Array]:
    """Distances (nq, m) int32 and ids int64 of the k nearest, by distance and then id; m is at most k.

    Where a query finds fewer than m, what is missing has id -1 and the largest int32.
    """
    return nearest_of(gathered(parts, task), task, _in_order(parts), threads)


def nearest_of(parts: Sequence[BitPart], task: BitTask, in_order: bool, threads: int) -> tuple[Array, Array]:
    """The same among parts as `gathered` leaves them; `in_order`: their ids ascend from row to row."""
    count = len(task.queries)
    if count == 0 or not parts:
        return np.empty((count, 0), np.int32), np.empty((count, 0), np.int64)
    if count < 4 * threads:
        shares = _split(parts, threads)
        return best(parallel.run(partial(_search, task=task, in_order=in_order), shares, threads), task.k)
    size = group_size(task.k, count, threads)

    def search(at: int) -> tuple[Array, Array]:
        some = slice(at, at + size)
        return _search([part.of_queries(some) for part in parts], replace(task, queries=task.queries[some]), in_order)

    found = parallel.run(search, range(0, count, size), threads)
    return slices.joined([d for d, _ in found]), slices.joined([i for _, i in found])


def group_size(k: int, count: int, threads: int) -> int:
    """Queries that pass over the rows together."""
    return max(1, min(GROUP, PLACES // _room(k), -(-count // threads)))


def gathered(parts: Sequence[BitPart], task: BitTask) -> list[BitPart]:
    """The parts that have rows which may be found, or copies of those rows where that is sooner scanned."""
    return [some for part in parts if (some := _gathered(part, task)).first < some.last]


def _in_order(parts: Sequence[BitPart]) -> bool:
    """Whether ids ascend from row to row."""
    begins = [part.base + part.first for part in parts]
    ends = [part.base + part.last for part in parts]
    return all(part.ids.size == 0 for part in parts) and all(a <= b for a, b in zip(ends, begins[1:], strict=False))


def _gathered(part: BitPart, task: BitTask) -> BitPart:
    """The part, or a copy of the rows that all queries may find, with their ids, where that is sooner scanned."""
    if len(part.allowed) != 1:
        return part
    (count, blocks), queries = spread(part.allowed, part.first, part.last), len(task.queries)
    if count * max(COPY + queries, COPIED * queries) >= blocks * BLOCK * queries:
        return part if count else part._replace(last=part.first)
    rows, source = allowed_rows(part.allowed, part.first, part.last), part.words
    levels = int(np.searchsorted(source.bounds, task.bits)) + 1
    copy = Words.allocate(padded(count, BLOCK), source.bounds[:levels])
    for at in range(0, count, COPY_ROWS):
        parallel.check()
        copy_rows(source.views()[:levels], rows[at : at + COPY_ROWS], copy.views(), at)
    return BitPart(copy, 0, count, part.ids[rows] if part.ids.size else rows + part.base, 0)


def _split(parts: Sequence[BitPart], shares: int) -> list[list[BitPart]]:
    return [list(parts)] if shares == 1 else [[some] for part in parts for some in _pieces(part, shares)]


def _pieces(part: BitPart, count: int) -> list[BitPart]:
    step = padded(-(-(part.last - part.first) // count), BLOCK)
    return [
        part._replace(first=at, last=min(at + step, part.last)) for at in range(part.first, part.last, max(step, BLOCK))
    ]


def _room(k: int) -> int:
    return max(ROOM, 2 * k + 4 * BLOCK + SPARE * min(k, ROOM))


class _Lists:
    """What a batch of queries has found; see `nestvec.kernels.bits.scan_bits`."""

    def __init__(self, task: BitTask) -> None:
        count, room = len(task.queries), _room(task.k)
        self.histograms = np.zeros((count, task.bits + 1), np.int32)
        self.limits = np.full(count, task.bits, np.int32)
        self.totals = np.zeros(count, np.int64)
        self.rows = np.empty((count, room), np.int32)
        self.distances = np.empty((count, room), np.int32)
        self.counts = np.zeros(count, np.int64)

    def shrink(self, k: int, ids: Array) -> None:
        """Make room: drop what is beyond the limit, then all but the k best where ties still fill half of a list."""
        room = self.rows.shape[1]
        for query in np.flatnonzero(self.counts > room - BLOCK):
            kept = np.flatnonzero(self.distances[query, : self.counts[query]] <= self.limits[query])
            if len(kept) > room // 2:
                rows = self.rows[query, kept]
                order = np.lexsort((ids[rows] if ids.size else rows, self.distances[query, kept]))
                dropped = self.distances[query, kept[order[k:]]]
                np.subtract.at(self.histograms[query], dropped, 1)
                self.totals[query] -= len(dropped)
                kept = np.sort(kept[order[:k]])
            for array in (self.rows, self.distances):
                array[query, : len(kept)] = array[query, kept]
            self.counts[query] = len(kept)


def _search(parts: Sequence[BitPart], task: BitTask, in_order: bool) -> tuple[Array, Array]:
    lists, found = _Lists(task), []
    for part in parts:
        lists.counts[:] = 0
        _scan(part, task, lists, in_order)
        found.append(_ordered(part, task, lists, in_order))
    distances, ids = best(found, task.k)
    short = min(task.k, sum(part.last - part.first for part in parts)) - ids.shape[1]
    if short == 0:
        return distances, ids
    missing = (0, 0), (0, short)  # results of other batches have as many columns
    largest = np.iinfo(np.int32).max
    return np.pad(distances, missing, constant_values=largest), np.pad(ids, missing, constant_values=-1)


def _scan(part: BitPart, task: BitTask, lists: _Lists, in_order: bool) -> None:
    scan = backends.current().scan_bits
    at, chunk = part.first, max(min(CALL_WORDS // task.queries.size // BLOCK, 256), 1) * BLOCK
    while at < part.last:
        parallel.check()
        end, begun = min(part.last, at + chunk), perf_counter()
        reached = scan(
            part.words.words, part.words.starts, part.words.bounds, task.bits, task.queries, task.what, task.k,
            in_order, at, end, part.allowed, lists.histograms, lists.limits, lists.totals, lists.rows, lists.distances,
            lists.counts,
        )  # fmt: skip
        if reached < end:
            lists.shrink(task.k, part.ids)
        affordable = int((reached - at) * SLICE / max(perf_counter() - begun, 1e-6)) // BLOCK * BLOCK
        chunk = max(BLOCK, min(8 * chunk, affordable))
        at = int(reached)


def _ordered(part: BitPart, task: BitTask, lists: _Lists, in_order: bool) -> tuple[Array, Array]:
    """The k nearest of one part, or as many as could be: distances and ids."""
    count, k = len(task.queries), min(task.k, int(lists.counts.max()))
    if in_order:
        rows, distances = np.empty((count, k), np.int32), np.full((count, k), np.iinfo(np.int32).max, np.int32)
        places = np.empty(task.bits + 2, np.int64)
        order = backends.current().order_bits
        order(lists.limits, lists.rows, lists.distances, lists.counts, places, rows, distances)
        named = part.ids[rows] if part.ids.size else rows.astype(np.int64) + part.base
        return distances, np.where(rows < 0, -1, named)
    distances, ids = np.full((count, k), np.iinfo(np.int32).max, np.int32), np.full((count, k), -1, np.int64)
    for query, found in enumerate(lists.counts):
        rows = lists.rows[query, :found]
        named = part.ids[rows] if part.ids.size else rows.astype(np.int64) + part.base
        order = np.lexsort((named, lists.distances[query, :found]))[:k]
        distances[query, : len(order)] = lists.distances[query, order]
        ids[query, : len(order)] = named[order]
    return distances, ids


def best(found: Sequence[tuple[Array, Array]], k: int) -> tuple[Array, Array]:
    """Several lists over different rows as one; where one ran out, its places come last."""
    if len(found) == 1:
        return found[0]
    return slices.best(found, k)
