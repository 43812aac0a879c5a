"""Answers to compare with, from a few lines of numpy: scores, added up as documented, and the best."""

from __future__ import annotations

from collections.abc import Callable

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
