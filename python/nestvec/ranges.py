"""Range search: all rows whose exact score reaches a value, certified as top-k is.

Scans of the int8 planes keep the rows whose upper bound reaches the value; each of them is scored exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from . import backends, parallel, slices
from .arrays import METRICS
from .gather import pieces
from .parts import Part, Task, split_queries, split_rows
from .planes import BLOCK, Array, Segment
from .search import PACK_ROWS, PACK_VALUES, RESCORE_COST, RESCORE_VALUES, ROW_SUFFIX, Scan, packed_part

ROOM = 4096  # places for candidates of a query
GROUP = 64  # queries that share a scan


def within(
    parts: Sequence[Part], task: Task, bounds: Array | None, least: float, threads: int
) -> list[tuple[Array, Array]]:
    """Scores (float64, at least `least`) and ids for each query, best first, ties by smaller id.

    Parameters
    ----------
    parts, task, bounds, threads
        As for `nestvec.search.top_k`; ``task.k`` is not read.
    """
    found: list[tuple[Array, Array]] = []
    for some, own in split_queries(task, parts, GROUP):
        shares = parallel.run(
            partial(_search, task=some, bounds=bounds, least=least), split_rows(own, threads), threads
        )
        for query in zip(*shares, strict=True):
            scores, ids = (np.concatenate(column) for column in zip(*query, strict=True))
            order = np.lexsort((ids, -scores))
            found.append((scores[order], ids[order]))
    return found


class RangeScan(Scan):
    """A scan whose thresholds stay; candidates are scored, not ranked."""

    def __init__(self, task: Task, bounds: Array, least: float) -> None:
        super().__init__(replace(task, k=ROOM // 2), bounds)
        self.least = least
        count = len(task.queries)
        self.found: list[list[tuple[Array, Array]]] = [[] for _ in range(count)]
        p = self.packed
        p.thresholds[:count] = threshold(least, p.multiply, p.offset)

    def _rescore(self, segment: Segment, take: int) -> None:
        p = self.packed
        for query in np.flatnonzero(p.counts).tolist():
            listed = p.rows[query, : p.counts[query]]
            for some in slices.steps(len(listed), self.task.dims + RESCORE_COST, RESCORE_VALUES):
                parallel.check()
                scored = score_listed(self.task, self.wide, segment, query, listed[some], self.least)
                self.found[query].append(scored)
        p.counts[:] = 0


def threshold(least: float, multiply: Array, offset: Array) -> Array:
    """A score in the units of each query's upper bounds, rounded down; see `nestvec.kernels.lanes.threshold`."""
    with np.errstate(all="ignore"):
        scaled = least * multiply
        low = scaled + offset - (np.abs(scaled) + np.abs(offset)) * 2.0**-19 - 1e-43
        result = np.minimum(low, 3e38).astype(np.float32)
    return np.where(np.isnan(result), np.float32(-np.inf), result)


def score_listed(
    task: Task, wide: Array, segment: Segment, query: int, listed: Array, least: float
) -> tuple[Array, Array]:
    """Exact scores of some rows of a segment that reach a value, and their ids."""
    scores, ids = np.full((1, len(listed)), -np.inf), np.full((1, len(listed)), -1, np.int64)
    getattr(backends.current(), f"list_{ROW_SUFFIX[task.row_type]}")(
        wide[query : query + 1], segment.rows, task.dims, METRICS[task.metric], segment.ids, segment.base, listed,
        scores, ids,
    )  # fmt: skip
    kept = scores[0] >= least
    return scores[0][kept], ids[0][kept]


def _search(parts: Sequence[Part], task: Task, bounds: Array | None, least: float) -> list[tuple[Array, Array]]:
    nothing = np.empty(0), np.empty(0, np.int64)
    scan = RangeScan(task, np.asarray([task.dims], np.int64) if bounds is None else bounds, least)
    step = max(min(PACK_ROWS, PACK_VALUES // task.dims // BLOCK * BLOCK), BLOCK)
    for part in parts:
        if bounds is not None:
            scan.run([part])
            continue
        for piece in pieces(part, task.dims, step):
            scan.run([packed_part(piece, task)])
    return [tuple(map(np.concatenate, zip(nothing, *query, strict=True))) for query in scan.found]  # type: ignore[misc]
