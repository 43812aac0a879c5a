"""Certified exact top-k: int8 planes say which rows can matter, exact scores of those rows decide.

A scan keeps rows whose upper bound reaches a threshold. The threshold is the k-th best exact score so far, so it must
rise early: chunks of rows grow by a factor of eight, and after each the most promising candidates are scored exactly.
The rest wait; most are dropped later by a better threshold without ever being read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from . import backends, gather, parallel, slices
from .arrays import METRICS, refuse_overflow
from .parts import Part, Task, split_queries, split_rows
from .plan import Explanation, StageReport
from .planes import BLOCK, Segment, aligned, padded, total_width

Array = npt.NDArray[Any]

PROBE_ROWS, PROBE_WORK = 4096, 2 * 10**7  # rows and multiplications that show which level checks pay
GROUP = 1024  # queries per pass: their codes and candidates then stay in cache
FEW = 4  # below this many queries each one scans alone, level by level
PACK_FROM = 16  # from this many queries on, planes made for one search pay for themselves
PACK_ROWS = 16_384  # rows per temporary plane, at most
PACK_VALUES = 2**21
SLICE = 0.02  # seconds a kernel call should take at most: Ctrl-C is answered between calls
SLOW, FAST = 2 * 10**9, 5 * 10**9  # multiplications a second, at least, of exact scores and of int8 codes
RESCORE_VALUES, RESCORE_COST = 2**23, 128  # read by one call to rescore; what a row costs besides its dims
EVERYTHING = 2**62
ROW_SUFFIX = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


def emptied(scores: Array, ids: Array) -> tuple[Array, Array]:
    """Heaps that then hold nothing."""
    scores.fill(-np.inf)
    ids.fill(-1)
    return scores, ids


def no_results(queries: int, k: int) -> tuple[Array, Array]:
    """Heaps of float64 scores and int64 ids that hold nothing."""
    return emptied(np.empty((queries, k)), np.empty((queries, k), np.int64))


class Heaps:
    """The k best of each query so far: float64 scores, higher is better, and int64 ids.

    `scanned` and `read` are the parts of which rows took part by their codes and by exact scores, and by how many
    queries; of the first, `rescored` rows were scored as well.
    """

    def __init__(self, queries: int, k: int) -> None:
        self.scores, self.ids = no_results(queries, k)
        self.scanned: list[tuple[Part, int]] = []
        self.read: list[tuple[Part, int]] = []
        self.rescored = 0

    @classmethod
    def merged(cls, parts: Sequence[Heaps], k: int) -> Heaps:
        """The k best of several heaps over different rows and the same queries."""
        if len(parts) == 1:
            return parts[0]
        result = cls(0, k)
        result.scores, result.ids = slices.best([(part.scores, part.ids) for part in parts], k, largest=True)
        for part in parts:
            result.note(part)
        return result

    def note(self, other: Heaps) -> None:
        """Add up what was done."""
        self.scanned += other.scanned
        self.read += other.read
        self.rescored += other.rescored


class Packed:
    """A batch of queries as the scans read them, with the candidates found so far."""

    def __init__(self, task: Task, bounds: Array, room: int) -> None:
        count, levels = len(task.queries), len(bounds)
        size = padded(max(count, 1), 32)
        steps = total_width(bounds, 64) // 64
        width = 64 * (steps | 1)  # an odd number of cache lines: queries then fall into different sets
        self.bounds = bounds
        self.codes = aligned((size, width), np.int8)
        self.codes[:] = 0
        self.sums = np.zeros((levels, size), np.int32)
        self.stats = np.zeros((3 * levels + 1, size), np.float32)
        self.thresholds = np.full(size, np.inf, np.float32)
        self.thresholds[:count] = -np.inf
        self.multiply = np.empty(count)
        self.offset = np.empty(count)
        self.rows = np.empty((count, room), np.int32)
        self.upper = np.empty((count, room), np.float32)
        self.counts = np.zeros(count, np.int64)
        backends.current().pack_queries(
            task.queries, bounds, METRICS[task.metric], self.codes, self.sums, self.stats, self.multiply, self.offset
        )


class Scan:
    """One batch of queries going through segments; `heaps` holds the answer at the end."""

    def __init__(self, task: Task, bounds: Array) -> None:
        self.kernels = backends.current()
        self.task = task
        self.metric = METRICS[task.metric]
        self.first_chunk = padded(max(256, 2 * task.k), BLOCK)
        self.packed = Packed(task, bounds, self.first_chunk + 1024)
        self.wide = task.queries.astype(np.float64)
        self.heaps = Heaps(len(task.queries), task.k)
        self.scanned = self.due = 0
        work = len(task.queries) * task.dims  # for a row
        self.probe = min(max(PROBE_WORK // work // BLOCK * BLOCK, 4 * BLOCK), PROBE_ROWS)
        self.most = max(int(SLICE * FAST) // work // BLOCK, 1) * BLOCK  # rows for one call of a kernel
        self.most_rescored = max(RESCORE_VALUES // (task.dims + RESCORE_COST), 4)  # the same
        self.check = len(bounds) - 1  # at which level checks begin: at none, before anything could be dropped
        self.rescore = getattr(self.kernels, f"rescore_{ROW_SUFFIX[task.row_type]}")

    def run(self, parts: Sequence[Part]) -> Heaps:
        """Scan all parts and return the best results."""
        chunk = self.first_chunk
        for part in parts:
            at = part.first
            while at < part.last:
                end = min(part.last, at + chunk)
                begun = perf_counter()
                self._chunk(part, at, end)
                affordable = int((end - at) * SLICE / max(perf_counter() - begun, 1e-6)) // BLOCK * BLOCK
                chunk = max(self.first_chunk, min(8 * chunk, affordable))
                at = end
        return self.heaps

    def _chunk(self, part: Part, first: int, last: int) -> None:
        while first < last:
            parallel.check()
            begun = first
            if len(self.packed.bounds) > 1 and self.scanned >= self.due and self._roomy(part, first, last):
                first = self._choose_check(part, first)
                self.due = 4 * (self.scanned + first - begun)
            at, end, started = first, min(first + self.most, last), perf_counter()
            first = self._scan(part, at, end, self.check)
            affordable = (first - at) * SLICE / max(perf_counter() - started, 1e-6)
            self.most = max(int(affordable) // BLOCK, 1) * BLOCK
            self.scanned += first - begun
            # candidates are numbered within their segment, and a full buffer must be emptied to go on
            full = first < end
            if full or first == last:
                self._rescore(part.segment, EVERYTHING if full or last == part.last else self.task.k)

    def _scan(self, part: Part, first: int, last: int, check: int) -> int:
        p, segment = self.packed, part.segment
        return int(
            self.kernels.scan(
                segment.codes, segment.starts, p.bounds, segment.stats, segment.blocks, p.codes, p.sums, p.stats,
                p.thresholds, self.metric, check, first, last, part.allowed, p.rows, p.upper, p.counts,
            )
        )  # fmt: skip

    def _roomy(self, part: Part, first: int, last: int) -> bool:
        """Whether there are rows enough to time, most of them in blocks that are read."""
        timed = len(self.packed.bounds) * self.probe
        return last - first >= 2 * timed and 2 * BLOCK * gather.blocks(part, first, first + timed) >= timed

    def _choose_check(self, part: Part, first: int) -> int:
        """Time a few rows with each first level to check at, to use the fastest; returns the first row not scanned."""
        least = np.inf  # seconds for a block
        for check in reversed(range(len(self.packed.bounds))):
            begun = perf_counter()
            reached = self._scan(part, first, first + self.probe, check)
            seconds = (perf_counter() - begun) / max(gather.blocks(part, first, reached), 1)
            if seconds < least:
                least, self.check = seconds, check
            full = reached < first + self.probe
            first = reached
            if full or seconds > 1.5 * least:  # earlier checks would save still less
                break
        return first

    def _rescore(self, segment: Segment, take: int) -> None:
        """Score the most promising candidates, up to `take` for each query, as many in a call as `most` rows allow."""
        counts, most = self.packed.counts, self.most_rescored
        if self.packed.rows.size <= most:
            self.heaps.rescored += self._rescore_some(segment, slice(None), take)
            return
        group = max(most // max(min(int(counts.max()), take), 1), 1)  # queries
        for query in range(0, len(counts), group):
            left = take
            while left > 0:
                parallel.check()
                asked = min(left, most)
                done = self._rescore_some(segment, slice(query, query + group), asked)
                self.heaps.rescored += done
                left = left - done if group == 1 and done >= asked else 0

    def _rescore_some(self, segment: Segment, some: slice, take: int) -> int:
        p = self.packed
        return int(
            self.rescore(
                self.wide[some], segment.rows, self.task.dims, self.metric, segment.ids, segment.base, take,
                p.multiply[some], p.offset[some], p.thresholds[some], p.rows[some], p.upper[some], p.counts[some],
                self.heaps.scores[some], self.heaps.ids[some],
            )
        )  # fmt: skip


def top_k(parts: Sequence[Part], task: Task, bounds: Array | None, threads: int) -> tuple[Array, Array]:
    """The k best rows of each query in any order: float64 scores, higher is better, and ids, both (nq, k).

    Parameters
    ----------
    parts
        The rows to search.
    bounds : (T,) int64 or None
        Ends of the planes to scan, the last one the searched dims; None where no plane ends there, and the rows
        themselves are read.
    threads : int
        Queries are split between threads if there are many, rows otherwise.
    """
    count = len(task.queries)
    if count == 0 or not parts:
        found = [Heaps(count, task.k)]
    elif count < 32 * threads:  # too few to share out; below FEW they do not even share a scan
        found = []
        for some, own in split_queries(task, parts, 1 if count < FEW else count):
            heaps = parallel.run(partial(_search, task=some, bounds=bounds), split_rows(own, threads), threads)
            found.append(Heaps.merged(heaps, task.k))
    else:
        batches = list(split_queries(task, parts, min(_group(task.dims), padded(-(-count // threads), 32))))
        found = parallel.run(lambda batch: _search(batch[1], batch[0], bounds), batches, threads)
    return slices.joined([heaps.scores for heaps in found]), slices.joined([heaps.ids for heaps in found])


def _group(dims: int) -> int:
    """Queries per pass, fewer where a block of rows would take long."""
    return max(min(GROUP, int(SLICE * FAST) // (BLOCK * dims)), 32)


def explain_exact(parts: Sequence[Part], task: Task, bounds: Array | None) -> tuple[Explanation, Array]:
    """What an exact search by one thread does, per query: rows scanned by their int8 codes, and rows scored.

    Also the k-th best score of each query, float64; -inf where there are fewer.
    """
    count, done, least = len(task.queries), Heaps(0, task.k), [np.empty(0)]
    row_bytes = task.dims * (4 if task.row_type == "float32" else 2)
    begun = perf_counter()
    if count == 0:
        return Explanation(()), least[0]
    for some, own in split_queries(task, parts, 1 if count < FEW else _group(task.dims)):
        heaps = _search(own, some, bounds)
        done.note(heaps)
        least.append(heaps.scores.min(axis=1))
    seconds = (perf_counter() - begun) / count
    rows = sum(gather.pairs(part, queries) for part, queries in done.scanned) / count
    exact = (sum(gather.pairs(part, queries) for part, queries in done.read) + done.rescored) / count
    first = [StageReport("i8", task.dims, rows, exact, rows * (task.dims + 12), seconds)] if rows else []
    last = StageReport("raw", task.dims, exact, task.k, exact * row_bytes, 0.0 if rows else seconds)
    return Explanation((*first, last)), np.concatenate(least)


def _search(parts: Sequence[Part], task: Task, bounds: Array | None) -> Heaps:
    if bounds is None and len(task.queries) < PACK_FROM:
        return _read(parts, task)
    if any(len(part.allowed) > 1 for part in parts):
        return _search_apart(parts, task, bounds)
    read, copied, scanned = gather.ways(parts, task, bounds is not None)
    found = [_read(read, task)] if read else []
    found += [_pack_and_scan(copied, task)] if copied else []
    found += [_scan(scanned, task, bounds)] if scanned else []
    return Heaps.merged(found, task.k) if found else Heaps(len(task.queries), task.k)


def _search_apart(parts: Sequence[Part], task: Task, bounds: Array | None) -> Heaps:
    """Queries that may find few rows by reading those, the others by a scan."""
    heaps = Heaps(len(task.queries), task.k)
    few = gather.few(parts, task, bounds is not None)
    for some, read in ((few, True), (~few, False)):
        if some.any():
            which = slice(None) if some.all() else some
            own, less = [part.of_queries(which) for part in parts], replace(task, queries=task.queries[which])
            found = _read(own, less) if read else _scan(own, less, bounds)
            heaps.scores[some], heaps.ids[some] = found.scores, found.ids
            heaps.note(found)
    return heaps


def _scan(parts: Sequence[Part], task: Task, bounds: Array | None) -> Heaps:
    if bounds is None:
        return _pack_and_scan(parts, task)
    heaps = Scan(task, bounds).run(parts)
    heaps.scanned = [(part, len(task.queries)) for part in parts]
    return heaps


def _read(parts: Sequence[Part], task: Task) -> Heaps:
    """The exact scores of all rows allowed."""
    heaps = Heaps(len(task.queries), task.k)
    heaps.read = [(part, len(task.queries)) for part in parts]
    wide = task.queries.astype(np.float64)
    topk = getattr(backends.current(), f"topk_{ROW_SUFFIX[task.row_type]}")
    most = int(SLICE * SLOW / task.dims)  # pairs of a row and a query for one call of a kernel
    for part in parts:
        segment, step = part.segment, gather.rows_per_call(part, len(wide), most)
        at = part.first
        while at < part.last:
            parallel.check()
            end = min(part.last, at + step)
            while end - at > BLOCK and gather.crowded(part, at, end, len(wide), 2 * most):
                end = at + padded((end - at) // 2, BLOCK)  # those allowed are close together here
            topk(
                wide, segment.rows[at:end], task.dims, METRICS[task.metric], segment.ids[at:end], segment.base + at,
                part.words(at, end), heaps.scores, heaps.ids,
            )  # fmt: skip
            at = end
    return heaps


def _pack_and_scan(parts: Sequence[Part], task: Task) -> Heaps:
    """Planes over exactly the searched dims, made for this search a few thousand rows at a time."""
    scan = Scan(task, np.asarray([task.dims], np.int64))
    step = max(min(PACK_ROWS, PACK_VALUES // task.dims // BLOCK * BLOCK), BLOCK)
    for part in parts:
        for piece in gather.pieces(part, task.dims, step):
            parallel.check()
            scan.run([packed_part(piece, task)])
    scan.heaps.scanned = [(part, len(task.queries)) for part in parts]
    return scan.heaps


def packed_part(piece: Part, task: Task) -> Part:
    """A part without planes, with one over the searched dims."""
    some, bounds = piece.segment, np.asarray([task.dims], np.int64)
    made = Segment.allocate(some.rows, padded(piece.last, BLOCK), bounds, some.ids, some.base)
    values = widened(some.rows, task.row_type)
    backends.current().pack_rows(values, bounds, made.starts, 0, made.codes, made.stats, made.blocks)
    return replace(piece, segment=made)


def widened(rows: Array, row_type: str) -> Array:
    """Stored rows as C-contiguous float32."""
    rows = np.ascontiguousarray(rows)
    if row_type == "float32":
        return rows
    result = np.empty(rows.shape, np.float32)
    getattr(backends.current(), f"widen_{ROW_SUFFIX[row_type]}")(rows.reshape(-1), result.reshape(-1))
    return result


def kept(
    values: Array,
    source: Array,
    target: Array,
    row_type: str,
    first: int,
    name: str = "x",
    wider: str = 'rows="float32"',
) -> Array:
    """Write rows, given as float32 and as they came, the way they are stored; returns what is stored, as float32.

    Raises
    ------
    ValueError
        For values beyond the type, see `arrays.refuse_overflow`.
    """
    if row_type == "float32":
        target[:] = values
        return values
    getattr(backends.current(), f"narrow_{ROW_SUFFIX[row_type]}")(values.reshape(-1), target.reshape(-1))
    refuse_overflow(target, source, row_type, first, name, wider)
    return widened(target, row_type)


def as_results(scores: Array, ids: Array, k: int, metric: str) -> tuple[Array, Array]:
    """Results in any order, which are changed, as `NestedIndex.search` gives them: best first, padded to k columns."""
    count, n = scores.shape
    values, sign = np.empty((count, n), np.float32), -1.0 if metric == "l2" else 1.0
    for some in slices.steps(count, n, slices.SORTED) if n else ():
        backends.current().order_best(scores[some], ids[some], sign, values[some])
    if n == k:
        return values, ids
    found, named = np.empty((count, k), np.float32), np.empty((count, k), np.int64)
    for some in slices.steps(count, k):
        found[some, :n], found[some, n:] = values[some], -sign * np.inf
        named[some, :n], named[some, n:] = ids[some], -1
    return found, named


def as_ranges(found: Sequence[tuple[Array, Array]], metric: str) -> tuple[Array, Array, Array]:
    """Results of each query as `lims`, float32 scores or distances, and ids."""
    lims = np.cumsum([0, *(len(ids) for _, ids in found)], dtype=np.int64)
    values = slices.converted(slices.joined([np.empty(0), *(scores for scores, _ in found)]), np.float32)
    if metric == "l2":
        np.negative(values, out=values)
    return lims, values, slices.joined([np.empty(0, np.int64), *(ids for _, ids in found)])
