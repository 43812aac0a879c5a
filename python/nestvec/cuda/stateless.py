"""Searches over arrays in the memory of a GPU, or copied there: nothing is kept between calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import arrays
from .dense import GROUP, TYPES, DeviceTask, Exact, Resident
from .device import Device, DeviceArray, stream_handle
from .foreign import done_with, incoming, is_foreign, outgoing
from .lists import Names, refuse_many
from .queries import Asked, asked, like, refuse_bad, to_float32
from .resident import MOST_ROWS
from .results import Results

Array = npt.NDArray[Any]

SCORES = 2**28  # made at a time


class Given(Resident):
    """Rows as they were given, without planes; their numbers are their ids."""

    transform = None

    def __init__(self, rows: DeviceArray) -> None:
        if len(rows) > MOST_ROWS:
            raise ValueError(f"a GPU searches at most {MOST_ROWS} rows, x has {len(rows)}: split it")
        self.device, self.rows, self.row_type = rows.device, rows, rows.type
        self.n = self.capacity = len(rows)
        self.bounds = np.asarray([rows.pitch])
        self.names, self.gaps = Names(None, 0, self.n), False


class Pair:
    """Queries and rows on a device, checked as those of the CPU are."""

    def __init__(self, q: Any, x: Any, dims: int | None, metric: str, device: Device, stream: int, check: bool) -> None:
        arrays.one_of(metric, "metric", tuple(arrays.METRICS))
        given = incoming(x, device, "x", stream, wide=True) if is_foreign(x) else None
        rows = arrays.vectors(x if given is None else like(given, "x"), "x")
        self.transform, self.d, self.metric, self.stream = None, rows.shape[1], metric, stream
        self.dims = self.d if dims is None else arrays.integer(dims, "dims", 1, self.d)
        self.asked: Asked = asked(self, None, q, self.dims, device, stream)
        if check:
            refuse_bad(self.asked, self, q, self.dims, stream)
        if given is None:
            values, row_type = arrays.readable_rows(rows[:, : self.dims])
            given = device.put(values, stream)
            given.type = row_type
        elif given.type not in TYPES:
            given = to_float32(given, self.dims, None, stream)
        self.rows = Given(given)

    def searches(self, k: int, size: int) -> Iterator[tuple[int, int, Exact]]:
        """Searches of batches of queries, and the first and last of each."""
        queries = self.asked.values
        for first in range(0, len(queries), size):
            last = min(first + size, len(queries))
            task = DeviceTask(queries.rows(first, last), k, self.dims, self.metric, self.rows.row_type or "")
            yield first, last, Exact(self.rows, task, self.stream)


def prefix_topk(
    q: Any,
    x: Any,
    k: int,
    *,
    dims: int | None = None,
    metric: str = "ip",
    device: str | Device = "cuda",
    stream: Any = None,
    check: bool = True,
) -> tuple[Any, Any]:
    """The k best rows of `x` for each query, exactly, over the leading `dims`: `nestvec.prefix_topk` on a GPU.

    Parameters
    ----------
    q : (nq, d) array
        Queries, of the host or of the device: floating point or integer; (d,) is one query and (nq, dims) is enough.
    x : (n, d) array
        Rows, of the host, which are copied to the device first, or of the device: float32, float16 and bfloat16 with
        contiguous dims are read in place, so ``x[:, :256]`` costs no copy. A device's rows are not looked at before:
        those that hold NaN or Inf may be found or not.
    k : int
        Results per query, 1 to 2048.
    dims : int, optional
        Leading dims to compare, 1 to d; default d.
    metric : {"ip", "l2", "cosine"}
    device : str or Device
        Where to search. What is on a device must be on this one.
    stream : optional
        A stream of torch, cupy or cuda.core, or its handle. Default: the default stream.
    check : bool
        Whether queries of the device are looked at, which waits for them, so that NaN and Inf are an error as they are
        on the host. False: nothing waits, and queries with NaN or Inf find nothing.

    Returns
    -------
    D : (nq, k) float32
        Inner products or cosines, descending; squared distances, ascending, for ``l2``.
    I : (nq, k) int64
        Row numbers, ties by smaller number; -1 with score -inf (``l2``: inf) where there are fewer than k rows. Numpy
        arrays for queries of the host, else arrays of the same library on the device.

    Raises
    ------
    ValueError
        Shapes that do not fit, k or `dims` out of range, NaN or Inf (row and column named), arrays on another device.
    TypeError
        A dtype that holds no real numbers.
    MemoryError
        If the device has too little.
    """
    k, order = arrays.result_count(k), stream_handle(stream)
    place = _place(x, device)
    with place.active():
        pair = Pair(q, x, dims, metric, place, order, check)
        count = max(min(k, pair.rows.n), 1)
        refuse_many(count)
        results = Results(place, len(pair.asked.values), k, metric, pair.asked.bad, order)
        for first, last, search in pair.searches(count, GROUP):
            results.put(search.run(None, None, 0), first, last - first)
        for one in (q, x):
            done_with(one, order)
        return results.given(q, stream) if is_foreign(q) else results.numpy()


def prefix_scores(
    q: Any,
    x: Any,
    *,
    dims: int | None = None,
    metric: str = "ip",
    device: str | Device = "cuda",
    stream: Any = None,
    check: bool = True,
) -> Any:
    """Scores of all rows of `x` for each query over the leading `dims`: sums in float64, rounded to float32.

    Parameters
    ----------
    q, x, dims, metric, device, stream
        As for `prefix_topk`.
    check : bool
        As for `prefix_topk`; where nothing is looked at, NaN and Inf in queries of the device are taken as 0.

    Returns
    -------
    (nq, n) float32
        Inner products, cosines, or squared distances for ``l2``; a numpy array for queries of the host, else an array
        of the same library on the device.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `prefix_topk`.
    """
    order, place = stream_handle(stream), _place(x, device)
    with place.active():
        pair = Pair(q, x, dims, metric, place, order, check)
        shape = (len(pair.asked.values), pair.rows.n)
        stays = is_foreign(q)
        out: Any = place.empty(shape, np.float32, order) if stays else np.empty(shape, np.float32)
        for first, last, search in pair.searches(1, max(SCORES // max(pair.rows.n, 1), 1)):
            some = out.rows(first, last) if stays else place.empty((last - first, shape[1]), np.float32, order)
            search.native.scores_of_rows(search.vectors, some.buffer, order)
            if not stays:
                out[first:last] = some.numpy(order)
        for one in (q, x):
            done_with(one, order)
        if stays and not isinstance(stream, (int, type(None))):
            out.buffer.keep(stream)
        return outgoing(out, q) if stays else out


def _place(x: Any, device: str | Device) -> Device:
    return x.device if isinstance(x, DeviceArray) else Device.after(device, None)
