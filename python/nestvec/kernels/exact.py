"""Exact scores: float64 sums over float32, float16 or bfloat16 rows, for all rows, a top-k, or listed candidates.

Rows widen exactly to float32, products are exact in float64, and sixteen lanes fold in a fixed order, so a score
carries an error of about d 2^-53 and results order as float64 brute force orders them. Scores, higher is better:

- ``ip``: <q, x>
- ``l2``: -|q - x|^2
- ``cosine``: <q, x> / sqrt(|q|^2 |x|^2), and 0 where that is 0 / 0

Each kernel exists for the three row types; the factory below makes them from one loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .convert import widen_bf16, widen_f16
from .lanes import COSINE, L2, LANES, allows, better, fold, inline, may_find, njit, offer, threshold

AHEAD = 4  # candidates taken from the heap together, so that the reads of their rows overlap


class ExactKernels(NamedTuple):
    """The kernels for one row type."""

    scores: Callable[..., Any]
    topk: Callable[..., Any]
    listed: Callable[..., Any]
    rescore: Callable[..., Any]


@inline
def load_f32(source: Any, target: Any) -> None:
    """float32 rows need no widening."""
    for i in range(source.shape[0]):
        target[i] = source[i]


@inline
def load_f16(source: Any, target: Any) -> None:
    """float16 rows, as bits."""
    widen_f16(source, target)


@inline
def load_bf16(source: Any, target: Any) -> None:
    """bfloat16 rows, as bits."""
    widen_bf16(source, target)


@njit
def dot(a: Any, b: Any, acc: Any) -> float:
    """<a, b> over ``b.shape[0]`` dims."""
    acc[:] = 0.0
    whole = b.shape[0] // LANES * LANES
    for j in range(0, whole, LANES):
        for lane in range(LANES):
            acc[lane] += np.float64(a[j + lane]) * np.float64(b[j + lane])
    for lane in range(b.shape[0] - whole):
        acc[lane] += np.float64(a[whole + lane]) * np.float64(b[whole + lane])
    return fold(acc)


@njit
def squared_distance(a: Any, b: Any, acc: Any) -> float:
    """|a - b|^2 over ``b.shape[0]`` dims; the difference is rounded to float64 before it is squared."""
    acc[:] = 0.0
    whole = b.shape[0] // LANES * LANES
    for j in range(0, whole, LANES):
        for lane in range(LANES):
            difference = np.float64(a[j + lane]) - np.float64(b[j + lane])
            acc[lane] += difference * difference
    for lane in range(b.shape[0] - whole):
        difference = np.float64(a[whole + lane]) - np.float64(b[whole + lane])
        acc[lane] += difference * difference
    return fold(acc)


@njit
def squares(q: Any, dims: int, metric: int, acc: Any) -> Any:
    """|q|^2 of each query over the leading `dims`, or 0 where the metric does not need it."""
    result = np.zeros(q.shape[0])
    if metric == COSINE:
        for i in range(q.shape[0]):
            result[i] = dot(q[i], q[i, :dims], acc)
    return result


@njit
def score(query: Any, query_square: float, row: Any, row_square: float, metric: int, acc: Any) -> float:
    """One exact score; the squares are read for ``cosine`` only."""
    if metric == L2:
        return -squared_distance(query, row, acc)
    result = dot(query, row, acc)
    if metric == COSINE:
        square = query_square * row_square
        return result / math.sqrt(square) if square > 0.0 else 0.0
    return result


@njit
def _wanted(allowed: Any, row: int) -> bool:
    """Whether some query may find a row."""
    for some in range(allowed.shape[0]):
        if allows(allowed[some], row):
            return True
    return allowed.shape[0] == 0  # type: ignore[no-any-return]


def _kernels(load: Callable[..., Any]) -> ExactKernels:
    # `load` must be `inline`: Numba's cache tells closures apart by the pickles of what they close over, and a compiled
    # function pickles differently in each process, so nothing would be found again

    @njit
    def scores(q: Any, rows: Any, dims: int, metric: int, out: Any) -> None:
        """Exact scores of all rows, rounded to float32.

        Parameters
        ----------
        q : (nq, >= dims) float64
        rows : (n, >= dims), last axis contiguous
        out : (nq, n) float32
        """
        buffer = np.empty(dims, np.float32)
        acc = np.empty(LANES)
        square = squares(q, dims, metric, acc)
        for r in range(rows.shape[0]):
            load(rows[r, :dims], buffer)
            row_square = dot(buffer, buffer, acc) if metric == COSINE else 0.0
            for i in range(q.shape[0]):
                out[i, r] = np.float32(score(q[i], square[i], buffer, row_square, metric, acc))

    @njit
    def topk(
        q: Any,
        rows: Any,
        dims: int,
        metric: int,
        ids: Any,
        base: int,
        allowed: Any,
        best_scores: Any,
        best_ids: Any,
    ) -> None:
        """Offer every row, or those that a query may find, to the heaps of best results.

        Parameters
        ----------
        q : (nq, >= dims) float64
        rows : (n, >= dims), last axis contiguous
        ids : (n,) or (0,) int64
            Empty: row r has id `base` + r.
        allowed : (m, words) uint64
            As for `scan`, for the rows given; those that no query may find are not read.
        best_scores : (nq, k) float64;  best_ids : (nq, k) int64
            Heaps whose root is the worst kept result; -inf and -1 where empty.
        """
        buffer = np.empty(dims, np.float32)
        acc = np.empty(LANES)
        square = squares(q, dims, metric, acc)
        for r in range(rows.shape[0]):
            if not _wanted(allowed, r):
                continue
            load(rows[r, :dims], buffer)
            row_square = dot(buffer, buffer, acc) if metric == COSINE else 0.0
            row_id = ids[r] if ids.shape[0] > 0 else base + r
            for i in range(q.shape[0]):
                if may_find(allowed, i, r):
                    result = score(q[i], square[i], buffer, row_square, metric, acc)
                    offer(best_scores[i], best_ids[i], result, row_id)

    @njit
    def listed(
        q: Any, rows: Any, dims: int, metric: int, ids: Any, base: int, numbers: Any, best_scores: Any, best_ids: Any
    ) -> None:
        """Offer listed rows to the heap of one query's best results.

        Parameters
        ----------
        q, rows, dims, metric, ids, base, best_scores, best_ids
            As for `topk`; nq is 1.
        numbers : (m,) int32
            Rows.
        """
        buffer = np.empty(dims, np.float32)
        acc = np.empty(LANES)
        square = squares(q, dims, metric, acc)
        for r in numbers:
            load(rows[r, :dims], buffer)
            row_square = dot(buffer, buffer, acc) if metric == COSINE else 0.0
            row_id = ids[r] if ids.shape[0] > 0 else base + r
            offer(best_scores[0], best_ids[0], score(q[0], square[0], buffer, row_square, metric, acc), row_id)

    @njit
    def rescore(
        q: Any,
        rows: Any,
        dims: int,
        metric: int,
        ids: Any,
        base: int,
        take: int,
        multiply: Any,
        offset: Any,
        thresholds: Any,
        candidates: Any,
        upper: Any,
        counts: Any,
        best_scores: Any,
        best_ids: Any,
    ) -> int:
        """Score a scan's candidates exactly, best upper bound first, until none left can matter or `take` are done.

        Parameters
        ----------
        q, rows, dims, metric, ids, base, best_scores, best_ids
            As for `topk`.
        take : int
            How many to score per query, rounded up to a multiple of 4.
        multiply, offset : (nq,) float64
            Turn the k-th best score into `thresholds`, see `lanes.threshold`.
        thresholds : (>= nq,) float32
            Raised as results come in.
        candidates : (nq, room) int32;  upper : (nq, room) float32;  counts : (nq,) int64
            Consumed; what was not scored and may still matter is left, in heap order.

        Returns
        -------
        int
            Rows scored.
        """
        buffer = np.empty(dims, np.float32)
        acc = np.empty(LANES)
        square = squares(q, dims, metric, acc)
        scored = 0
        for i in range(q.shape[0]):
            size = counts[i]
            for hole in range(size // 2 - 1, -1, -1):
                _sift(upper[i], candidates[i], hole, size)
            taken = 0
            while taken < take and size > 0 and upper[i, 0] >= thresholds[i]:
                for _ in range(AHEAD):
                    if size == 0 or upper[i, 0] < thresholds[i]:
                        break
                    r = candidates[i, 0]
                    size -= 1
                    upper[i, 0] = upper[i, size]
                    candidates[i, 0] = candidates[i, size]
                    _sift(upper[i], candidates[i], 0, size)
                    taken += 1
                    load(rows[r, :dims], buffer)
                    row_square = dot(buffer, buffer, acc) if metric == COSINE else 0.0
                    row_id = ids[r] if ids.shape[0] > 0 else base + r
                    result = score(q[i], square[i], buffer, row_square, metric, acc)
                    offer(best_scores[i], best_ids[i], result, row_id)
                thresholds[i] = threshold(best_scores[i, 0], multiply[i], offset[i])
            scored += taken
            kept = 0
            for c in range(size):
                if upper[i, c] >= thresholds[i]:
                    upper[i, kept] = upper[i, c]
                    candidates[i, kept] = candidates[i, c]
                    kept += 1
            counts[i] = kept
        return scored

    return ExactKernels(scores, topk, listed, rescore)


@njit
def _sift(upper: Any, candidates: Any, hole: int, size: int) -> None:
    """Restore a heap of candidates, best upper bound (then smallest row) at the root, below `hole`."""
    bound = upper[hole]
    row = candidates[hole]
    while True:
        child = 2 * hole + 1
        if child >= size:
            break
        if child + 1 < size and better(upper[child + 1], candidates[child + 1], upper[child], candidates[child]):
            child += 1
        if not better(upper[child], candidates[child], bound, row):
            break
        upper[hole] = upper[child]
        candidates[hole] = candidates[child]
        hole = child
    if size > 0:
        upper[hole] = bound
        candidates[hole] = row


scores_f32, topk_f32, list_f32, rescore_f32 = _kernels(load_f32)
scores_f16, topk_f16, list_f16, rescore_f16 = _kernels(load_f16)
scores_bf16, topk_bf16, list_bf16, rescore_bf16 = _kernels(load_bf16)
