"""Answers to compare with, from a few lines of numpy: scores, added up as documented, and the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def _sum(term: Callable[[slice], np.ndarray], shape: tuple[int, ...], dims: int) -> np.ndarray:
    """Sixteen float64 lanes, lane l takes dims l, l + 16, ..., folded 16-8-4-2-1."""
    lanes = np.zeros((*shape, 16))
    for at in range(0, dims, 16):
        terms = term(slice(at, min(at + 16, dims)))
        lanes[..., : terms.shape[-1]] += terms
    for width in (8, 4, 2, 1):
        lanes[..., :width] += lanes[..., width : 2 * width].copy()
    return lanes[..., 0]


def scores(q: np.ndarray, x: np.ndarray, metric: str) -> np.ndarray:
    """Scores (nq, n) float64, higher is better; `l2` is minus the squared distance."""
    q, x = np.asarray(q, np.float64), np.asarray(x, np.float64)
    shape, d = (len(q), len(x)), x.shape[1]
    if metric == "l2":
        return -_sum(lambda some: (q[:, None, some] - x[None, :, some]) ** 2, shape, d)
    dots = _sum(lambda some: q[:, None, some] * x[None, :, some], shape, d)
    if metric == "ip":
        return dots
    q_squares = _sum(lambda some: q[:, some] ** 2, (len(q),), d)
    squares = q_squares[:, None] * _sum(lambda some: x[:, some] ** 2, (len(x),), d)
    return np.divide(dots, np.sqrt(squares), out=np.zeros(shape), where=squares > 0)


def topk(
    q: np.ndarray, x: np.ndarray, k: int, metric: str, ids: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What a search returns: D (nq, k) float32 and I (nq, k) int64, ties by smaller id, padded with -1."""
    ids = np.arange(len(x)) if ids is None else np.asarray(ids)
    found = scores(q, x, metric)
    order = np.lexsort((np.broadcast_to(ids, found.shape), -found), axis=1)[:, :k]
    sign, missing = (-1 if metric == "l2" else 1), ((0, 0), (0, k - order.shape[1]))
    with np.errstate(over="ignore"):
        best = (sign * np.take_along_axis(found, order, 1)).astype(np.float32)
    return np.pad(best, missing, constant_values=sign * -np.inf), np.pad(ids[order], missing, constant_values=-1)


def maxsim(
    queries: Sequence[np.ndarray], docs: Sequence[np.ndarray], scales: Sequence[np.ndarray] | None = None
) -> np.ndarray:
    """MaxSim (nq, n) float64: over query tokens, in order, the sum of the largest inner products with a document's."""
    result = np.full((len(queries), len(docs)), -np.inf)
    for j, x in enumerate(docs):
        for i, q in enumerate(queries if len(x) else ()):
            products = scores(q, x, "ip") * (1 if scales is None else np.float64(scales[j]))
            result[i, j] = np.cumsum(products.max(axis=1))[-1]
    return result


def best(found: np.ndarray, k: int, ids: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The k best (nq, k) of scores (nq, n) and their ids, ties by smaller id, padded with -1; -inf is no score."""
    ids = np.arange(found.shape[1]) if ids is None else np.asarray(ids)
    scored, listed = np.full((len(found), k), -np.inf, np.float32), np.full((len(found), k), -1, np.int64)
    for i, row in enumerate(found):
        order = [at for at in np.lexsort((ids, -row))[:k] if row[at] > -np.inf]
        with np.errstate(over="ignore"):
            scored[i, : len(order)], listed[i, : len(order)] = row[order], ids[order]
    return scored, listed
