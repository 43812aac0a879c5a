"""`NestedIndex`: every vector stored once, searched at any number of leading dims, exactly or by a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import arrays, backends, slices
from .certificate import certified
from .coding import Frame
from .collection import changing, reading
from .container import Container, Contents
from .filters import allowed_words, words_of
from .parallel import limited, threads_for
from .parts import Part, Task
from .plan import CODES, Explanation, Stage, Step, refuse_rowless, refuse_unkept, resolve, staged
from .planes import BLOCK, NibblePlane, Segment, SignPlane, aligned, level_widths, padded
from .ranges import within
from .rotation import BlockRotation
from .search import as_ranges, as_results, explain_exact, kept, top_k, widened
from .stages import estimate, run_plan
from .transform import Transform, Untransformed, transform_of

if TYPE_CHECKING:
    from .tuning import Draw, Subject

Array = npt.NDArray[Any]

MEAN_ROWS = 65_536  # at most, of the first vectors added
MEAN_TRANSFORMED = 4096  # the same where each has to be transformed for it
STORED = {"float32": np.float32, "float16": np.uint16, "bfloat16": np.uint16}  # half types are kept as their bits


class NestedIndex(Container[Segment]):
    """Top-k over nested (Matryoshka) vectors, at any number of leading dims: exact, or faster by a plan.

    Each level keeps an int8 plane of its dims and bounds on what the codes leave out. A search scans the planes, then
    scores the few rows that can still matter from the stored rows, in float64: the ids are those of brute force. A plan
    names coarser codes to begin with and how many rows each stage keeps; it is as good as its shortlists. An index that
    only makes shortlists may keep codes alone.

    Parameters
    ----------
    d : int
        Dims of a vector as it is stored and searched, after `transform`; 1 to 65,536.
    levels : iterable of int, optional
        Nesting boundaries, ascending; d is added. Default: 64, 128, 256, ... below d, and d. A search with `dims` at a
        boundary scans planes; any other `dims` is as exact but reads the stored rows.
    metric : {"ip", "l2", "cosine"}
        Inner product; squared Euclidean distance; cosine of the leading `dims`, each prefix normalised on both sides.
    rows : {"float32", "float16", "bfloat16"} or None
        How rows are stored. Searches are exact for the rows as stored. None: rows are not stored, and every search
        needs a plan of codes; `reconstruct` is refused.
    codes : iterable of {"b1", "i4", "i8"}
        Codes to keep for plans: sign bits, the high halves of the int8 codes in a plane of their own, and the int8
        codes, which are kept with rows in any case; without rows only what is named is kept.
    center : bool
        Whether signs are taken of the row less the mean of the first vectors added. Without it, a mean that is large
        makes most signs alike.
    rotate : bool
        Whether vectors are rotated inside each level before their signs are taken, which helps where few dims hold most
        of a level's energy. Stages by signs then need `dims` at a level.
    transform : Transform or array, optional
        What vectors and queries go through first, as a rotation by `fit_rotation`: an orthogonal matrix (d, d), with
        which rows are multiplied as ``x @ matrix``; a permutation (d,) of dims; or a `Transform`, whose matrix
        (d_in, d) may be any. `levels`, `dims` and prefixes are then those of transformed vectors. A rotation keeps the
        inner products of whole vectors: exact searches find what they would without, but for ties up to rounding.

    Notes
    -----
    Memory is 4 d (or 2 d) bytes for a stored row; for ``i8`` d and 12 per level, for ``b1`` d / 8 and 6 per level, for
    ``i4`` d / 2 and 6 per level. Any number of threads may search while one adds; a search sees the index before or
    after an `add`.

    References
    ----------
    Kusupati et al., "Matryoshka Representation Learning", NeurIPS 2022, arXiv 2205.13147. Gao and Long, "RaBitQ",
    SIGMOD 2024, arXiv 2405.12497 (unbiased scores from signs).

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

    _on_gpu = "CudaNestedIndex"

    def __init__(
        self,
        d: int,
        levels: Iterable[int] | None = None,
        metric: str = "ip",
        rows: str | None = "float32",
        *,
        codes: Iterable[str] = ("b1",),
        center: bool = True,
        rotate: bool = False,
        transform: Transform | Any = None,
    ) -> None:
        self._d = arrays.integer(d, "d", 1, arrays.MAX_DIMS)
        self._bounds = arrays.level_bounds(levels, self._d)
        self._metric = arrays.one_of(metric, "metric", tuple(arrays.METRICS))
        self._row_type = None if rows is None else arrays.one_of(rows, "rows", arrays.ROW_TYPES)
        chosen = {arrays.one_of(code, "a code", CODES) for code in ([codes] if isinstance(codes, str) else codes)}
        if rows is not None:
            chosen.add("i8")
        if not chosen:
            raise ValueError('without rows an index must keep codes; name some, as codes=("b1",)')
        self._codes = tuple(code for code in CODES if code in chosen)
        self._center = bool(center)
        self._transform = transform_of(transform, self._d)
        rotation = BlockRotation(self._bounds) if rotate else None
        super().__init__(Frame(self._metric, self._bounds, np.zeros(self._d), rotation))

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
    def rows(self) -> str | None:
        """Type of the stored rows, None if there are none."""
        return self._row_type

    @property
    def codes(self) -> tuple[str, ...]:
        """Codes that stages may use, besides the stored rows, coarsest first."""
        return self._codes

    @property
    def transform(self) -> Transform | None:
        """What vectors and queries go through before they are stored and searched."""
        return self._transform

    def __repr__(self) -> str:
        more = f", codes={self.codes}" if self.rows is None else ""
        more += "" if self._transform is None else f", transform={self._transform}"
        return (
            f"NestedIndex(d={self.d}, levels={self.levels}, metric={self.metric!r}, rows={self.rows!r}{more}, "
            f"ntotal={self.ntotal})"
        )

    @changing
    def add(self, x: Any, ids: Any = None, *, threads: int | None = None) -> None:
        """Append vectors; after an error the index is as it was.

        Parameters
        ----------
        x : (n, d) array
            Floating point (float16, bfloat16, float32, float64) or integer values, any strides and byte order; finite.
            With a transform (n, transform.d_in), as vectors are before it.
        ids : (n,) int64, optional
            Unique, not negative. Default: consecutive, from one above the largest id so far.
        threads : int, optional
            Default: all cores this process may use.

        Raises
        ------
        ValueError
            Wrong shape; NaN or Inf, or a value beyond the type of the stored rows (row and column named), before or
            after the transform; repeated ids.
        TypeError
            A dtype that holds no real numbers.
        """
        self._add(x, ids, threads)

    def _incoming(self, x: Any, threads: int | None) -> tuple[Any, int]:
        through = self._transform
        if through is None:
            x = arrays.vectors(x, "x", self._d)
            return x, threads_for(threads, x.size * 8)
        x = arrays.vectors(x, "x")
        if x.shape[1] != through.d_in:
            raise ValueError(
                f"x has {x.shape[1]} dims, {through.d_in} are needed: the index transforms vectors itself and stores "
                f"{self._d} dims of each"
            )
        return Untransformed(x, through), threads_for(threads, x.size * (8 + self._d))

    @changing
    def _add_stored(self, x: Array, ids: Array, threads: int | None) -> None:
        self._keep(x, threads_for(threads, x.size * 8), ids)

    def _untransformed(self) -> NestedIndex:
        """The same rows in the same memory, to be asked by vectors as they are stored."""
        other = self.twin()
        other._transform = None
        return other

    def _refuse_unlike(self, other: NestedIndex) -> None:
        if other.d != self._d:
            raise ValueError(f"the other index has vectors of {other.d} dims, this one of {self._d}")
        if other._transform != self._transform:
            raise ValueError(
                f"the other index has the transform {_named(other._transform)}, this one {_named(self._transform)}; "
                "only rows of one transform can be merged"
            )
        other._refuse_rowless("merge")

    @limited
    @reading
    def search(
        self,
        q: Any,
        k: int,
        *,
        dims: int | None = None,
        plan: Any = None,
        recall: float | None = None,
        filter: Any = None,
        threads: int | None = None,
        timeout: float | None = None,
    ) -> tuple[Array, Array]:
        """The k best rows for each query, exactly unless a plan says otherwise.

        Parameters
        ----------
        q : (nq, d) array
            Queries, of any type `add` takes. A single vector (d,) is one query; with `dims`, (nq, dims) is enough. With
            a transform (nq, transform.d_in), always whole: `dims` are those after it.
        k : int
            Results per query, at least 1.
        dims : int, optional
            Leading dims to search, 1 to d; default d. At a level boundary planes are scanned, elsewhere stored rows.
        plan : Plan or list of Stage, optional
            Stages in order: the first scores all rows, each following one those that the one before kept, the last
            one ranks. The results are exact among the rows that reach a last stage ``"raw"``; by any other last stage
            scores are estimates.
        recall : float, optional
            Instead of a plan: find at least this share of the k best rows, on average, by the plan that `tune` found
            for this k and `dims`. If there is none yet, the search tunes first.
        filter : optional
            Which ids may be found: a boolean mask (n,) whose element i stands for id i; a `Bitmap`; an array of ids; or
            a `range`. Ids that a mask does not reach, and ids that are not in the index, are not found. One filter for
            each query: a mask or bitmap with one more axis, or a list with a filter, or None, for each.
        threads : int, optional
            Default: all cores this process may use, one for little work.
        timeout : float, optional
            Seconds after which the search ends with a TimeoutError, between two steps of some milliseconds.

        Returns
        -------
        D : (nq, k) float32
            Inner products or cosines, descending; squared distances, ascending, for ``l2``.
        I : (nq, k) int64
            Ids, ties by smaller id. Where fewer than k rows may be found: id -1 and score -inf (``l2``: inf).

        Raises
        ------
        ValueError
            Empty index, k < 1, `dims` out of range, wrong shape, NaN or Inf (row and column named); a plan that
            cannot be run, see `Stage`; no plan where no rows are stored; filters of another number than queries.
        TypeError
            A dtype that holds no real numbers, a `k` or `dims` that is no integer, a `plan` that is no list of stages,
            a filter of none of these kinds.
        TimeoutError
            After `timeout`.
        """
        k = arrays.result_count(k)
        plan = self._stages(plan, recall, k, dims, threads)
        if plan is None:
            self._refuse_rowless("exact search")
        contents, task, parts, bounds = self._ready(q, k, dims, filter)
        work = _work(task, parts)
        plan = staged(plan, len(task.queries), contents.ntotal)
        if plan is None:
            scores, ids = top_k(parts, task, bounds, threads_for(threads, work))
        else:
            steps = self._steps(plan, task.k, task.dims, contents.ntotal)
            run = run_plan(parts, steps, task, contents.frame, threads_for(threads, work // 16))
            scores, ids = run.scores, run.ids
        return as_results(scores, ids, k, self._metric)

    @limited
    @reading
    def range_search(
        self,
        q: Any,
        radius: float,
        *,
        dims: int | None = None,
        filter: Any = None,
        threads: int | None = None,
        timeout: float | None = None,
    ) -> tuple[Array, Array, Array]:
        """All rows that are at least as good as a score, exactly.

        Parameters
        ----------
        q, dims, filter, threads, timeout
            As for `search`.
        radius : float
            The smallest inner product or cosine that counts; for ``l2`` the largest squared distance. It is compared
            with float64 scores. (faiss leaves out what equals the radius.)

        Returns
        -------
        lims : (nq + 1,) int64
            The results of query i are those from ``lims[i]`` to ``lims[i + 1]``.
        D : (lims[-1],) float32
        I : (lims[-1],) int64
            Scores or squared distances, and ids; for each query best first, ties by smaller id.

        Raises
        ------
        ValueError, TypeError
            As `search`; a radius that is NaN.

        Examples
        --------
        >>> import numpy as np
        >>> import nestvec as nv
        >>> index = nv.NestedIndex(2, metric="l2")
        >>> index.add([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
        >>> lims, D, I = index.range_search([[0.0, 0.0], [6.0, 8.0]], 25.0)
        >>> lims.tolist(), D.tolist(), I.tolist()
        ([0, 2, 4], [0.0, 25.0, 0.0, 25.0], [0, 1, 2, 1])
        """
        limit = arrays.number(radius, "radius")
        self._refuse_rowless("range search")
        _, task, parts, bounds = self._ready(q, 1, dims, filter)
        least = -limit if self._metric == "l2" else limit
        found = within(parts, task, bounds, least, threads_for(threads, _work(task, parts)))
        return as_ranges(found, self._metric)

    @limited
    @reading
    def explain(
        self,
        q: Any,
        k: int,
        plan: Any = None,
        *,
        dims: int | None = None,
        filter: Any = None,
        timeout: float | None = None,
    ) -> Explanation:
        """What a search does: for each stage the rows it scores, the bytes that takes and the time, per query.

        Parameters
        ----------
        q, k, plan, dims, filter, timeout
            As for `search`, which is run with one thread. Without a plan the stages are those of exact search: the scan
            of the int8 planes, and the rows whose upper bounds called for an exact score.

        Returns
        -------
        Explanation
            Its ``stages``; printed, a table. For exact search also its ``certificate``: how many rows the upper bounds
            leave after each level, and how far the others stay below the k-th best score. It is None for plans. Making
            it takes longer than the search.

        Raises
        ------
        ValueError, TypeError, TimeoutError
            As `search`.

        Examples
        --------
        >>> import numpy as np
        >>> import nestvec as nv
        >>> x = np.random.default_rng(0).standard_normal((2000, 256), dtype=np.float32)
        >>> index = nv.NestedIndex(256)
        >>> index.add(x)
        >>> report = index.explain(x[:3], 5, plan=[nv.Stage("b1", keep=100), nv.Stage("raw")])
        >>> [(stage.code, stage.rows) for stage in report.stages]
        [('b1', 2000.0), ('raw', 100.0)]
        >>> certificate = index.explain(x[:3], 5).certificate
        >>> certificate.levels, certificate.survivors[-1] <= certificate.scored, certificate.slack_min >= 0
        ((64, 128, 256), True, True)
        """
        if plan is None:
            self._refuse_rowless("exact search")
        contents, task, parts, bounds = self._ready(q, arrays.result_count(k), dims, filter)
        plan = staged(plan, len(task.queries), contents.ntotal)
        if plan is None:
            report, least = explain_exact(parts, task, bounds)
            return certified(report, parts, task, bounds, least)
        return run_plan(parts, self._steps(plan, task.k, task.dims, contents.ntotal), task, contents.frame, 1).report()

    @reading
    def estimate(self, q: Any, ids: Any, *, code: str = "b1", dims: int | None = None) -> tuple[Array, Array]:
        """Scores of some rows as a coarse code estimates them, and the standard errors of the estimates.

        The estimate has no bias if what the code leaves out points in a random direction, and the error assumes the
        same: `rotate` makes it so inside each level; rows with many equal values, as zeros, are an exception without.
        It is no bound: about a third of all estimates are further off.

        Parameters
        ----------
        q : (nq, d) array
            Queries, as for `search`.
        ids : (m,) integers
            Rows.
        code : {"b1", "i4"}
        dims : int, optional
            Leading dims, default d; as for `Stage`.

        Returns
        -------
        estimates : (nq, m) float32
            Inner products or cosines, squared distances for ``l2``.
        errors : (nq, m) float32
            One standard error of each.

        Raises
        ------
        KeyError
            For an id that is not in the index.
        ValueError
            A code that the index does not keep; otherwise as `search`.

        Examples
        --------
        >>> import numpy as np
        >>> import nestvec as nv
        >>> x = np.random.default_rng(0).standard_normal((1000, 256), dtype=np.float32)
        >>> index = nv.NestedIndex(256)
        >>> index.add(x)
        >>> score, error = index.estimate(x[:1], [1, 2])
        >>> bool((abs(score - x[:1] @ x[1:3].T) < 4 * error).all())
        True
        """
        arrays.one_of(code, "code", ("b1", "i4"))
        refuse_unkept(code, self._codes, self._row_type)
        contents, slots = self._find(arrays.known_ids(ids).reshape(-1))
        task = self._task(contents, q, 1, dims)
        self._refuse_cut(code, task.dims)
        located: list[Any] = [None] * len(slots)
        for first, segment, n in self._reader_parts(contents):
            here = np.flatnonzero((slots >= first) & (slots < first + n))
            for row, at in zip((slots[here] - first).tolist(), here.tolist(), strict=True):
                located[at] = segment, row
        values, errors = estimate(located, task, code, contents.frame)
        with np.errstate(over="ignore"):
            return (-values if self._metric == "l2" else values).astype(np.float32), errors.astype(np.float32)

    def _width(self, dims: int | None) -> int:
        return self._d if dims is None else arrays.integer(dims, "dims", 1, self._d)

    def _subject(self, queries: Any, k: int, dims: int | None, draw: Draw, threads: int | None) -> Subject:
        from .tuning import Subject

        self._refuse_rowless("tuning")
        wide, own, asked = self._width(dims), None, self
        if queries is None:
            own, asked = self.ids[draw(self.ntotal)], self._untransformed()
            queries = self.reconstruct(own)
        else:
            through = self._transform
            queries = arrays.queries(queries, self._d, wide) if through is None else through._whole(queries)
            queries = queries[draw(len(queries))]

        def ask(some: Array, count: int, stages: list[Stage] | None = None) -> tuple[Array, Array]:
            return asked.search(some, count, dims=wide, plan=stages, threads=threads)

        return Subject.of(
            self,
            queries,
            own,
            k,
            dims=wide,
            codes=tuple((code, end) for code in self._codes for end in self._depths(code, wide)),
            last=Stage("raw"),
            ascending=self._metric == "l2",
            ties=64,
            exact=ask,
            listed=lambda some, depth, stages: ask(some, depth, stages)[1],
            run=ask,
        )

    def _depths(self, code: str, wide: int) -> list[int]:
        """Dims that a stage may look at: levels, half the way between them, and all."""
        ends = [end for end in self.levels if end < wide]
        if code == "b1" and self._empty.frame.rotation is not None:
            return [*ends, wide] if wide in self.levels else ends
        halves = [(a + b) // 2 for a, b in pairwise([*ends, wide]) if b - a >= 2 * BLOCK]
        return sorted({*ends, *halves, wide})

    def _task(self, contents: Contents[Segment], q: Any, k: int, dims: int | None) -> Task:
        dims = self._width(dims)
        through = self._transform
        queries = arrays.queries(q, self._d, dims) if through is None else through._queries(q, dims)
        total = contents.ntotal
        if total == 0:
            raise ValueError("the index is empty; add vectors before searching")
        return Task(queries, min(k, total), dims, self._metric, self._row_type or "")

    def _ready(
        self, q: Any, k: int, dims: int | None, given: Any
    ) -> tuple[Contents[Segment], Task, list[Part], Array | None]:
        """What is searched, a search's task, its rows, and the ends of the planes to scan if one ends at `dims`."""
        contents = self._contents
        task = self._task(contents, q, k, dims)
        return contents, task, self._chosen(contents, len(task.queries), given), self._ends(task.dims)

    def _chosen(self, contents: Contents[Segment], count: int, given: Any) -> list[Part]:
        """All rows, as `count` queries may find them by a filter."""
        words = allowed_words(contents, given, count, partial(self._slots, contents))
        return [
            Part(segment, 0, n, words_of(words, first, n), first) for first, segment, n in self._reader_parts(contents)
        ]

    def _ends(self, dims: int) -> Array | None:
        """The ends of the planes to scan, if one ends at `dims`."""
        level = int(self._bounds.searchsorted(dims))
        return self._bounds[: level + 1] if self._bounds[level] == dims else None

    def _steps(self, plan: Any, k: int, dims: int, total: int) -> tuple[Step, ...]:
        steps = resolve(plan, k, dims, total, self._bounds, self._codes, self._row_type)
        for step in steps:
            self._refuse_cut(step.code, step.dims)
        return steps

    def _refuse_cut(self, code: str, dims: int) -> None:
        if code == "b1" and self._empty.frame.rotation is not None and dims not in self._bounds:
            raise ValueError(f"signs of rotated vectors can be cut at levels only, {self.levels}, got dims={dims}")

    def _refuse_rowless(self, what: str) -> None:
        refuse_rowless(what, self._codes, self._row_type)

    @reading
    def reconstruct(self, ids: Any) -> Array:
        """Stored vectors by id: (d,) float32 for one id, (n, d) for an array of ids, as stored.

        That is after a transform; ``transform.undo`` gives what was added, if it is orthogonal.

        Raises
        ------
        KeyError
            For an id that is not in the index.
        ValueError
            If no rows are stored.
        """
        self._refuse_rowless("reconstruct")
        return self._gather(ids, self._d, np.float32, self._read)

    def _read(self, segment: Segment, rows: Array) -> Array:
        assert self._row_type is not None
        return widened(segment.rows[rows], self._row_type)

    def _views(self, segment: Segment) -> list[Array]:
        return segment.views(self._bounds)

    def _allocate(self, capacity: int, ids: Array, base: int) -> Segment:
        rows = np.empty((0, self._d), np.float32)
        if self._row_type is not None:
            rows = aligned((capacity, self._d), STORED[self._row_type])
        if "i8" in self._codes:
            segment = Segment.allocate(rows, capacity, self._bounds, ids, base)
        else:
            segment = Segment.unpacked(rows, ids, base, capacity)
        return replace(
            segment,
            signs=SignPlane.allocate(capacity, self._bounds) if "b1" in self._codes else None,
            nibbles=NibblePlane.allocate(capacity, self._bounds) if "i4" in self._codes else None,
        )

    def _begin(self, x: Array | Untransformed) -> Frame:
        """The mean that signs are relative to, from the first vectors."""
        frame: Frame = self._empty.frame
        if not self._center or "b1" not in self._codes or len(x) == 0:
            return frame
        transformed = isinstance(x, Untransformed)
        some = x[:: -(-len(x) // (MEAN_TRANSFORMED if transformed else MEAN_ROWS))]
        total = np.zeros(self._d)
        with np.errstate(all="ignore"):
            for part in slices.steps(len(some), some.shape[1]):
                rows = _wide(some[part])
                if self._metric == "cosine":
                    norms = np.linalg.norm(rows, axis=1, keepdims=True)
                    rows /= np.where(norms > 0, norms, 1)
                total += rows.sum(axis=0)
            mean = total / len(some)
            return replace(frame, center=frame.rotated(mean[None])[0])

    def _checkpoint(self, segment: Segment, n: int) -> Callable[[], None]:
        block = n // BLOCK
        maxima = segment.blocks[:, block:].copy()

        def restore() -> None:
            segment.blocks[:, block:] = maxima

        return restore

    def _write(
        self, segment: Segment, frame: Frame, x: Array | Untransformed, shift: int, first: int, last: int
    ) -> None:
        """Stored rows, codes and bounds."""
        source, name = x[first + shift : last + shift], "x"
        if isinstance(source, Untransformed):
            source, name = source.transform._rows(source.given, name, first + shift), "transformed x"
        values = arrays.to_float32(source, name, first + shift)
        kernels = backends.current()
        if self._row_type is not None:
            values = kept(values, source, segment.rows[first:last], self._row_type, first + shift, name)
        if "i8" in self._codes:
            kernels.pack_rows(values, self._bounds, segment.starts, first, segment.codes, segment.stats, segment.blocks)
        if segment.signs is not None:
            words = segment.signs.words
            kernels.pack_signs(
                frame.rotated(values), frame.center, self._bounds, words.starts, arrays.METRICS[self._metric], first,
                words.words, segment.signs.factors,
            )  # fmt: skip
        if segment.nibbles is not None:
            if "i8" in self._codes:
                self._pack_nibbles(segment.nibbles, values, segment, first)
            else:
                self._pack_nibbles_alone(segment.nibbles, values, first)

    def _pack_nibbles(self, to: NibblePlane, values: Array, bytes_of: Segment, first: int) -> None:
        backends.current().pack_nibbles(
            values, self._bounds, bytes_of.starts, bytes_of.codes, to.starts, arrays.METRICS[self._metric], first,
            to.nibbles, to.factors,
        )  # fmt: skip

    def _pack_nibbles_alone(self, plane: NibblePlane, values: Array, first: int) -> None:
        """Nibbles of int8 codes that are made in passing, in planes that begin at the first row's block."""
        block = first // BLOCK * BLOCK
        at, room = first - block, padded(first - block + len(values), BLOCK)
        piece = Segment.allocate(values, room, self._bounds, np.empty(0, np.int64), 0)
        backends.current().pack_rows(values, self._bounds, piece.starts, at, piece.codes, piece.stats, piece.blocks)
        starts = plane.starts + block * (level_widths(self._bounds, 8) // 2)
        some = replace(plane, starts=starts, factors=np.empty((3, len(self._bounds), room), np.uint16))
        self._pack_nibbles(some, values, piece, at)
        plane.factors[:, :, first : first + len(values)] = some.factors[:, :, at : at + len(values)]


def _wide(x: Array | Untransformed) -> Array:
    """Rows as they will be stored, in float64 and unchecked."""
    if isinstance(x, Untransformed):
        return x.transform._unchecked(x.given).astype(np.float64)
    return x.astype(np.float64)


def _named(transform: Transform | None) -> str:
    return "None" if transform is None else f"{transform} ({transform.fingerprint()})"


def _work(task: Task, parts: list[Part]) -> int:
    """Multiplications of a search that leaves nothing out."""
    return len(task.queries) * sum(part.last for part in parts) * task.dims
