"""Plans over binary codes: the nearest by a prefix are listed, and each further stage counts bits of those alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from . import backends, parallel, slices
from .nearest import XOR, BitPart, BitTask, gathered, group_size, nearest, nearest_of, query_words
from .plan import Explanation, StageReport, Step, resolve, stages_of
from .planes import spread, total_width

Array = npt.NDArray[Any]

LIST_WORDS = 2**20  # read by one call for listed rows, a cache miss each: Ctrl-C is answered between calls
NOTHING = np.empty(0, np.int64)


def bit_steps(plan: Any, k: int, bits: int, total: int, bounds: Array) -> tuple[Step, ...]:
    """A plan for the k nearest by `bits` bits, checked, or the exact search for None; errors are those of `resolve`."""
    if plan is None:
        return (Step("b1", bits, bits, 0, 0, k),)
    for stage in stages_of(plan):
        if stage.code != "b1":
            raise ValueError(f'stages of binary codes are Stage("b1"), got Stage("{stage.code}")')
    return resolve(plan, k, bits, total, bounds, ("b1",), None)


class BitRun:
    """A batch of queries, packed `codes`, on its way through the stages of a plan; notes what each of them did.

    `located` are parts with the slots where they begin. Rows go by slot until the last stage is done, so that of
    equally near ones those added first are kept.
    """

    def __init__(
        self, located: Sequence[tuple[int, BitPart]], steps: Sequence[Step], codes: Array, bounds: Array
    ) -> None:
        self.parts, self.steps, self.bounds, self.count = [part for _, part in located], steps, bounds, len(codes)
        self.starts = [first for first, _ in located]
        first, widest = steps[0], max(step.dims for step in steps)
        self.queries = query_words(codes, bounds, widest)
        words = self.queries if first.dims == widest else cut_words(self.queries, bounds, first.dims)
        self.task = BitTask(words, first.keep, first.dims, XOR)
        self.kept, self.seconds = [0] * (len(steps) - 1), [0.0] * len(steps)

    def search(self, threads: int) -> tuple[Array, Array]:
        """Distances (nq, m) int32 and ids of the k nearest, by distance and then id, as `nearest` gives them."""
        begun = perf_counter()
        if len(self.steps) == 1:
            found = nearest(self.parts, self.task, threads)
            self.seconds[0] += perf_counter() - begun
            return found
        pairs = zip(self.starts, self.parts, strict=True)
        parts = gathered([part._replace(ids=NOTHING, base=first) for first, part in pairs], self.task)
        self.seconds[0] += perf_counter() - begun
        size = group_size(self.task.k, self.count, threads)
        if self.count < 4 * threads or size >= self.count:
            return self._search(parts, slice(0, self.count), threads)
        groups = list(slices.steps(self.count, 1, size))
        results = parallel.run(lambda some: self._search(parts, some, 1), groups, threads)
        return slices.joined([d for d, _ in results]), slices.joined([i for _, i in results])

    def report(self, ids: Array) -> Explanation:
        """What the stages did, per query, to give these ids."""
        if self.count == 0:
            return Explanation(())
        rows = [sum(self._allowed(part) for part in self.parts), *self.kept, int(np.count_nonzero(ids >= 0))]
        begins = [0, *(known_bits(*pair) for pair in zip(self.steps, self.steps[1:], strict=False))]
        return Explanation(
            tuple(
                StageReport(
                    "b1", step.dims, rows[i] / self.count, rows[i + 1] / self.count,
                    rows[i] / self.count * 8 * words_between(self.bounds, begins[i], step.dims),
                    self.seconds[i] / self.count,
                )
                for i, step in enumerate(self.steps)
            )
        )  # fmt: skip

    def _allowed(self, part: BitPart) -> int:
        """Rows that the queries may find, all together."""
        if len(part.allowed) <= 1:
            return self.count * spread(part.allowed, part.first, part.last)[0]
        sets = (part.of_queries(slice(i, i + 1)).allowed for i in range(self.count))
        return sum(spread(some, part.first, part.last)[0] for some in sets)

    def _search(self, parts: Sequence[BitPart], some: slice, threads: int) -> tuple[Array, Array]:
        """What `search` gives, for some of the queries."""
        begun = perf_counter()
        task = replace(self.task, queries=self.task.queries[some])
        distances, slots = nearest_of([part.of_queries(some) for part in parts], task, True, threads)
        found = slots >= 0
        self.seconds[0] += perf_counter() - begun
        self.kept[0] += int(np.count_nonzero(found))
        shape = len(slots), self.steps[-1].keep
        best, ids = np.full(shape, np.iinfo(np.int32).max, np.int32), np.full(shape, -1, np.int64)

        def refine(i: int) -> None:
            near, named = self._refined(some.start + i, slots[i][found[i]], distances[i][found[i]])
            best[i, : len(near)], ids[i, : len(near)] = near, named

        parallel.run(refine, range(len(slots)), threads)
        return best, ids

    def _refined(self, query: int, slots: Array, distances: Array) -> tuple[Array, Array]:
        """Distances and ids of the k nearest of some rows, whose distances in the first stage's prefix are known."""
        order = np.argsort(slots)
        slots, distances = slots[order], distances[order]
        for number, step in enumerate(self.steps[1:], 1):
            begun = perf_counter()
            known = known_bits(self.steps[number - 1], step)
            if known == 0:
                distances[:] = 0
            self._count(query, known, step.dims, slots, distances)
            if number < len(self.steps) - 1:
                kept = smallest(distances, step.keep)
                slots, distances = slots[kept], distances[kept]
                self.kept[number] += len(slots)
            else:
                ids = self._named(slots)
                kept = smallest(distances, step.keep, ids)
                slots, distances = ids[kept], distances[kept]
            self.seconds[number] += perf_counter() - begun
        return distances, slots

    def _count(self, query: int, known: int, bits: int, slots: Array, distances: Array) -> None:
        """Add the bits [`known`, `bits`) in which rows differ from a query; slots ascend."""
        listing, step = backends.current().list_bits, max(LIST_WORDS * 64 // bits, 1)
        for part, start, first, last in self._by_part(slots):
            words = part.words
            for at in range(first, last, step):
                parallel.check()
                some = slice(at, min(at + step, last))
                rows = (slots[some] - start).astype(np.int32)
                listing(
                    words.words, words.starts, words.bounds, known, bits, self.queries[query], rows, distances[some]
                )

    def _by_part(self, slots: Array) -> list[tuple[BitPart, int, int, int]]:
        """Parts, where their slots begin, and which of the slots, which ascend, are theirs."""
        cuts = np.searchsorted(slots, self.starts).tolist()
        return list(zip(self.parts, self.starts, cuts, [*cuts[1:], len(slots)], strict=True))

    def _named(self, slots: Array) -> Array:
        ids = np.empty(len(slots), np.int64)
        for part, start, first, last in self._by_part(slots):
            rows = slots[first:last] - start
            ids[first:last] = part.ids[rows] if part.ids.size else rows + part.base
        return ids


def known_bits(before: Step, step: Step) -> int:
    """Leading bits that the stage before has counted and this one need not count again."""
    return before.dims if before.dims <= step.dims else 0


def smallest(values: Array, count: int, ids: Array | None = None) -> Array:
    """Places of the `count` smallest values: ascending, equal ones by place; with `ids` by value, then id."""
    if count < len(values):
        limit = np.partition(values, count - 1)[count - 1]
        places = np.flatnonzero(values <= limit)
    else:
        places = np.arange(len(values))
    if ids is not None:
        return places[np.lexsort((ids[places], values[places]))[:count]]
    if len(places) > count:
        equal = np.flatnonzero(values[places] == limit)
        places = np.delete(places, equal[len(equal) - (len(places) - count) :])
    return places


def cut_words(queries: Array, bounds: Array, bits: int) -> Array:
    """What `query_words` gives for `bits` bits, of words for at least as many."""
    level = int(np.searchsorted(bounds, bits))
    inside = bits - int(bounds[level - 1] if level else 0)
    width = total_width(bounds[:level], 64) // 64 + -(-inside // 64)
    words = queries[:, :width].copy()
    words[:, -1] &= np.uint64(2**64 - 2 ** (-inside % 64))
    return words


def words_between(bounds: Array, begin: int, bits: int) -> int:
    """Words of a row that hold bits [`begin`, `bits`)."""
    ends, begins = np.minimum(bounds, bits), np.concatenate([[0], bounds[:-1]])
    skipped = np.maximum(begin - begins, 0) // 64
    return int(np.where(ends > begin, -(-(ends - begins) // 64) - skipped, 0)[begins < bits].sum())
