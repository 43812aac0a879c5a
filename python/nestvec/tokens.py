"""Documents' tokens as an index keeps them, and certified exact MaxSim over all of them.

A scan of int8 codes bounds every document's score from above. The documents that promise most are scored exactly; the
k-th best of them is a threshold, and only documents whose bound reaches it are scored too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import arrays, backends, parallel, slices
from .bags import CALL_WORK, BagQueries, Bags, CodedBags, behind, best, coded_queries, score, spans
from .plan import StageReport
from .planes import aligned, padded
from .search import kept, widened

Array = npt.NDArray[Any]

TYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "i8": "int8"}
STORED = {"f32": np.float32, "f16": np.uint16, "bf16": np.uint16, "i8": np.int8}
FEWEST_DOCS, FEWEST_TOKENS, GROWTH = 1024, 8192, 1 / 32  # room in a new segment, and as a share of the index
WRITE_VALUES = slices.VALUES  # converted and packed at a time
QUERIES = 8  # whose bounds are kept at a time
FIRST = 32  # documents scored exactly before the first threshold, at least


class Store(NamedTuple):
    """The documents of an index: segments, and how many documents of each count."""

    segments: tuple[TokenSegment, ...] = ()
    counts: tuple[int, ...] = ()

    @property
    def ntotal(self) -> int:
        """Documents."""
        return sum(self.counts)

    @property
    def tokens(self) -> int:
        """Tokens of all documents."""
        return sum(int(segment.offsets[n]) for segment, n in zip(self.segments, self.counts, strict=True))

    @property
    def lengths(self) -> Array:
        """Tokens of each document."""
        parts = [np.diff(segment.offsets[: n + 1]) for segment, n in zip(self.segments, self.counts, strict=True)]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def bags(self, documents: Sequence[int]) -> list[Bags]:
        """Each document by its position."""
        starts = np.cumsum([0, *self.counts])
        return [
            self.segments[part].document(at - int(starts[part]))
            for at, part in zip(documents, np.searchsorted(starts, documents, "right") - 1, strict=True)
        ]


@dataclass(frozen=True)
class TokenSegment:
    """Room for documents and their tokens: as kept, and as int8 codes with what bounds need.

    Tokens kept as int8 are the codes, times their scales.
    """

    rows: Array
    coded: CodedBags
    suffix: str

    @classmethod
    def allocate(cls, documents: int, tokens: int, d: int, suffix: str) -> TokenSegment:
        """Empty."""
        width = padded(d, 4)
        room = tokens + behind(width)
        codes = aligned((room, width), np.int8)
        for some in slices.steps(room, width):
            codes[some] = 0
        coded = CodedBags(
            codes=codes,
            scales=aligned((room,), np.float32),
            sums=aligned((room,), np.int32),
            offsets=np.zeros(documents + 1, np.int64),
            bounds=np.zeros((2, documents), np.float32),
        )
        rows = codes[:tokens, :d] if suffix == "i8" else aligned((tokens, d), STORED[suffix])
        return cls(rows, coded, suffix)

    @property
    def offsets(self) -> Array:
        """Where documents begin."""
        return self.coded.offsets

    @property
    def documents(self) -> int:
        """Documents there is room for."""
        return len(self.offsets) - 1

    @property
    def nbytes(self) -> int:
        """Bytes held, room included."""
        coded = (self.coded.codes, self.coded.scales, self.coded.sums, self.coded.offsets, self.coded.bounds)
        return sum(array.nbytes for array in coded) + (0 if self.suffix == "i8" else self.rows.nbytes)

    @property
    def bags(self) -> Bags:
        """As MaxSim kernels read them."""
        scales = self.coded.scales[: len(self.rows)]
        return Bags(self.rows, scales if self.suffix == "i8" else scales[:0], self.suffix, self.offsets)

    def document(self, at: int) -> Bags:
        """One of them."""
        first, last = self.offsets[at : at + 2]
        scales = self.bags.scales[first:last]
        return Bags(self.rows[first:last], scales, self.suffix, np.array([0, last - first]))

    def copy_to(self, target: TokenSegment, documents: Array, first: int) -> None:
        """Copy documents to `first` and those behind it, whose offsets are written already."""
        begins = self.offsets[documents]
        lengths = self.offsets[documents + 1] - begins
        at, end = int(target.offsets[first]), int(target.offsets[first + len(documents)])
        tokens = np.repeat(begins - target.offsets[first : first + len(documents)] + at, lengths) + np.arange(end - at)
        a, b = self.coded, target.coded
        if self.suffix != "i8":
            target.rows[at:end] = self.rows[tokens]
        b.codes[at:end], b.scales[at:end], b.sums[at:end] = a.codes[tokens], a.scales[tokens], a.sums[tokens]
        b.bounds[:, first : first + len(documents)] = a.bounds[:, documents]

    def write(self, x: arrays.Ragged, shift: int, first: int, last: int) -> None:
        """Documents [`first`, `last`) from the same ones of `x`, shifted; their offsets are written already."""
        at, end = (int(self.offsets[i]) for i in (first, last))
        source = int(x.offsets[first + shift])
        offsets, bounds = self.offsets[first : last + 1] - at, np.zeros((2, last - first), np.float32)
        if last - first > 1 or x.tokens[source : source + end - at].size <= WRITE_VALUES:
            self._write_tokens(x.tokens[source : source + end - at], source, at, offsets, bounds)
        else:  # one long document, as if it were many: its bounds are the largest of theirs
            for some in slices.steps(end - at, x.tokens.shape[1], WRITE_VALUES):
                part, cut = np.empty((2, 1), np.float32), np.array([0, some.stop - some.start])
                first_token = source + some.start
                tokens = x.tokens[first_token : source + some.stop]
                self._write_tokens(tokens, first_token, at + some.start, cut, part)
                np.maximum(bounds, part, out=bounds)
        if self.suffix == "i8":  # codes leave nothing out of tokens that are codes
            with np.errstate(over="ignore"):
                bounds[1] += bounds[0]
            bounds[0] = 0
        self.coded.bounds[:, first:last] = bounds

    def _write_tokens(self, tokens: Array, source: int, at: int, offsets: Array, bounds: Array) -> None:
        """Tokens from `at` on, which came from `source` on, and the bounds of their documents."""
        parallel.check()
        values, coded, end = arrays.to_float32(tokens, "docs", source), self.coded, at + len(tokens)
        if self.suffix != "i8":
            values = kept(values, values, self.rows[at:end], TYPES[self.suffix], source, "docs", 'tokens="f32"')
        backends.current().pack_bags(
            values, offsets, coded.codes[at:end], coded.scales[at:end], coded.sums[at:end], bounds
        )


def extended(store: Store, x: arrays.Ragged, suffix: str, workers: int) -> Store:
    """The store with more documents, in room that no reader of `store` looks at."""
    segments, counts = list(store.segments), list(store.counts)
    lengths, d = np.diff(x.offsets), x.tokens.shape[1]
    at = 0
    while at < len(x):
        if not segments or counts[-1] == segments[-1].documents or _room(segments[-1], counts[-1]) < lengths[at]:
            documents = max(len(x) - at, int(store.ntotal * GROWTH), FEWEST_DOCS)
            tokens = max(int(x.offsets[-1] - x.offsets[at]), int(store.tokens * GROWTH), FEWEST_TOKENS)
            segments.append(TokenSegment.allocate(documents, tokens, d, suffix))
            counts.append(0)
        segment, n = segments[-1], counts[-1]
        fitting = int(np.searchsorted(x.offsets, x.offsets[at] + _room(segment, n), "right")) - 1
        last = min(fitting, at + segment.documents - n, len(x))
        moved = int(segment.offsets[n] - x.offsets[at])
        segment.offsets[n + 1 : n + 1 + last - at] = x.offsets[at + 1 : last + 1] + moved
        cuts = spans(lengths[at:last] * (CALL_WORK * d // WRITE_VALUES), workers)  # at most WRITE_VALUES each
        parallel.run(partial(_write, segment, x, at - n, n), cuts, workers)
        counts[-1], at = n + last - at, last
    return Store(tuple(segments), tuple(counts))


def _write(segment: TokenSegment, x: arrays.Ragged, shift: int, n: int, cut: tuple[int, int]) -> None:
    segment.write(x, shift, n + cut[0], n + cut[1])


def _room(segment: TokenSegment, n: int) -> int:
    return len(segment.rows) - int(segment.offsets[n])


def score_listed(store: Store, queries: BagQueries, positions: Array, threads: int) -> Array:
    """Exact MaxSim (nq, c) of documents by their position."""
    if len(store.segments) == 1:
        return score(queries, store.segments[0].bags, positions, threads)
    starts = np.cumsum([0, *store.counts])
    part = np.searchsorted(starts, positions, "right") - 1
    out = np.empty((len(queries), len(positions)))
    for number in np.unique(part):
        some = part == number
        out[:, some] = score(queries, store.segments[number].bags, positions[some] - starts[number], threads)
    return out


def exact_topk(
    store: Store, queries: BagQueries, k: int, threads: int, ids: Array, allowed: Array | None = None
) -> list[tuple[Array, Array]]:
    """Scores, float64, and ids of the k best documents of each query, best first, ties by id; `ids` by position.

    `allowed`, (1 or nq, ntotal) bool, says by position which documents a query may find.
    """
    groups = [slice(first, min(first + QUERIES, len(queries))) for first in range(0, len(queries), QUERIES)]
    many = len(queries) >= 2 * QUERIES * threads

    def search(group: slice) -> list[tuple[Array, Array]]:
        some = queries.some(group.start, group.stop)
        return _exact(store, some, k, 1 if many else threads, ids, _own(allowed, group))

    return [one for group in parallel.run(search, groups, threads if many else 1) for one in group]


def explain_topk(
    store: Store, queries: BagQueries, k: int, ids: Array, allowed: Array | None = None
) -> tuple[StageReport, StageReport]:
    """What `exact_topk` does with one thread, per query: tokens whose codes bound documents, and documents scored."""
    count, d, lengths = len(queries), queries.tokens.shape[1], store.lengths
    bounding = scoring = kept = 0.0
    scored: list[Array] = []
    for group in slices.steps(count, 1, QUERIES):
        begun = perf_counter()
        upper = _upper_bounds(store, queries.some(group.start, group.stop), 1, _own(allowed, group))
        bounding += perf_counter() - begun
        for i in range(group.start, group.stop):
            one = queries.some(i, i + 1)

            def score_of(documents: Array, one: BagQueries = one) -> Array:
                scored.append(documents)
                return score_listed(store, one, documents, 1)

            begun = perf_counter()
            kept += len(_refined(upper[i - group.start], score_of, k, ids)[0])
            scoring += perf_counter() - begun
    tokens = lengths.sum() * count if allowed is None else (lengths * allowed).sum() * (count / len(allowed))
    documents, read = sum(map(len, scored)), sum(int(lengths[some].sum()) for some in scored)
    reading = float(tokens) / count * (padded(d, 4) + 8)
    return (
        StageReport("i8", d, float(tokens) / count, documents / count, reading, bounding / count),
        StageReport("raw", d, documents / count, kept / count, read / count * token_bytes(store, d), scoring / count),
    )


def token_bytes(store: Store, d: int) -> int:
    """What reading one token as stored takes."""
    return d + 4 if store.segments[0].suffix == "i8" else d * store.segments[0].rows.itemsize


def _own(allowed: Array | None, queries: slice) -> Array | None:
    """The sets of some of the queries."""
    return allowed[queries] if allowed is not None and len(allowed) > 1 else allowed


def _exact(
    store: Store, queries: BagQueries, k: int, threads: int, ids: Array, allowed: Array | None
) -> list[tuple[Array, Array]]:
    upper, found = _upper_bounds(store, queries, threads, allowed), []
    for i in range(len(queries)):
        scored = partial(score_listed, store, queries.some(i, i + 1), threads=threads)
        found.append(_refined(upper[i], scored, k, ids))
    return found


def _upper_bounds(store: Store, queries: BagQueries, threads: int, allowed: Array | None = None) -> Array:
    """What no document's score exceeds, (nq, n) float32; -inf for documents without tokens or not allowed."""
    coded = coded_queries(queries.tokens, queries.offsets)
    starts = np.cumsum([0, *store.counts])
    out = np.empty((len(queries), int(starts[-1])), np.float32)
    sets = np.empty((0, out.shape[1]), np.uint8) if allowed is None else allowed.view(np.uint8)

    def scan(task: tuple[CodedBags, Array, int, int, int]) -> None:
        bags, own, start, first, last = task
        one = len(queries) == 1
        found = out[:, start + first : start + last] if one else np.empty((len(queries), last - first), np.float32)
        backends.current().scan_bags(
            bags.codes, bags.scales, bags.sums, bags.offsets, bags.bounds, *coded, first, last, own, found
        )
        if not one:
            out[:, start + first : start + last] = found

    def cuts(segment: TokenSegment, n: int) -> list[tuple[int, int]]:
        each = queries.tokens.size // 16  # a scan multiplies that much faster than what `spans` counts
        if threads == 1 and int(segment.offsets[n]) * each <= CALL_WORK:
            return [(0, n)]
        return spans(np.diff(segment.offsets[: n + 1]) * each, threads)

    tasks = [
        (segment.coded, own, int(start), *cut)
        for segment, start, n in _quiet(store)
        for own in [np.ascontiguousarray(sets[:, start : start + n])]
        for cut in cuts(segment, n)
    ]
    parallel.run(scan, tasks, threads)
    return out


