"""What each way to search finds, reads and takes; nested depths beside brute force in numpy."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import ir_measures
import numpy as np
import numpy.typing as npt
from ir_measures import RR, Qrel, R, ScoredDoc
from threadpoolctl import threadpool_limits

import nestvec as nv

from .methods import Floats, Ids, K, Method, Search, by_index, unit

_BLOCK = 256
_SINGLE_QUERIES = 500
_REPEATS = 5


@dataclass(frozen=True)
class Quality:
    """What one way to search finds, from 0 to 1."""

    overlap: float
    recall: float
    reciprocal_rank: float


@dataclass(frozen=True)
class Outcome(Quality):
    """The measurements of one way to search; bytes and microseconds are per query, on one thread."""

    row_bytes: float
    read_bytes: float
    single_us: float
    batch_us: float


@dataclass(frozen=True)
class Depth:
    """The measurements of exact search at one depth, of numpy beside it, and how many answers were as exact."""

    dims: int
    nestvec: Outcome
    numpy_single_us: float
    numpy_batch_us: float
    queries: int
    equal_queries: int
    largest_gap: float


def measure_method(method: Method, full: Ids) -> Outcome:
    """Measure a way to search.

    Parameters
    ----------
    method : Method
        Row i is the one relevant answer to query i.
    full : (n, K) int64
        Exact answers in all columns, from `brute_force`.

    Returns
    -------
    Outcome
        Measurements.

    Examples
    --------
    >>> found = np.arange(20).reshape(2, K)
    >>> measure_method(Method("guess", lambda some: found[some], 0, 0), found).overlap
    1.0
    """
    found = method.search(slice(None))
    recall, reciprocal_rank = known_item(found)
    with threadpool_limits(1):
        return Outcome(
            overlap=overlap(found, full),
            recall=recall,
            reciprocal_rank=reciprocal_rank,
            row_bytes=method.row_bytes,
            read_bytes=method.read_bytes,
            single_us=_single_us(method.search, len(full)),
            batch_us=_batch_us(method.search, len(full), len(full)),
        )


def measure_depth(index: nv.NestedIndex, queries: Floats, rows: Floats, dims: int, full: Ids) -> Depth:
    """Measure searches in the leading `dims` of an index that holds `rows`.

    Parameters
    ----------
    index : NestedIndex
        Cosine index of `rows`.
    queries, rows : (n, d) float32
        Row i is the one relevant answer to query i.
    dims : int
        Leading columns used.
    full : (n, K) int64
        Exact answers in all columns, from `brute_force`.

    Returns
    -------
    Depth
        Measurements.

    Examples
    --------
    >>> measure_depth(index, queries, rows, 64, brute_force(queries, rows, K))  # doctest: +SKIP
    """
    method = by_index(f"{dims} dims", index, queries, dims=dims)
    exact = brute_force(queries[:, :dims], rows[:, :dims], K)
    found = method.search(slice(None))
    differing = np.flatnonzero((found != exact).any(axis=1))
    short_queries, short_rows = unit(queries[:, :dims], np.float32), unit(rows[:, :dims], np.float32)

    def numpy_search(some: slice) -> Ids:
        return _numpy_search(short_queries[some], short_rows, K)

    with threadpool_limits(1):
        return Depth(
            dims=dims,
            nestvec=measure_method(method, full),
            numpy_single_us=_single_us(numpy_search, len(queries)),
            numpy_batch_us=_batch_us(numpy_search, len(queries), _BLOCK),
            queries=len(queries),
            equal_queries=len(queries) - len(differing),
            largest_gap=_largest_gap(queries[differing, :dims], rows[:, :dims], found[differing], exact[differing]),
        )


def brute_force(queries: Floats, rows: Floats, k: int) -> Ids:
    """Rank rows by cosine in float64, equal scores by smaller id.

    Parameters
    ----------
    queries : (nq, d) float32
    rows : (n, d) float32
    k : int
        At most n.

    Returns
    -------
    (nq, k) int64
        Best first.

    Examples
    --------
    >>> brute_force(np.eye(1, 2, dtype=np.float32), np.ones((3, 2), np.float32), 2).tolist()
    [[0, 1]]
    """
    unit_queries, unit_rows = unit(queries, np.float64), unit(rows, np.float64)
    blocks = (unit_queries[start : start + _BLOCK] for start in range(0, len(queries), _BLOCK))
    return np.concatenate([ranked(block @ unit_rows.T, k) for block in blocks])


def ranked(scores: npt.NDArray[np.float64], k: int) -> Ids:
    """Rank the columns of each line, equal scores by smaller column.

    Parameters
    ----------
    scores : (nq, n) float64
    k : int
        At most n.

    Returns
    -------
    (nq, k) int64
        Best first.

    Examples
    --------
    >>> ranked(np.array([[1.0, 3.0, 3.0]]), 2).tolist()
    [[1, 2]]
    """
    ids = np.empty((len(scores), k), np.int64)
    kth = -np.partition(-scores, k - 1, axis=1)[:, k - 1]
    for number, (line, threshold) in enumerate(zip(scores, kth, strict=True)):
        candidates = np.flatnonzero(line >= threshold)
        ids[number] = candidates[np.argsort(-line[candidates], kind="stable")[:k]]
    return ids


def overlap(ids: Ids, reference: Ids) -> float:
    """Mean share of each reference line that occurs in the same line of `ids`.

    Parameters
    ----------
    ids, reference : (nq, k) int64

    Returns
    -------
    float
        0 to 1.

    Examples
    --------
    >>> overlap(np.array([[1, 2]]), np.array([[2, 3]]))
    0.5
    """
    return float((ids[:, :, None] == reference[:, None, :]).any(axis=1).mean())


def known_item(ids: Ids, answers: Ids | None = None) -> tuple[float, float]:
    """Score a ranking of queries that have one relevant answer each.

    Parameters
    ----------
    ids : (nq, K) int64
        Best first; -1 stands for no answer.
    answers : (nq,) int64, optional
        The relevant row of each query; default: row i of query i.

    Returns
    -------
    tuple of float
        Recall@10 and mean reciprocal rank within the K answers, both 0 to 1.

    Examples
    --------
    >>> known_item(np.array([[0, 1], [0, 1]]))
    (1.0, 0.75)
    """
    numbers = range(len(ids)) if answers is None else answers.tolist()
    relevant = [Qrel(str(query), str(row), 1) for query, row in enumerate(numbers)]
    run = [
        ScoredDoc(str(query), str(row), -float(rank))
        for query, line in enumerate(ids.tolist())
        for rank, row in enumerate(line)
        if row >= 0
    ]
    measured = ir_measures.calc_aggregate([R @ K, RR], relevant, run)
    return float(measured[R @ K]), float(measured[RR])


def _largest_gap(queries: Floats, rows: Floats, found: Ids, exact: Ids) -> float:
    """Largest difference in cosine, rank by rank, between two rankings of the same rows."""
    if not len(queries):
        return 0.0
    unit_queries, unit_rows = unit(queries, np.float64), unit(rows, np.float64)
    gaps = np.einsum("qd,qkd->qk", unit_queries, unit_rows[exact] - unit_rows[found])
    return float(np.abs(gaps).max())


def _numpy_search(queries: Floats, rows: Floats, k: int) -> Ids:
    return largest(queries @ rows.T, k)


def largest(scores: Floats, k: int) -> Ids:
    """Columns of the k largest scores of each line, best first, as numpy finds them fastest.

    Parameters
    ----------
    scores : (nq, n) float32
    k : int
        At most n.

    Returns
    -------
    (nq, k) int64

    Examples
    --------
    >>> largest(np.array([[1, 3, 2]], np.float32), 2).tolist()
    [[1, 2]]
    """
    best = np.argpartition(scores, -k, axis=1)[:, -k:]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
    return np.take_along_axis(best, order, axis=1)


def _single_us(search: Search, n: int) -> float:
    times = [_seconds(search, slice(query, query + 1)) for query in range(0, n, max(1, n // _SINGLE_QUERIES))]
    return median(times) * 1e6


def _batch_us(search: Search, n: int, block: int) -> float:
    slices = [slice(start, start + block) for start in range(0, n, block)]
    return median(sum(_seconds(search, some) for some in slices) for _ in range(_REPEATS)) / n * 1e6


def _seconds(search: Search, some: slice) -> float:
    start = time.perf_counter()
    search(some)
    return time.perf_counter() - start
