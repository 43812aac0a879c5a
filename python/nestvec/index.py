"""`NestedIndex`: every vector stored once, searched exactly at any number of leading dims."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from . import arrays, backends
from .container import Container
from .parallel import threads_for
from .planes import BLOCK, Segment, aligned
from .search import ROW_SUFFIX, Part, Task, as_results, top_k, widened

Array = npt.NDArray[Any]

STORED = {"float32": np.float32, "float16": np.uint16, "bfloat16": np.uint16}  # half types are kept as their bits


class NestedIndex(Container[Segment]):
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
        super().__init__()

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

    def __repr__(self) -> str:
        return (
            f"NestedIndex(d={self.d}, levels={self.levels}, metric={self.metric!r}, rows={self.rows!r}, "
            f"ntotal={self.ntotal})"
        )

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
        self._add(x, ids, threads_for(threads, len(x) * self._d * 8))

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
        return self._gather(ids, self._d, np.float32, self._read)

    def _read(self, segment: Segment, row: int) -> Array:
        return widened(segment.rows[row : row + 1], self._row_type)[0]

    def _allocate(self, capacity: int, ids: Array, base: int) -> Segment:
        rows = aligned((capacity, self._d), STORED[self._row_type])
        return Segment.allocate(rows, capacity, self._bounds, ids, base)

    def _checkpoint(self, segment: Segment, n: int) -> Callable[[], None]:
        block = n // BLOCK
        maxima = segment.blocks[:, block:].copy()

        def restore() -> None:
            segment.blocks[:, block:] = maxima

        return restore

    def _write(self, segment: Segment, x: Array, shift: int, first: int, last: int) -> None:
        """Stored rows, codes and bounds."""
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