def _quiet(store: Store) -> Iterator[tuple[TokenSegment, int, int]]:
    """Segments, their first positions and counts, for scans, which also read what is behind the last document.

    The last documents of a segment that may grow are copied: what is behind them is being written to by nobody.
    """
    start = 0
    for number, (segment, n) in enumerate(zip(store.segments, store.counts, strict=True), 1):
        end, whole = int(segment.offsets[n]), n
        if number == len(store.segments) and n < segment.documents and end < len(segment.rows):
            read = end - behind(segment.coded.codes.shape[1])
            whole = int(np.searchsorted(segment.offsets[: n + 1], read, "right")) - 1 if read >= 0 else 0
        if whole:
            yield segment, start, whole
        if whole < n:
            begin, d = int(segment.offsets[whole]), segment.rows.shape[1]
            copy = TokenSegment.allocate(n - whole, end - begin, d, segment.suffix)
            copy.offsets[:] = segment.offsets[whole : n + 1] - begin
            segment.copy_to(copy, np.arange(whole, n), 0)
            yield copy, start + whole, n - whole
        start += n


def _refined(upper: Array, score_of: Callable[[Array], Array], k: int, ids: Array) -> tuple[Array, Array]:
    """The k best by exact scores, given bounds: the most promising first, then all that reach the k-th best.

    Documents whose bound is -inf are none.
    """
    some = np.flatnonzero(upper > -np.inf)
    upper, ids = upper[some], ids[some]
    first = max(2 * k, FIRST)
    if len(upper) > first:
        places = np.argpartition(upper, len(upper) - first)[len(upper) - first :]
    else:
        places = np.arange(len(upper))
    scores, found = best(score_of(some[places])[0], ids[places], k)
    seen = np.zeros(len(upper), bool)
    seen[places] = True
    while True:
        least = scores[-1] if len(scores) == k else -np.inf
        waiting = np.flatnonzero(~seen & (upper >= _rounded_down(least)))
        if len(waiting) == 0:
            return scores, found
        if len(waiting) > 4 * first:  # a better threshold will spare most of them
            waiting = waiting[np.argpartition(upper[waiting], len(waiting) - first)[len(waiting) - first :]]
            first *= 2
        seen[waiting] = True
        exact = score_of(some[waiting])[0]
        scores, found = best(np.concatenate([scores, exact]), np.concatenate([found, ids[waiting]]), k)


