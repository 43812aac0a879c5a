"""The best of a shortlist, and results in order."""

from __future__ import annotations

from typing import Any

import numpy as np

from .lanes import njit, sink


@njit
def keep_best(rows: Any, sums: Any, values: Any, counts: Any, keep: int) -> float:
    """Leave the `keep` best of the listed rows, in the order they have; of equal values the first.

    Parameters
    ----------
    rows, sums, values, counts
        As `scan_b1` leaves them; values without NaN.

    Returns
    -------
    float
        The least of the values that are left; inf if there is none.
    """
    count = counts[0]
    if count <= keep:
        return np.float32(np.inf) if count == 0 else np.min(values[:count])  # type: ignore[return-value]
    least = np.partition(values[:count], count - keep)[count - keep]
    ties = keep
    for c in range(count):
        if values[c] > least:
            ties -= 1
    kept = 0
    for c in range(count):
        if values[c] < least:
            continue
        if values[c] == least:
            if ties == 0:
                continue
            ties -= 1
        rows[kept] = rows[c]
        sums[kept] = sums[c]
        values[kept] = values[c]
        kept += 1
    counts[0] = kept
    return least  # type: ignore[no-any-return]


@njit
def order_best(scores: Any, ids: Any, sign: float, values: Any) -> None:
    """Order the results of each query, best first, ties by smaller id.

    Parameters
    ----------
    scores : (nq, k) float64, without NaN;  ids : (nq, k) int64
        In any order.
    values : (nq, k) float32
        `sign` times the scores, then.
    """
    for i in range(scores.shape[0]):
        for hole in range(scores.shape[1] // 2 - 1, -1, -1):
            sink(scores[i], ids[i], hole, scores[i, hole], ids[i, hole])
        for last in range(scores.shape[1] - 1, 0, -1):  # the root is the worst of what is not in its place yet
            score, row_id = scores[i, last], ids[i, last]
            scores[i, last], ids[i, last] = scores[i, 0], ids[i, 0]
            sink(scores[i, :last], ids[i, :last], 0, score, row_id)
        for place in range(scores.shape[1]):
            values[i, place] = np.float32(sign * scores[i, place])
