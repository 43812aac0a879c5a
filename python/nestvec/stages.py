"""Plans at work: the first stage scans, the others read the rows that are left, the last one orders."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import backends, parallel, slices
from .arrays import METRICS
from .coding import Frame, encode
from .parts import Part, Task, split_rows
from .plan import Explanation, StageReport, Step
from .planes import BLOCK, Segment, allowed_rows, spread
from .search import RESCORE_COST, RESCORE_VALUES, ROW_SUFFIX, emptied, no_results, top_k

Array = npt.NDArray[Any]

SAMPLE_RANK = 48  # rows of a sample that are to be as good as those kept
SAMPLE_SHARE = 256  # of the rows, at most one in so many
SAMPLE_FROM = 32_768  # rows below which a scan is so short that none is taken
SAMPLE_KEEP = 1000  # rows kept below which lists that are too long are soon cut
ROOM = 16 * BLOCK  # in a list of a scan, besides twice the rows that are kept
LISTED = {"b1": 1.2, "i4": 3.0, "i8": 3.0}  # rows allowed a block that has any: where fewer, they are listed
CALL_BYTES = 2**26  # read by one call of a kernel: Ctrl-C is answered between calls
LIST_BYTES, LIST_COST = 2**23, 256  # read by one call for listed rows; what a row costs besides its bytes


class Shortlist:
    """Rows, by slot, with the sums and values that scans append."""

    def __init__(self, room: int) -> None:
        self.rows = np.empty(room, np.int32)
        self.sums = np.empty(room, np.int32)
        self.values = np.empty(room, np.float32)
        self.counts = np.zeros(1, np.int64)

    def __len__(self) -> int:
        return int(self.counts[0])

    def keep(self, count: int) -> float:
        """Leave the `count` best; returns the least of their values."""
        least: float = backends.current().keep_best(self.rows, self.sums, self.values, self.counts, count)
        return least

    @classmethod
    def of(cls, rows: Array) -> Shortlist:
        """Rows of which nothing else is known."""
        result = cls(len(rows))
        result.rows[:] = rows
        result.counts[0] = len(rows)
        return result

    @classmethod
    def joined(cls, parts: Sequence[Shortlist]) -> Shortlist:
        """Several lists as one."""
        if len(parts) == 1:
            return parts[0]
        result = cls(0)
        for name in ("rows", "sums", "values"):
            setattr(result, name, np.concatenate([getattr(part, name)[: len(part)] for part in parts]))
        result.counts[0] = len(result.rows)
        return result


NO_ROWS = Shortlist(0)


class Reach(NamedTuple):
    """What a query may find: parts with at most one set each, how many rows, and those where they are to be listed."""

    parts: list[Part]
    total: int
    rows: Array | None


class Run:
    """A batch of queries on its way through the stages of a plan, which codes them; notes what each stage did.

    `scores` and `ids` hold the k best of each query that `search` was called for, in any order.
    """

    def __init__(self, parts: Sequence[Part], steps: Sequence[Step], task: Task, frame: Frame) -> None:
        self.parts, self.steps, self.task, self.frame = parts, steps, task, frame
        self.kernels = backends.current()
        self.coded = [
            None if step.code == "raw" else encode(task.queries, step.code, step.dims, step.widest, frame)
            for step in steps
        ]
        self.row_bytes = [self._row_bytes(step) for step in steps]
        self.rows, self.seconds = [0] * len(steps), [0.0] * len(steps)  # of each stage, over all queries
        self.scores = np.empty((len(task.queries), task.k))
        self.ids = np.empty(self.scores.shape, np.int64)
        self.shared = self._reach(0) if all(len(part.allowed) <= 1 for part in parts) else None

    def search(self, query: int, threads: int) -> None:
        """Find the k best rows for one query."""
        begun = perf_counter()
        own = slice(query, query + 1)
        answer = emptied(self.scores[own], self.ids[own])
        found, reach = NO_ROWS, self.shared or self._reach(query)
        for number, step in enumerate(self.steps):
            last = number == len(self.steps) - 1
            self.rows[number] += len(found) if number else reach.total
            if step.code == "raw":
                best = answer if last else no_results(1, step.keep)
                if number:
                    self._raw(query, step, found, best, named=last)
                else:
                    self._exact(query, step, reach.parts, best, threads, named=last)
                if not last:
                    found = Shortlist.of(np.sort(best[1][best[1] >= 0]))
            else:
                found = self._list(query, number, found) if number else self._first(query, reach, threads)
                found.keep(step.keep)
                if last:
                    self._estimated(query, found)
            now = perf_counter()
            self.seconds[number] += now - begun
            begun = now

    def report(self) -> Explanation:
        """What the stages did, per query."""
        count = len(self.task.queries)
        columns = zip(self.steps, self.rows, self.row_bytes, self.seconds, strict=True)
        return Explanation(
            tuple(
                StageReport(step.code, step.dims, rows / count, step.keep, rows / count * nbytes, seconds / count)
                for step, rows, nbytes, seconds in columns
                if count
            )
        )

    def _reach(self, query: int) -> Reach:
        parts = [part.of_queries(slice(query, query + 1)) for part in self.parts]
        total = blocks = 0
        for part in parts:
            rows, touched = spread(part.allowed, part.first, part.last)
            total, blocks = total + rows, blocks + touched
        if total >= LISTED.get(self.steps[0].code, 0) * blocks:
            return Reach(parts, total, None)
        slots = [allowed_rows(part.allowed, part.first, part.last) + part.slot for part in parts]
        return Reach(parts, total, np.concatenate(slots))

    def _first(self, query: int, reach: Reach, threads: int) -> Shortlist:
        if reach.rows is not None:
            lists = [Shortlist.of(rows) for rows in np.array_split(reach.rows, threads)]
            return Shortlist.joined(parallel.run(partial(self._list, query, 0), lists, threads))
        shares = split_rows(reach.parts, threads)
        return Shortlist.joined(parallel.run(partial(self._scan, query), shares, threads))

    def _scan(self, query: int, parts: Sequence[Part]) -> Shortlist:
        keep = self.steps[0].keep
        total = sum(spread(part.allowed, part.first, part.last)[0] for part in parts)
        expected, least = float(keep), -np.inf
        if keep >= SAMPLE_KEEP and total >= max(SAMPLE_FROM, 8 * keep):
            expected, least = self._sampled(query, parts, total)
        found = Shortlist(min(max(int(1.5 * expected), 2 * keep) + ROOM, max(total, keep) + BLOCK))
        self._scan_parts(query, parts, least, found)
        if len(found) < min(keep, total):  # the sample promised too much
            found.counts[0] = 0
            self._scan_parts(query, parts, -np.inf, found)
        return found

    def _sampled(self, query: int, parts: Sequence[Part], total: int) -> tuple[float, float]:
        """How many rows will probably reach a value, somewhat more than are kept, and that value, from a few blocks."""
        keep = self.steps[0].keep
        wanted = min(SAMPLE_RANK * total / keep, total / SAMPLE_SHARE)
        stride = max(int(total / wanted), 1) * BLOCK
        scanned = sum(BLOCK * -(-(part.last - part.first) // stride) for part in parts)
        found = Shortlist(scanned + BLOCK)
        self._scan_parts(query, parts, -np.inf, found, stride)
        if len(found) == 0:  # no block of the sample has a row allowed
            return float(keep), -np.inf
        rank = len(found) * keep / total
        rank = int(rank + 3 * rank**0.5 + 4)
        share = len(found) / total
        return rank / share, found.keep(rank)

    def _scan_parts(
        self, query: int, parts: Sequence[Part], least: float, found: Shortlist, stride: int = BLOCK
    ) -> None:
        step, scan = self.steps[0], getattr(self.kernels, f"scan_{self.steps[0].code}")
        rows_per_call = max(CALL_BYTES // max(self.row_bytes[0], 1) // stride, 1) * stride
        for part in parts:
            fixed, coded = self._arguments(query, 0, part)
            for at in range(part.first, part.last, rows_per_call):
                parallel.check()
                least = scan(
                    *fixed, *coded, least, step.keep, at, min(part.last, at + rows_per_call), stride, part.slot,
                    part.allowed.reshape(-1), found.rows, found.sums, found.values, found.counts,
                )  # fmt: skip

    def _list(self, query: int, number: int, found: Shortlist) -> Shortlist:
        step, listing = self.steps[number], getattr(self.kernels, f"list_{self.steps[number].code}")
        if step.begin == 0:
            found.sums[: len(found)] = 0
        for part, some, rows in self._by_part(found, LIST_BYTES // (self.row_bytes[number] + LIST_COST)):
            (codes, starts, bounds, levels, *factors), coded = self._arguments(query, number, part)
            sums, values = found.sums[some], found.values[some]
            listing(codes, starts, bounds, step.begin, levels, *factors, *coded, rows, sums, values)
        return found

    def _by_part(self, found: Shortlist, most: int) -> Iterator[tuple[Part, slice, Array]]:
        """Parts with rows listed, up to `most` places in the list, and the rows there as the part counts them."""
        first, slots = 0, found.rows[: len(found)]
        for part in self.parts:
            last = bisect_left(slots, part.slot + part.last)
            for at in range(first, last, max(most, 1)):
                parallel.check()
                some = slice(at, min(at + most, last))
                yield part, some, slots[some] - np.int32(part.slot) if part.slot else slots[some]
            first = last

    def _raw(self, query: int, step: Step, found: Shortlist, best: tuple[Array, Array], *, named: bool) -> None:
        """Exact scores of the rows listed, and their ids, or their slots."""
        listing = getattr(self.kernels, f"list_{ROW_SUFFIX[self.task.row_type]}")
        wide = self.task.queries[query : query + 1].astype(np.float64)
        for part, _, rows in self._by_part(found, RESCORE_VALUES // (step.dims + RESCORE_COST)):
            segment = part.segment
            ids, base = (segment.ids, segment.base) if named else (segment.ids[:0], part.slot)
            listing(wide, segment.rows, step.dims, METRICS[self.task.metric], ids, base, rows, *best)

    def _exact(
        self, query: int, step: Step, parts: list[Part], best: tuple[Array, Array], threads: int, *, named: bool
    ) -> None:
        """The exact search, as the first stage of a plan."""
        if not named:
            parts = [
                replace(part, segment=replace(part.segment, ids=part.segment.ids[:0], base=part.slot)) for part in parts
            ]
        at_level = self.frame.bounds[step.levels - 1] == step.dims
        task = replace(
            self.task, queries=self.task.queries[query : query + 1, : step.dims], k=step.keep, dims=step.dims
        )
        best[0][:], best[1][:] = top_k(parts, task, self.frame.bounds[: step.levels] if at_level else None, threads)

    def _estimated(self, query: int, found: Shortlist) -> None:
        """What the last stage estimated, as scores."""
        coded = self.coded[-1]
        assert coded is not None
        for part, some, rows in self._by_part(found, len(found)):
            segment = part.segment
            self.ids[query, some] = segment.ids[rows] if segment.ids.size else rows.astype(np.int64) + segment.base
        values = found.values[: len(found)].astype(np.float64)
        self.scores[query, : len(found)] = coded.offsets[query] + coded.units[query] * values

    def _arguments(self, query: int, number: int, part: Part) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Of the kernels of a stage's code: the plane's, and the query's."""
        step, coded = self.steps[number], self.coded[number]
        assert coded is not None
        fixed = plane_arguments(part, step.code, step.levels, self.task.metric, self.frame.bounds)
        return fixed, (coded.codes[query], coded.shifts[query], coded.lifts[query])

    def _row_bytes(self, step: Step) -> int:
        """What scoring one row in a stage reads."""
        begin = int(self.frame.bounds[step.begin - 1]) if step.begin else 0
        dims = step.dims - begin
        lifted = self.task.metric != "ip"
        if step.code == "raw":
            return step.dims * (4 if self.task.row_type == "float32" else 2)
        return {"b1": -(-dims // 8), "i4": -(-dims // 2), "i8": dims + 2}[step.code] + (4 if lifted else 2)


def plane_arguments(part: Part, code: str, levels: int, metric: str, bounds: Array) -> tuple[Any, ...]:
    """The plane's arguments of `scan_b1` and its kin."""
    segment = part.segment
    if code == "b1":
        assert segment.signs is not None  # `resolve` let only codes pass that are kept
        words = segment.signs.words
        return words.words, words.starts, bounds, levels, segment.signs.factors, metric != "ip"
    if code == "i4":
        assert segment.nibbles is not None
        plane = segment.nibbles
        return plane.nibbles, plane.starts, bounds, levels, plane.factors, metric == "l2"
    return segment.codes, segment.starts, bounds, levels, segment.stats, METRICS[metric]


def run_plan(parts: Sequence[Part], steps: Sequence[Step], task: Task, frame: Frame, threads: int) -> Run:
    """A plan run for all queries."""
    if any(part.slot + part.last >= 2**31 for part in parts):
        raise ValueError("plans number rows in 32 bits; search an index of 2^31 rows or more exactly")
    run, count = Run(parts, steps, task, frame), len(task.queries)
    if count < threads:
        for query in range(count):
            run.search(query, threads)
    else:
        parallel.run(lambda query: run.search(query, 1), range(count), threads)
    return run


def estimate(located: Sequence[tuple[Segment, int]], task: Task, code: str, frame: Frame) -> tuple[Array, Array]:
    """Estimated scores, higher is better, of located rows, and their standard errors, both (nq, m) float64."""
    shape = (len(task.queries), len(located))
    values, errors = np.empty(shape), np.empty(shape)
    coded = encode(task.queries, code, task.dims, task.dims, frame)
    level = int(np.searchsorted(frame.bounds, task.dims))
    norms = np.empty(shape[0])
    for some in slices.steps(shape[0], task.queries.shape[1]):
        source = task.queries[some].astype(np.float64)
        if code == "b1":
            source = frame.rotated(source)
            if task.metric == "l2":
                source -= frame.center[: source.shape[1]]
        norms[some] = np.linalg.norm(source[:, : task.dims], axis=1)
    spread = np.where(norms > 0, 1.0, 0.0) if task.metric == "cosine" else norms * (2 if task.metric == "l2" else 1)
    listing = getattr(backends.current(), f"list_{code}")
    for at, (segment, row) in enumerate(located):
        parallel.check()
        codes, starts, bounds, levels, factors, lifted = plane_arguments(
            Part(segment, 0, row + 1), code, level + 1, task.metric, frame.bounds
        )
        error = float((factors[2, level, row].astype(np.uint32) << 16).view(np.float32))
        for query in range(shape[0]):
            sums, value = np.zeros(1, np.int32), np.zeros(1, np.float32)
            listing(
                codes, starts, bounds, 0, levels, factors, lifted, coded.codes[query], coded.shifts[query],
                coded.lifts[query], np.full(1, row, np.int32), sums, value,
            )  # fmt: skip
            values[query, at] = coded.offsets[query] + coded.units[query] * float(value[0])
        errors[:, at] = error * spread
    return values, errors
