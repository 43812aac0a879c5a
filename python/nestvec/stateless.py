"""Searches over arrays that people bring themselves: nothing is kept between calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import arrays, backends, parallel, slices
from .parallel import limited, threads_for
from .parts import Part, Task
from .planes import Segment
from .search import ROW_SUFFIX, SLICE, SLOW, as_results, top_k

Array = npt.NDArray[Any]

CACHED, LARGEST = 2**18, 2**22  # values of rows scored at a time: in the cache for many queries, more for few


@limited
def prefix_topk(
    q: Any,
    x: Any,
    k: int,
    *,
    dims: int | None = None,
    metric: str = "ip",
    threads: int | None = None,
    timeout: float | None = None,
) -> tuple[Array, Array]:
    """The k best rows of `x` for each query, exactly, over the leading `dims`.

    With 16 queries or more, rows are quantised on the way, a few thousand at a time, and only those that can
    matter are scored in float64; a score matrix is never made.

    Parameters
    ----------
    q : (nq, d) array
        Queries: floating point or integer, any strides; (d,) is one query and (nq, dims) is enough.
    x : (n, d) array
        Rows. float32, float16 and bfloat16 with contiguous dims are read in place, so ``x[:, :256]`` costs no copy.
    k : int
        Results per query, at least 1.
    dims : int, optional
        Leading dims to compare, 1 to d; default d.
    metric : {"ip", "l2", "cosine"}
    threads : int, optional
        Default: all cores this process may use, one for little work.
    timeout : float, optional
        Seconds after which the search ends with a TimeoutError, between two steps of some milliseconds.

    Returns
    -------
    D : (nq, k) float32
        Inner products or cosines, descending; squared distances, ascending, for ``l2``.
    I : (nq, k) int64
        Row numbers, ties by smaller number; -1 with score -inf (``l2``: inf) where there are fewer than k rows.

    Raises
    ------
    ValueError
        Shapes that do not fit, k < 1, `dims` out of range, NaN or Inf (row and column named).
    TypeError
        A dtype that holds no real numbers.
    TimeoutError
        After `timeout`.

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> D, I = nv.prefix_topk(np.float32([[1, 0, 9]]), np.float32([[1, 2, 0], [3, 0, 0]]), 2, dims=2)
    >>> D.tolist(), I.tolist()
    ([[3.0, 1.0]], [[1, 0]])
    """
    k = arrays.result_count(k)
    queries, rows, row_type, dims = _pair(q, x, dims, metric)
    none = np.empty(0, np.int64)
    segment = Segment.unpacked(rows, none)
    task = Task(queries, min(k, len(rows)), dims, metric, row_type)
    parts = [Part(segment, 0, len(rows))] if len(rows) else []
    scores, ids = top_k(parts, task, None, threads_for(threads, len(queries) * len(rows) * dims))
    return as_results(scores, ids, k, metric)


def prefix_scores(q: Any, x: Any, *, dims: int | None = None, metric: str = "ip", threads: int | None = None) -> Array:
    """Scores of all rows of `x` for each query over the leading `dims`: sums in float64, rounded to float32.

    Parameters
    ----------
    q, x, dims, metric, threads
        As for `prefix_topk`.

    Returns
    -------
    (nq, n) float32
        Inner products, cosines, or squared distances for ``l2``.

    Raises
    ------
    ValueError, TypeError
        As `prefix_topk`.

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> nv.prefix_scores(np.float32([[3, 4]]), np.float32([[3, 4], [0, 0]]), metric="l2").tolist()
    [[0.0, 25.0]]
    """
    queries, rows, row_type, dims = _pair(q, x, dims, metric)
    out = np.empty((len(queries), len(rows)), np.float32)
    score = getattr(backends.current(), f"scores_{ROW_SUFFIX[row_type]}")
    wide = slices.converted(queries, np.float64)

    def part(piece: slice) -> None:
        for some in slices.steps(len(wide), (piece.stop - piece.start) * dims, int(SLICE * SLOW)):
            parallel.check()
            found = np.empty((some.stop - some.start, piece.stop - piece.start), np.float32)
            score(wide[some], rows[piece], dims, arrays.METRICS[metric], found)
            slices.copy(-found if metric == "l2" else found, out[some, piece])

    workers = threads_for(threads, len(queries) * len(rows) * dims)
    values = max(CACHED, min(LARGEST, int(SLICE * SLOW) // max(len(wide), 1)))
    parallel.run(part, list(slices.steps(len(rows), dims, values)), workers)
    return out


def _pair(q: Any, x: Any, dims: int | None, metric: str) -> tuple[Array, Array, str, int]:
    arrays.one_of(metric, "metric", tuple(arrays.METRICS))
    rows = arrays.vectors(x, "x")
    d = rows.shape[1]
    dims = d if dims is None else arrays.integer(dims, "dims", 1, d)
    queries = arrays.queries(q, d, dims)
    rows, row_type = arrays.readable_rows(rows[:, :dims])
    return queries, rows, row_type, dims