def _rounded_down(score: float) -> Any:
    """The largest float32 not above a score."""
    with np.errstate(over="ignore"):
        rounded = np.float32(score)
    return rounded if rounded <= score else np.nextafter(rounded, np.float32(-np.inf))


def widened_tokens(bags: Bags) -> Array:
    """Stored tokens as float32."""
    if bags.suffix == "i8":
        return bags.tokens * bags.scales[:, None]
    return widened(bags.tokens, TYPES[bags.suffix]).copy()


def exact_within(
    store: Store, queries: BagQueries, least: float, threads: int, ids: Array, allowed: Array | None = None
) -> list[tuple[Array, Array]]:
    """Scores, float64, and ids of the documents of each query that score at least `least`; see `exact_topk`."""
    found = []
    for i in range(len(queries)):
        parallel.check()
        one = queries.some(i, i + 1)
        upper = _upper_bounds(store, one, threads, _own(allowed, slice(i, i + 1)))[0]
        listed = np.flatnonzero((upper >= _rounded_down(least)) & (upper > -np.inf))
        scores = score_listed(store, one, listed, threads)[0] if len(listed) else np.empty(0)
        kept = scores >= least
        scores, names = scores[kept], ids[listed[kept]]
        order = np.lexsort((names, -scores))
        found.append((scores[order], names[order]))
    return found


def gathered(store: Store, positions: Array, workers: int) -> Store:
    """A store of some documents, by position, in memory of its own."""
    suffix, d = store.segments[0].suffix, store.segments[0].rows.shape[1]
    lengths = store.lengths
    offsets = np.concatenate(([0], np.cumsum(lengths[positions])))
    target = TokenSegment.allocate(max(len(positions), 1), max(int(offsets[-1]), 1), d, suffix)
    target.offsets[: len(offsets)] = offsets
    starts = np.cumsum([0, *store.counts])

    def copy(cut: tuple[int, int]) -> None:
        parallel.check()
        for number, source in enumerate(store.segments):
            here = np.arange(*cut)
            here = here[(positions[here] >= starts[number]) & (positions[here] < starts[number + 1])]
            if len(here):
                source.copy_to(target, positions[here] - starts[number], int(here[0]))

    parallel.run(copy, spans(lengths[positions] * (CALL_WORK * d // WRITE_VALUES), workers), workers)
    return Store((target,), (len(positions),))
