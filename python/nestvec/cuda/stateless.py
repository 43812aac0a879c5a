"""Searches over arrays in the memory of a GPU, or copied there: nothing is kept between calls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import arrays
from ..search import Task, as_results
from ..stateless import checked_pair
from .dense import GROUP, TYPES, Exact, Resident
from .device import Device, DeviceArray
from .lists import RESULTS, Names

Array = npt.NDArray[Any]

SCORES = 2**26  # made at a time


class Given(Resident):
    """Rows as they were given, without planes; their numbers are their ids."""

    def __init__(self, rows: DeviceArray, row_type: str) -> None:
        self.device, self.rows, self.row_type = rows.device, rows, row_type
        self.n = self.capacity = len(rows)
        self.bounds = np.asarray(rows.shape[1:], np.int64)
        self.names, self.gaps = Names(None, 0, self.n), False


def prefix_topk(
    q: Any,
    x: Any,
    k: int,
    *,
    dims: int | None = None,
    metric: str = "ip",
    device: str | Device = "cuda",
    stream: int = 0,
) -> tuple[Array, Array]:
    """The k best rows of `x` for each query, exactly, over the leading `dims`: `nestvec.prefix_topk` on a GPU.

    Parameters
    ----------
    q : (nq, d) array
        Queries: floating point or integer; (d,) is one query and (nq, dims) is enough.
    x : (n, d) array
        Rows, of the host, which are copied to the device first, or of the device, which are read in place. NaN and Inf
        are noticed in rows of the host only.
    k : int
        Results per query, 1 to 2048.
    dims : int, optional
        Leading dims to compare, 1 to d; default d.
    metric : {"ip", "l2", "cosine"}
    device : str or Device
        Where to search; rows of a device stay on theirs.
    stream : int
        Handle of the CUDA stream to use.

    Returns
    -------
    D : (nq, k) float32
        Inner products or cosines, descending; squared distances, ascending, for ``l2``.
    I : (nq, k) int64
        Row numbers, ties by smaller number; -1 with score -inf (``l2``: inf) where there are fewer than k rows.

    Raises
    ------
    ValueError
        Shapes that do not fit, k out of range, `dims` out of range, NaN or Inf (row and column named).
    TypeError
        A dtype that holds no real numbers.
    MemoryError
        If the device has no room.
    """
    k = arrays.result_count(k)
    rows, task = _task(q, x, dims, metric, device, stream)
    task = replace(task, k=min(k, rows.n))
    if task.k > RESULTS:
        raise ValueError(f"k={k}; a GPU lists at most {RESULTS} results a query: search on the CPU")
    shape = (len(task.queries), task.k)
    scores, ids = np.empty(shape), np.empty(shape, np.int64)
    for first in range(0, len(scores) if rows.n else 0, GROUP):
        some = slice(first, first + GROUP)
        best = Exact(rows, replace(task, queries=task.queries[some]), stream).run(None, None, 0)
        scores[some], ids[some] = best.scores.numpy(stream), best.ids.numpy(stream)
    return as_results(scores, ids, k, metric)


def prefix_scores(
    q: Any,
    x: Any,
    *,
    dims: int | None = None,
    metric: str = "ip",
    device: str | Device = "cuda",
    stream: int = 0,
) -> Array:
    """Scores of all rows of `x` for each query over the leading `dims`: sums in float64, rounded to float32.

    Parameters
    ----------
    q, x, dims, metric, device, stream
        As for `prefix_topk`.

    Returns
    -------
    (nq, n) float32
        Inner products, cosines, or squared distances for ``l2``.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `prefix_topk`.
    """
    rows, task = _task(q, x, dims, metric, device, stream)
    out = np.empty((len(task.queries), rows.n), np.float32)
    step = max(SCORES // max(rows.n, 1), 1)
    for first in range(0, len(out), step):
        some = task.queries[first : first + step]
        found = rows.device.empty((len(some), rows.n), np.float32, stream)
        search = Exact(rows, replace(task, queries=some), stream)
        search.native.scores_of_rows(search.vectors, found.buffer, stream)
        out[first : first + step] = found.numpy(stream)
    return out


def _task(q: Any, x: Any, dims: int | None, metric: str, device: str | Device, stream: int) -> tuple[Given, Task]:
    """Rows on the device and what is asked of them, for one result."""
    if not isinstance(x, DeviceArray):
        queries, rows, row_type, dims = checked_pair(q, x, dims, metric)
        place = device if isinstance(device, Device) else Device(device)
        place.activate()
        return Given(place.put(rows, stream), row_type), Task(queries, 1, dims, metric, row_type)
    arrays.one_of(metric, "metric", tuple(arrays.METRICS))
    row_type = getattr(x, "type", x.dtype.name)
    if row_type not in TYPES:
        raise TypeError(f"x has type {row_type}; rows of a device must be {', '.join(TYPES)}, convert them first")
    if len(x.shape) != 2 or x.shape[1] == 0:
        raise ValueError(f"x must be a 2-D array (n, d) with at least one dim, got shape {x.shape}")
    d = x.shape[1]
    dims = d if dims is None else arrays.integer(dims, "dims", 1, d)
    x.device.activate()
    return Given(x, row_type), Task(arrays.queries(q, d, dims), 1, dims, metric, row_type)
