"""`BinaryIndex`: binary codes stored once, searched exactly by Hamming distance at any prefix of their bits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import arrays, backends, parallel, slices
from .bitplans import BitRun, bit_steps
from .bits import counted, merged, packed_signs
from .collection import changing, reading
from .container import Container, Contents
from .filters import allowed_words, words_of
from .nearest import XOR, BitPart, query_words
from .parallel import limited, threads_for
from .plan import Explanation, Stage, staged
from .planes import BLOCK, Words
from .tombstones import to_bools

if TYPE_CHECKING:
    from .tuning import Draw, Subject

Array = npt.NDArray[Any]

RANGE_ROWS = 65_536  # rows whose distances are looked through at a time


@dataclass(frozen=True)
class BitSegment:
    """A run of codes."""

    words: Words
    capacity: int
    ids: Array
    base: int

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.words.nbytes + self.ids.nbytes)

    def settle(self, n: int) -> None:
        """Nothing else depends on rows."""


class BinaryIndex(Container[BitSegment]):
    """Exact top-k by Hamming distance over binary codes, at any prefix of their bits.

    Parameters
    ----------
    bits : int
        Bits of a code, 1 to 65,536.
    levels : iterable of int, optional
        Nesting boundaries in bits, ascending; `bits` is added. Default: 128, 256, 512, ... below `bits`. A search reads
        only the levels its prefix touches; a prefix that ends within a level is masked.
    thresholds : float or (bits,) array, optional
        What vectors are compared with when they are packed on entry; default 0.

    Notes
    -----
    Memory is ``bits / 8`` bytes a code, each level rounded up to 8 bytes. Any number of threads may search while one
    adds.

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> x = np.random.default_rng(0).standard_normal((1000, 256), dtype=np.float32)
    >>> index = nv.BinaryIndex(256)
    >>> index.add(nv.pack_bits(x))
    >>> D, I = index.search(nv.pack_bits(x[:2]), k=3, bits=100)
    >>> D[:, 0].tolist(), I[:, 0].tolist()
    ([0, 0], [0, 1])
    """

    _on_gpu = "CudaBinaryIndex"

    def __init__(self, bits: int, levels: Iterable[int] | None = None, thresholds: Any = None) -> None:
        self._bits = arrays.integer(bits, "bits", 1, arrays.MAX_DIMS)
        self._bounds = arrays.level_bounds(levels, self._bits, smallest=128)
        self._thresholds = arrays.thresholds(thresholds, self._bits)
        super().__init__()

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return self._bits

    @property
    def levels(self) -> tuple[int, ...]:
        """Nesting boundaries in bits, ascending; the last is `bits`."""
        return tuple(self._bounds.tolist())

    def __repr__(self) -> str:
        return f"BinaryIndex(bits={self.bits}, levels={self.levels}, ntotal={self.ntotal})"

    @changing
    def add(self, x: Any, ids: Any = None, *, threads: int | None = None) -> None:
        """Append codes; after an error the index is as it was.

        Parameters
        ----------
        x : (n, ceil(bits / 8)) uint8, or (n, bits) array
            Packed codes, or vectors of any float dtype, which `pack_bits` packs.
        ids : (n,) int64, optional
            Unique, not negative. Default: consecutive, from one above the largest id so far.
        threads : int, optional
            Default: all cores this process may use.

        Raises
        ------
        ValueError
            Codes of another width (in bits), one bits beyond their end; NaN or Inf in vectors; repeated ids.
        TypeError
            Integers other than uint8.
        """
        self._add(x, ids, threads)

    def _incoming(self, x: Any, threads: int | None) -> tuple[Array, int]:
        rows = self._codes(x, "x", threads, single=False)
        return rows, threads_for(threads, rows.size)

    def _refuse_unlike(self, other: BinaryIndex) -> None:
        if other.bits != self._bits:
            raise ValueError(f"the other index has codes of {other.bits} bits, this one of {self._bits}")

    @limited
    @reading
    def search(
        self,
        q: Any,
        k: int,
        *,
        bits: int | None = None,
        plan: Any = None,
        recall: float | None = None,
        filter: Any = None,
        threads: int | None = None,
        timeout: float | None = None,
    ) -> tuple[Array, Array]:
        """The k nearest codes of each query, exactly or by a plan.

        Parameters
        ----------
        q : (nq, ceil(bits / 8)) uint8, or (nq, bits) array
            As `add` takes them; a single one is one query.
        k : int
            Results per query, at least 1.
        bits : int, optional
            Leading bits to compare, 1 to `bits`; default all.
        plan : Plan or list of Stage, optional
            Stages ``Stage("b1", dims=, keep=)`` in order, `dims` being leading bits: the first counts the bits in which
            all codes differ from a query, each following one the rest of its bits for the nearest that the one before
            kept (of equally near ones, those added first), the last one ranks. The results are exact among the codes
            that reach the last stage.
        recall : float, optional
            Instead of a plan: find at least this share of the k nearest codes, on average, by the plan that `tune`
            found for this k and `bits`. If there is none yet, the search tunes first.
        filter : optional
            Which ids may be found, as for `NestedIndex.search`.
        threads : int, optional
            Default: all cores this process may use, one for little work.
        timeout : float, optional
            Seconds after which the search ends with a TimeoutError, between two steps of some milliseconds.

        Returns
        -------
        D : (nq, k) int32
            Hamming distances, ascending.
        I : (nq, k) int64
            Ids, ties by smaller id. Where fewer than k codes may be found: id -1 and the largest int32.

        Raises
        ------
        ValueError
            Empty index, k < 1, `bits` out of range, codes of another width (in bits), a plan that cannot be run.
        TypeError
            Codes that are not uint8, a `k` or `bits` that is no integer, a `plan` that is no list of stages.
        TimeoutError
            After `timeout`.

        Examples
        --------
        >>> import numpy as np
        >>> import nestvec as nv
        >>> codes = np.random.default_rng(0).integers(0, 256, (5000, 128), np.uint8)
        >>> index = nv.BinaryIndex(1024)
        >>> index.add(codes)
        >>> D, I = index.search(codes[7], 3, plan=[nv.Stage("b1", dims=256, keep=100), nv.Stage("b1")])
        >>> int(D[0, 0]), int(I[0, 0])
        (0, 7)
        """
        k = arrays.result_count(k)
        chosen = self._stages(plan, recall, k, bits, threads)
        run, work = self._run(q, k, bits, chosen, filter)
        return merged([run.search(threads_for(threads, work))], run.count, k)

    @limited
    @reading
    def explain(
        self,
        q: Any,
        k: int,
        plan: Any = None,
        *,
        bits: int | None = None,
        filter: Any = None,
        timeout: float | None = None,
    ) -> Explanation:
        """What a search does: for each stage the codes it counts, the bytes that takes and the time, per query.

        Parameters
        ----------
        q, k, plan, bits, filter, timeout
            As for `search`, which is run with one thread. Without a plan there is one stage: all codes, and all bits.

        Returns
        -------
        Explanation
            Its ``stages``; printed, a table.

        Raises
        ------
        ValueError, TypeError, TimeoutError
            As `search`.

        Examples
        --------
        >>> import numpy as np
        >>> import nestvec as nv
        >>> codes = np.random.default_rng(0).integers(0, 256, (5000, 128), np.uint8)
        >>> index = nv.BinaryIndex(1024)
        >>> index.add(codes)
        >>> report = index.explain(codes[:3], 5, [nv.Stage("b1", dims=256, keep=100), nv.Stage("b1")])
        >>> [(stage.dims, stage.rows, stage.kept) for stage in report.stages]
        [(256, 5000.0, 100.0), (1024, 100.0, 5.0)]
        """
        run, _ = self._run(q, arrays.result_count(k), bits, plan, filter)
        return run.report(run.search(1)[1])

    @limited
    @reading
    def range_search(
        self,
        q: Any,
        radius: int,
        *,
        bits: int | None = None,
        filter: Any = None,
        threads: int | None = None,
        timeout: float | None = None,
    ) -> tuple[Array, Array, Array]:
        """All codes within a distance.

        Parameters
        ----------
        q, bits, filter, threads, timeout
            As for `search`.
        radius : int
            The largest distance that counts, at least 0.

        Returns
        -------
        lims : (nq + 1,) int64
            The results of query i are those from ``lims[i]`` to ``lims[i + 1]``.
        D : (lims[-1],) int32
        I : (lims[-1],) int64
            Distances and ids, for each query by distance and then id.

        Raises
        ------
        ValueError, TypeError, TimeoutError
            As `search`.
        """
        used = self._width(bits)
        limit = arrays.integer(radius, "radius", 0)
        codes, located, total = self._ready(q, filter)
        queries = query_words(codes, self._bounds, used)
        spans = [
            part._replace(first=at, last=min(at + RANGE_ROWS, part.last))
            for _, part in located
            for at in range(part.first, part.last, RANGE_ROWS)
        ]

        def within(part: BitPart) -> list[Within]:
            found = counted(part.words, used, queries, XOR, part.first, part.last)
            return [_within(part, limit, some, counts) for some, counts in found]

        found = parallel.run(within, spans, threads_for(threads, len(queries) * total * used // 8))
        return _by_query([some for part in found for some in part], len(queries))

    @reading
    def reconstruct(self, ids: Any) -> Array:
        """Codes by id: (bytes,) uint8 for one id, (n, bytes) for an array of ids.

        Raises
        ------
        KeyError
            For an id that is not in the index.
        """
        return self._gather(ids, -(-self._bits // 8), np.uint8, self._read)

    def _codes(self, x: Any, name: str, threads: int | None, *, single: bool) -> Array:
        """Codes as given, or of vectors."""
        array = arrays.as_numpy(x, name)
        if array.dtype.kind in "iub":
            return arrays.codes(array, name, self._bits, single=single)
        return packed_signs(arrays.vectors(array, name, self._bits, single=single), name, self._thresholds, threads)

    def _width(self, dims: int | None) -> int:
        return self._bits if dims is None else arrays.integer(dims, "bits", 1, self._bits)

    def _subject(self, queries: Any, k: int, dims: int | None, draw: Draw, threads: int | None) -> Subject:
        from .tuning import Subject

        wide, own = self._width(dims), None
        if queries is None:
            own = self.ids[draw(self.ntotal)]
            queries = self.reconstruct(own)
        else:
            queries = self._codes(queries, "queries", threads, single=True)
            queries = queries[draw(len(queries))]

        def ask(some: Array, count: int, stages: list[Stage] | None = None) -> tuple[Array, Array]:
            return self.search(some, count, bits=wide, plan=stages, threads=threads)

        def listed(some: Array, depth: int, stages: list[Stage]) -> Array:
            *before, last = stages
            plan = [*before, Stage("b1")] if before else None
            return self.search(some, depth, bits=last.dims, plan=plan, threads=threads)[1]

        return Subject.of(
            self,
            queries,
            own,
            k,
            dims=wide,
            codes=tuple(("b1", end) for end in self.levels if end < wide),
            last=Stage("b1"),
            ascending=True,
            ties=1024,  # distances are few
            exact=ask,
            listed=listed,
            run=ask,
        )

    def _run(self, q: Any, k: int, bits: int | None, plan: Any, given: Any) -> tuple[BitRun, int]:
        """A search to be run, and the work that its first stage is."""
        used = self._width(bits)
        codes, located, total = self._ready(q, given)
        stages = staged(plan, len(codes), total)
        steps = bit_steps(stages, min(k, total), used, total, self._bounds)
        return BitRun(located, steps, codes, self._bounds), len(codes) * total * steps[0].dims // 8

    def _ready(self, q: Any, given: Any) -> tuple[Array, list[tuple[int, BitPart]], int]:
        """Queries' codes, parts with the slots where they begin, and how many rows there are."""
        codes, contents = self._codes(q, "q", 1, single=True), self._contents
        if contents.ntotal == 0:
            raise ValueError("the index is empty; add codes before searching")
        return codes, self._located(contents, given, len(codes)), contents.ntotal

    def _located(self, contents: Contents[BitSegment], given: Any, count: int) -> list[tuple[int, BitPart]]:
        """Parts, as `count` queries may find their rows by a filter, with the slots where they begin."""
        words = allowed_words(contents, given, count, partial(self._slots, contents))
        return [
            (first, BitPart(segment.words, 0, n, segment.ids, segment.base, words_of(words, first, n)))
            for first, segment, n in self._reader_parts(contents)
        ]

    def _allocate(self, capacity: int, ids: Array, base: int) -> BitSegment:
        return BitSegment(Words.allocate(capacity, self._bounds), capacity, ids, base)

    def _write(self, segment: BitSegment, frame: Any, x: Array, shift: int, first: int, last: int) -> None:
        words = segment.words
        backends.current().pack_words(x[first + shift : last + shift], self._bounds, words.starts, first, words.words)

    def _views(self, segment: BitSegment) -> list[Array]:
        return segment.words.views()

    def _read(self, segment: BitSegment, rows: Array) -> Array:
        begins = np.concatenate([[0], self._bounds[:-1]])
        bits = []
        for view, begin, end in zip(segment.words.views(), begins, self._bounds, strict=True):
            words = np.ascontiguousarray(view[rows // BLOCK, :, rows % BLOCK, 0])
            bits.append(np.unpackbits(words.astype(">u8").view(np.uint8), axis=1)[:, : end - begin])
        return np.packbits(np.concatenate(bits, axis=1), axis=1)


class Within(NamedTuple):
    """Codes within a distance of some queries."""

    queries: Array  # ascending
    distances: Array
    ids: Array


def _within(part: BitPart, limit: int, some: slice, counts: Array) -> Within:
    near = counts <= limit
    if len(part.allowed):
        near &= to_bools(part.allowed[some] if len(part.allowed) > 1 else part.allowed, part.last)[:, part.first :]
    query, row = np.nonzero(near)
    ids = part.ids[part.first + row] if part.ids.size else row + (part.base + part.first)
    return Within(query + some.start, counts[query, row], ids)


def _by_query(found: list[Within], count: int) -> tuple[Array, Array, Array]:
    """Where the results of each query begin, and the distances and ids of all, by distance and then id."""
    sizes = np.zeros(count, np.int64)
    for some in found:
        sizes += np.bincount(some.queries, minlength=count)
    lims = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    distances, ids = np.empty(lims[-1], np.int32), np.empty(lims[-1], np.int64)
    first = 0
    while first < count:
        parallel.check()
        last = max(int(np.searchsorted(lims, lims[first] + slices.SORTED, "right")) - 1, first + 1)
        cuts = [(some, *np.searchsorted(some.queries, [first, last])) for some in found]
        query, distance, named = (np.concatenate([some[i][a:b] for some, a, b in cuts]) for i in range(3))
        order = np.lexsort((named, distance, query))
        distances[lims[first] : lims[last]], ids[lims[first] : lims[last]] = distance[order], named[order]
        first = last
    return lims, distances, ids
