"""`NestedIndex`: every vector stored once, searched exactly at any number of leading dims."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import arrays, backends, parallel
from .parallel import threads_for
from .planes import BLOCK, Segment, aligned, padded
from .search import ROW_SUFFIX, Part, Task, as_results, top_k, widened

Array = npt.NDArray[Any]

STORED = {"float32": np.float32, "float16": np.uint16, "bfloat16": np.uint16}  # half types are kept as their bits
SMALLEST, GROWTH = 1024, 1 / 32  # room in a new segment, in rows and as a share of the index
ADD_ROWS = 4096  # rows converted and packed at a time


class Stored(NamedTuple):
    """A segment and how many of its rows count."""

    segment: Segment
    n: int


class Contents(NamedTuple):
    """What an index holds; replaced as a whole, so that a reader or an interrupt never sees half of an `add`."""

    stored: tuple[Stored, ...]
    next_id: int


class NestedIndex:
    """Exact top-k over nested (Matryoshka) vectors, at any number of leading dims.

    Each level keeps an int8 plane of its dims and bounds on what the codes leave out. A search scans the planes, then
    scores the few rows that can still matter from the stored rows, in float64: the ids are those of brute force.

    Parameters
    ----------
    d : int
        Dims of a vector, 1 to 65,536.
    levels : iterable of int, optional
        Nesting boundaries, ascending; d is added. Default: 64, 128, 256, ... below d, and d. A search with `dims` at a
        boundary scans planes; any other `dims` is as exact but reads the stored rows.
    metric : {"ip", "l2", "cosine"}
        Inner product; squared Euclidean distance; cosine of the leading `dims`, each prefix normalised on both sides.
    rows : {"float32", "float16", "bfloat16"}
        How rows are stored. Searches are exact for the rows as stored.

    Notes
    -----
    Memory is 4 d (or 2 d) bytes for a stored row, d for its planes and 12 per level. Any number of threads may search
    while one adds; a search sees the index before or after an `add`.

    References
    ----------
    Kusupati et al., "Matryoshka Representation Learning", NeurIPS 2022, arXiv 2205.13147.

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> x = np.random.default_rng(0).standard_normal((1000, 128), dtype=np.float32)
    >>> index = nv.NestedIndex(128, levels=(32, 64), metric="cosine")
    >>> index.add(x)
    >>> D, I = index.search(x[:2], k=3, dims=64)
    >>> I[:, 0].tolist()
    [0, 1]
    """

    def __init__(self, d: int, levels: Iterable[int] | None = None, metric: str = "ip", rows: str = "float32") -> None:
        self._d = arrays.integer(d, "d", 1, arrays.MAX_DIMS)
        self._bounds = arrays.level_bounds(levels, self._d)
        self._metric = arrays.one_of(metric, "metric", tuple(arrays.METRICS))
        self._row_type = arrays.one_of(rows, "rows", arrays.ROW_TYPES)
        self._contents = Contents((), 0)
        self._positions: dict[int, int] | None = None  # id to position, once ids were given
        self._writing = threading.Lock()

    @property
    def d(self) -> int:
        """Dims of a stored vector."""
        return self._d

    @property
    def levels(self) -> tuple[int, ...]:
        """Nesting boundaries, ascending; the last is `d`."""
        return tuple(self._bounds.tolist())

    @property
    def metric(self) -> str:
        """``"ip"``, ``"l2"`` or ``"cosine"``."""
        return self._metric

    @property
    def rows(self) -> str:
        """Type of the stored rows."""
        return self._row_type

    @property
    def ntotal(self) -> int:
        """Number of stored vectors."""
        return sum(n for _, n in self._contents.stored)

    def __len__(self) -> int:
        return self.ntotal

    def __repr__(self) -> str:
        return (
            f"NestedIndex(d={self.d}, levels={self.levels}, metric={self.metric!r}, rows={self.rows!r}, "
            f"ntotal={self.ntotal})"
        )

    def memory_usage(self) -> int:
        """Bytes of memory held: rows, planes, bounds and ids, room for further rows included."""
        return sum(segment.nbytes for segment, _ in self._contents.stored)

    def add(self, x: Any, ids: Any = None, *, threads: int | None = None) -> None:
        """Append vectors; after an error the index is as it was.

        Parameters
        ----------
        x : (n, d) array
            Floating point (float16, bfloat16, float32, float64) or integer values, any strides and byte order; finite.
        ids : (n,) int64, optional
            Unique, not negative. Default: consecutive, from one above the largest id so far.
        threads : int, optional
            Default: all cores this process may use.

        Raises
        ------
        ValueError
            Wrong shape; NaN or Inf, or a value beyond the type of the stored rows (row and column named); repeated ids.
        TypeError
            A dtype that holds no real numbers.
        """
        x = arrays.vectors(x, "x", self._d)
        given = None if ids is None else arrays.int64_ids(ids, len(x))
        workers = threads_for(threads, len(x) * self._d * 8)
        with self._writing:
            self._refuse_known(given, len(x))
            stored, written = list(self._contents.stored), 0
            undo = [(s, s.blocks[:, n // BLOCK :].copy(), n // BLOCK) for s, n in stored[-1:] if n < s.capacity]
            try:
                while written < len(x):
                    written += self._append(stored, x, written, given, workers)
            except BaseException:
                for segment, maxima, block in undo:
                    segment.blocks[:, block:] = maxima
                raise
            self._commit(stored, given, len(x))

    def search(self, q: Any, k: int, *, dims: int | None = None, threads: int | None = None) -> tuple[Array, Array]:
        """The k best rows for each query, exactly.

        Parameters
        ----------
        q : (nq, d) array
            Queries, of any type `add` takes. A single vector (d,) is one query; with `dims`, (nq, dims) is enough.
        k : int
            Results per query, at least 1.
        dims : int, optional
            Leading dims to search, 1 to d; default d. At a level boundary planes are scanned, elsewhere stored rows.
        threads : int, optional
            Default: all cores this process may use, one for little work.

        Returns
        -------
        D : (nq, k) float32
            Inner products or cosines, descending; squared distances, ascending, for ``l2``.
        I : (nq, k) int64
            Ids, ties by smaller id. Where fewer than k rows exist: id -1 and score -inf (``l2``: inf).

        Raises
        ------
        ValueError
            Empty index, k < 1, `dims` out of range, wrong shape, NaN or Inf (row and column named).
        TypeError
            A dtype that holds no real numbers, a `k` or `dims` that is no integer.
        """
        dims = self._d if dims is None else arrays.integer(dims, "dims", 1, self._d)
        k = arrays.result_count(k)
        queries = arrays.queries(q, self._d, dims)
        stored = self._contents.stored
        total = sum(n for _, n in stored)
        if total == 0:
            raise ValueError("the index is empty; add vectors before searching")
        workers = threads_for(threads, len(queries) * total * dims)
        task = Task(queries, min(k, total), dims, self._metric, self._row_type)
        level = int(np.searchsorted(self._bounds, dims))
        bounds = self._bounds[: level + 1] if self._bounds[level] == dims else None
        scores, found = top_k([Part(segment, 0, n) for segment, n in stored], task, bounds, workers)
        return as_results(scores, found, k, self._metric)

    def reconstruct(self, ids: Any) -> Array:
        """Stored vectors by id: (d,) float32 for one id, (n, d) for an array of ids, as stored.

        Raises
        ------
        KeyError
            For an id that is not in the index.
        """
        wanted = np.asarray(ids)
        if wanted.dtype.kind not in "iu" and wanted.size:
            raise TypeError(f"ids must be integers, got dtype {wanted.dtype}")
        result = np.empty((wanted.size, self._d), np.float32)
        for at, wanted_id in enumerate(wanted.reshape(-1).tolist()):
            segment, position = self._locate(wanted_id)
            result[at] = widened(segment.rows[position : position + 1], self._row_type)[0]
        return result.reshape(*wanted.shape, self._d)

    def _locate(self, wanted: int) -> tuple[Segment, int]:
        position = wanted if self._positions is None else self._positions.get(wanted, -1)
        for segment, n in self._contents.stored:
            if 0 <= position < n:
                return segment, position
            position -= n
        raise KeyError(f"id {wanted} is not in the index")

    def _refuse_known(self, given: Array | None, count: int) -> None:
        if given is None:
            if self._contents.next_id + count > 2**63:
                raise ValueError(f"no int64 id is left above {self._contents.next_id - 1}; pass ids=")
            return
        known = range(self._contents.next_id) if self._positions is None else self._positions
        for new in given.tolist():
            if new in known:
                raise ValueError(f"id {new} is in the index already; ids must be unique")

    def _append(self, stored: list[Stored], x: Array, at: int, given: Array | None, workers: int) -> int:
        """Write rows of `x` from `at` on into the last segment, or a new one; how many went in."""
        next_id = self._contents.next_id + at
        if not stored or not self._fits(stored[-1], given, next_id):
            stored.append(Stored(self._new_segment(len(x) - at, given, next_id), 0))
        segment, n = stored[-1]
        count = min(len(x) - at, segment.capacity - n)
        if given is not None:
            segment.ids[n : n + count] = given[at : at + count]
        cuts = sorted({n, n + count, *range(padded(n + 1, BLOCK), n + count, ADD_ROWS)})  # a block has one writer
        spans = list(pairwise(cuts))
        parallel.run(lambda span: self._write(segment, x, at - n, *span), spans, workers)
        stored[-1] = Stored(segment, n + count)
        return count

    def _fits(self, last: Stored, given: Array | None, next_id: int) -> bool:
        segment, n = last
        consecutive = segment.ids.size == 0 and segment.base + n == next_id
        return n < segment.capacity and (consecutive if given is None else segment.ids.size > 0)

    def _new_segment(self, count: int, given: Array | None, base: int) -> Segment:
        growth = max(int(self.ntotal * GROWTH), SMALLEST)
        capacity = padded(min(max(count, growth), arrays.MAX_ROWS), BLOCK)
        rows = aligned((capacity, self._d), STORED[self._row_type])
        ids = np.empty(0 if given is None else capacity, np.int64)
        return Segment.allocate(rows, capacity, self._bounds, ids, base if given is None else 0)

    def _write(self, segment: Segment, x: Array, shift: int, first: int, last: int) -> None:
        """Rows [first, last) of a segment from the same rows of `x`, shifted: stored rows, codes and bounds."""
        source = x[first + shift : last + shift]
        values = arrays.to_float32(source, "x", first + shift)
        kernels = backends.current()
        target = segment.rows[first:last]
        if self._row_type == "float32":
            target[:] = values
        else:
            getattr(kernels, f"narrow_{ROW_SUFFIX[self._row_type]}")(values.reshape(-1), target.reshape(-1))
            arrays.refuse_overflow(target, source, self._row_type, first + shift)
            values = widened(target, self._row_type)
        kernels.pack_rows(values, self._bounds, segment.starts, first, segment.codes, segment.stats, segment.blocks)

    def _commit(self, stored: list[Stored], given: Array | None, count: int) -> None:
        before, total = self._contents.next_id, self.ntotal
        if given is not None and self._positions is None:
            self._positions = {row_id: row_id for row_id in range(total)}
        if self._positions is not None:
            new = range(before, before + count) if given is None else given.tolist()
            self._positions.update(zip(new, range(total, total + count), strict=True))
        highest = before + count if given is None else max(given.tolist(), default=-1) + 1
        self._contents = Contents(tuple(stored), max(before, highest))
