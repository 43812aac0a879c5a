"""The same docstrings as bags of token vectors, ranked by MaxSim: all of them, or shortlists by their encodings."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from threadpoolctl import threadpool_limits

import nestvec as nv

from .corpus import Entry
from .embedder import Embedder
from .library import collect, cosine_index, progress_on
from .measure import Quality, known_item, largest, overlap, ranked
from .methods import Floats, Ids, K, Search, by_index

CANDIDATES = (50, 100, 200)
MEANS, EXACT, NUMPY = "mean vectors", "exact MaxSim", "exact MaxSim, numpy"  # what notes compare
QUERIES = 250
_BLOCK = 32  # documents scored at a time in float64


class BagMethod(NamedTuple):
    """A way to search: a slice of the queries in, ids of their K best documents out."""

    name: str
    search: Search
    document_bytes: float  # of a document, where every document is looked at


@dataclass(frozen=True)
class BagOutcome(Quality):
    """The measurements of one way to search; milliseconds are per query, on one thread."""

    document_bytes: float
    single_ms: float


@dataclass(frozen=True)
class Findings:
    """All measurements, and what they were taken of."""

    methods: dict[str, BagOutcome]
    documents: int
    queries: int
    equal_queries: int
    largest_gap: float
    query_tokens: float  # of one, on average
    document_tokens: float
    found_tokens: float  # of a document in the exact top K
    encoding_values: int
    index_bytes: int
    mean_index_bytes: int


@dataclass(frozen=True)
class BagLibrary:
    """Two indexes of bags: over names and first sentences for typed queries, over remainders for known items.

    Document i of `known`, and row i of `known_means`, is the one relevant answer to sentence i.
    """

    entries: list[Entry]
    embedder: Embedder
    labels: nv.MultiVectorIndex
    sentences: list[Floats]
    sentence_means: Floats
    known: nv.MultiVectorIndex
    known_means: nv.NestedIndex
    seconds: dict[str, float]

    @property
    def known_items(self) -> int:
        """Pairs of a sentence and its remainder."""
        return len(self.sentences)

    def search(self, query: str, k: int) -> list[tuple[float, Entry]]:
        """Return up to k (MaxSim, entry) for a typed query, best first."""
        scores, ids = self.labels.search(
            self.embedder.bags([query], queries=True), min(k, len(self.entries)), exact=True
        )
        return [(score, self.entries[row]) for score, row in zip(scores[0].tolist(), ids[0].tolist(), strict=True)]

    def measure(self, console: Console) -> Findings:
        """Measure known-item search by mean vectors, encodings, MaxSim and numpy, for queries spread over all."""
        answers = np.arange(0, self.known_items, max(1, self.known_items // QUERIES))
        queries = [self.sentences[row] for row in answers]
        documents = self.known.reconstruct(range(self.known_items))
        means = by_index(MEANS, self.known_means, self.sentence_means[answers])
        methods = [BagMethod(MEANS, means.search, means.row_bytes), *by_maxsim(self.known, queries, documents)]
        # A refresh in the background would disturb the timings.
        with progress_on(console, auto_refresh=False) as progress:
            starts = progress.track(range(0, self.known_items, _BLOCK), description="MaxSim in float64")
            blocks = [float64_maxsim(queries, documents[start : start + _BLOCK]) for start in starts]
            scores = np.concatenate(blocks, axis=1)
            full = ranked(scores, K)
            tracked = progress.track(methods, description="measure MaxSim")
            outcomes = {method.name: measure_singly(method, full, answers) for method in tracked}
        found = self.known.search(queries, K, exact=True)[1]
        gaps = np.take_along_axis(scores, full, axis=1) - np.take_along_axis(scores, found, axis=1)
        return Findings(
            methods=outcomes,
            documents=len(documents),
            queries=len(queries),
            equal_queries=int((found == full).all(axis=1).sum()),
            largest_gap=float(np.abs(gaps).max()),
            query_tokens=fmean(map(len, queries)),
            document_tokens=fmean(map(len, documents)),
            found_tokens=fmean(len(documents[row]) for row in full.flat),
            encoding_values=self.known.encoder.fde_dim,
            index_bytes=self.known.memory_usage(),
            mean_index_bytes=self.known_means.memory_usage(),
        )


def build(stdlib: Path, console: Console) -> BagLibrary:
    """Collect the docstrings under a library folder, and embed and index them as bags.

    Parameters
    ----------
    stdlib : Path
        Folder of the standard library.
    console : rich.console.Console
        Shows progress.

    Returns
    -------
    BagLibrary
        Ready to search.

    Raises
    ------
    DemoError
        When there are too few docstrings to search.

    Examples
    --------
    >>> build(Path(sysconfig.get_paths()["stdlib"]), Console(stderr=True))  # doctest: +SKIP
    """
    clock = [time.perf_counter()]
    with progress_on(console) as progress:
        entries, items = collect(stdlib, progress)
        clock.append(time.perf_counter())
        embedder = Embedder.installed()
        sentences, remainders = [item.sentence for item in items], [item.remainder for item in items]
        columns = progress.track([[entry.label for entry in entries], remainders, sentences], description="embed")
        labels, known, (tokens, offsets) = (embedder.bags(texts, queries=texts is sentences) for texts in columns)
        means, known_means = embedder.embed(sentences), embedder.embed(remainders)
        clock.append(time.perf_counter())
        indexes = [bag_index(*bags) for bags in progress.track([labels, known], description="index")]
        vectors = cosine_index(known_means)
        clock.append(time.perf_counter())
    seconds = dict(zip(("collect", "embed", "index"), np.diff(clock).tolist(), strict=True))
    queries = np.split(tokens, offsets[1:-1])
    return BagLibrary(entries, embedder, indexes[0], queries, means, indexes[1], vectors, seconds)


def bag_index(tokens: Floats, offsets: Ids) -> nv.MultiVectorIndex:
    """Index bags for exact MaxSim and for shortlists.

    Parameters
    ----------
    tokens : (N, d) float32
    offsets : (n + 1,) int64
        Where bags begin.

    Returns
    -------
    MultiVectorIndex
        Ids are positions.

    Examples
    --------
    >>> len(bag_index(np.ones((3, 256), np.float32), np.array([0, 1, 3])))
    2
    """
    index = nv.MultiVectorIndex(nv.FixedDimensionalEncoder.fitted((tokens, offsets)))
    index.add((tokens, offsets))
    return index


def by_maxsim(index: nv.MultiVectorIndex, queries: Sequence[Floats], documents: Sequence[Floats]) -> list[BagMethod]:
    """The order of encodings alone, MaxSim of shortlists by it, and exact MaxSim, all on one thread.

    Parameters
    ----------
    index : MultiVectorIndex
        Of `documents`.
    queries, documents : sequence of (m, d) float32

    Returns
    -------
    list of BagMethod
        Encoding a query is part of a search by encodings.

    Examples
    --------
    >>> by_maxsim(index, queries, documents)  # doctest: +SKIP
    """
    tokens, d = fmean(map(len, documents)), index.encoder.dim
    encoding = index.encoder.fde_dim / 8 + 2  # a bit for each value, and a factor

    def order(some: slice) -> Ids:
        return index.shortlist(queries[some], K, threads=1)[1]

    def shortlist(candidates: int) -> BagMethod:
        def search(some: slice) -> Ids:
            return index.search(queries[some], K, candidates=candidates, threads=1)[1]

        return BagMethod(f"encodings, MaxSim of {candidates}", search, encoding)

    def exact(some: slice) -> Ids:
        return index.search(queries[some], K, exact=True, threads=1)[1]

    return [
        BagMethod("encodings alone", order, encoding),
        *map(shortlist, CANDIDATES),
        BagMethod(EXACT, exact, tokens * (d + 8)),  # a byte for each value, a scale and a sum
        BagMethod(NUMPY, numpy_maxsim(queries, documents), tokens * d * 4),
    ]


def numpy_maxsim(queries: Sequence[Floats], documents: Sequence[Floats]) -> Search:
    """Exact MaxSim in numpy: one matrix product in float32 a query, and the maxima of each document's part of it.

    Parameters
    ----------
    queries, documents : sequence of (m, d) float32

    Returns
    -------
    callable
        A slice of the queries in, ids of their K best documents out.

    Examples
    --------
    >>> documents = list(np.eye(20, dtype=np.float32)[:, None])
    >>> numpy_maxsim(documents[3:5], documents)(slice(None))[:, 0].tolist()
    [3, 4]
    """
    tokens, starts = np.concatenate(documents), _starts(documents)

    def search(some: slice) -> Ids:
        best = (np.maximum.reduceat(tokens @ query.T, starts, axis=0) for query in queries[some])
        return largest(np.stack([values.sum(axis=1) for values in best]), K)

    return search


def float64_maxsim(queries: Sequence[Floats], documents: Sequence[Floats]) -> npt.NDArray[np.float64]:
    """MaxSim of all pairs by numpy in float64.

    Parameters
    ----------
    queries, documents : sequence of (m, d) float32

    Returns
    -------
    (nq, n) float64

    Examples
    --------
    >>> documents = [np.float32([[1, 0], [0, 1]]), np.float32([[-1, -2]])]
    >>> float64_maxsim([np.float32([[3, 0], [0, 2]])], documents).tolist()
    [[5.0, -7.0]]
    """
    rows, columns = (np.concatenate(bags).astype(np.float64) for bags in (documents, queries))
    best = np.maximum.reduceat(rows @ columns.T, _starts(documents), axis=0)
    return np.add.reduceat(best, _starts(queries), axis=1).T


def _starts(bags: Sequence[Floats]) -> Ids:
    return np.cumsum([0, *map(len, bags[:-1])])


def measure_singly(method: BagMethod, full: Ids, answers: Ids) -> BagOutcome:
    """Search one query at a time, for what is found and how long it takes.

    Parameters
    ----------
    method : BagMethod
    full : (nq, K) int64
        Exact answers by MaxSim.
    answers : (nq,) int64
        The one relevant document of each query.

    Returns
    -------
    BagOutcome
        Measurements.

    Examples
    --------
    >>> found = np.arange(20).reshape(2, K)
    >>> measure_singly(BagMethod("guess", lambda some: found[some], 0), found, found[:, 1]).reciprocal_rank
    0.5
    """
    times, lines = [], []
    with threadpool_limits(1):
        for query in range(len(full)):
            start = time.perf_counter()
            lines.append(method.search(slice(query, query + 1)))
            times.append(time.perf_counter() - start)
    found = np.concatenate(lines)
    recall, reciprocal_rank = known_item(found, answers)
    return BagOutcome(overlap(found, full), recall, reciprocal_rank, method.document_bytes, median(times) * 1e3)
