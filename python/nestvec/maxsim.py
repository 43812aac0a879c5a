"""MaxSim of arrays that people bring themselves, and fewer query tokens for it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from . import arrays, backends, parallel, slices
from .bags import BagQueries, Bags, best, score
from .parallel import limited, threads_for
from .search import ROW_SUFFIX

Array = npt.NDArray[Any]

SUFFIX = {**ROW_SUFFIX, "int8": "i8"}
CARVED = 2 * 10**7  # multiplications of a kernel call


def maxsim(q: Any, docs: Any, *, scales: Any = None, candidates: Any = None, threads: int | None = None) -> Array:
    """Exact MaxSim of queries with documents, both of them bags of token vectors.

    ``score = sum over query tokens of the largest inner product with any token of the document``, computed in float64
    and rounded at the end, so that it does not depend on CPU or threads.

    Parameters
    ----------
    q : (m, d) array, list of (m_i, d) arrays, (nq, m, d) array, or (tokens, offsets)
        Queries; a 2-D array is one. Any type that `NestedIndex.add` takes.
    docs : (tokens, offsets), list of (n_i, d) arrays, or (n, length, d) array
        Documents; tokens (N, d) and offsets (n + 1,) from 0 to N. float32, float16, bfloat16 and int8 with contiguous
        dims are read in place.
    scales : (N,) float32, optional
        What each token is to be multiplied by, for quantised tokens.
    candidates : (c,) or (nq, c) integers, optional
        Documents to score, for all queries or for each; nothing is copied. Default: all.
    threads : int, optional
        Default: all cores this process may use, one for little work.

    Returns
    -------
    (nq, n) or (nq, c) float32
        -inf for documents without tokens.

    Raises
    ------
    ValueError
        Shapes that do not fit, a query without tokens, candidates that do not exist, NaN or Inf (where is named).
    TypeError
        A dtype that holds no real numbers.

    References
    ----------
    Khattab and Zaharia, "ColBERT", SIGIR 2020, arXiv 2004.12832.

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> docs = [np.float32([[1, 0], [0, 1]]), np.float32([[-1, -2]])]
    >>> nv.maxsim(np.float32([[3, 0], [0, 2]]), docs).tolist()
    [[5.0, -7.0]]
    """
    queries, bags = _pair(q, docs, scales)
    listed = listed_candidates(candidates, len(queries), len(bags.offsets) - 1)
    workers = threads_for(threads, queries.tokens.size * len(bags.tokens))
    if listed.ndim == 1:
        return _rounded(score(queries, bags, listed, workers))
    scores = np.empty(listed.shape)
    for i, some in enumerate(listed):
        scores[i] = score(queries.some(i, i + 1), bags, some, workers)[0]
    return _rounded(scores)


@limited
def maxsim_topk(
    q: Any,
    docs: Any,
    k: int,
    *,
    scales: Any = None,
    candidates: Any = None,
    threads: int | None = None,
    timeout: float | None = None,
) -> tuple[Array, Array]:
    """The k documents with the largest MaxSim for each query.

    Parameters
    ----------
    q, docs, scales, candidates, threads
        As for `maxsim`.
    k : int
        Results per query, at least 1.
    timeout : float, optional
        Seconds after which the search ends with a TimeoutError, between two steps of some milliseconds.

    Returns
    -------
    D : (nq, k) float32
        Descending.
    I : (nq, k) int64
        Document numbers, ties by smaller number; -1 with score -inf where there are fewer than k documents with tokens.

    Raises
    ------
    ValueError, TypeError
        As `maxsim`.
    TimeoutError
        After `timeout`.

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> docs = (np.float32([[1, 0], [0, 1], [2, 2]]), [0, 2, 2, 3])
    >>> D, I = nv.maxsim_topk(np.float32([[1, 1]]), docs, 2)
    >>> D.tolist(), I.tolist()
    ([[4.0, 1.0]], [[2, 0]])
    """
    k = arrays.result_count(k)
    queries, bags = _pair(q, docs, scales)
    listed = listed_candidates(candidates, len(queries), len(bags.offsets) - 1)
    workers = threads_for(threads, queries.tokens.size * len(bags.tokens))
    found_scores = np.full((len(queries), k), -np.inf, np.float32)
    found_ids = np.full((len(queries), k), -1, np.int64)
    for i in range(len(queries)):
        some = np.unique(listed if listed.ndim == 1 else listed[i])
        scores, ids = best(score(queries.some(i, i + 1), bags, some, workers)[0], some, k)
        found_scores[i, : len(ids)], found_ids[i, : len(ids)] = _rounded(scores), ids
    return found_scores, found_ids


def carve(tokens: Any, tau: float) -> Array:
    """Fewer query tokens that score about the same: clusters of similar tokens, replaced by their sums.

    The first token left takes all tokens left whose inner product with it is at least `tau`, and so on. MaxSim is
    linear in a query token, so a sum scores what its tokens would if they all found the same document token.

    Parameters
    ----------
    tokens : (m, d) array
        One query.
    tau : float
        Inner product from which tokens are one, .6 to .8 for unit vectors.

    Returns
    -------
    (c, d) float32
        1 <= c <= m sums, in the order of their first tokens.

    Raises
    ------
    ValueError
        No tokens, NaN or Inf, also for `tau`; a sum beyond float32.

    References
    ----------
    Dhulipala et al., "MUVERA", NeurIPS 2024, arXiv 2405.19504 (ball carving).

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> nv.carve(np.float32([[1, 0], [0, 1], [0.8, 0.6]]), 0.7).tolist()
    [[1.7999999523162842, 0.6000000238418579], [0.0, 1.0]]
    """
    rows = arrays.vectors(tokens, "tokens")
    x = arrays.to_float32(rows, "tokens")
    if len(x) == 0:
        raise ValueError("tokens holds no token; a query needs at least one")
    least = float(tau)
    if not np.isfinite(least):
        raise ValueError(f"tau must be a finite number, got {tau!r}")
    wide = x.astype(np.float64)
    alike = np.empty((len(x), len(x)), np.float32)
    for some in slices.steps(len(x), x.size, CARVED):
        parallel.check()
        backends.current().scores_f32(wide[some], x, x.shape[1], arrays.METRICS["ip"], alike[some])  # bits as anywhere
    left, sums = np.ones(len(x), bool), []
    for first in range(len(x)):
        if left[first]:
            taken = left & (alike[first].astype(np.float64) >= least)
            taken[first] = True
            left &= ~taken
            sums.append(wide[taken].sum(axis=0))
    return arrays.to_float32(np.stack(sums), "a sum of tokens")


def carved(queries: BagQueries, tau: float) -> BagQueries:
    """Each query carved."""
    cuts = queries.offsets.tolist()
    parts = [carve(queries.tokens[first:last], tau) for first, last in pairwise(cuts)]
    return BagQueries(np.concatenate(parts).astype(np.float64), np.cumsum([0, *map(len, parts)]))


def _pair(q: Any, docs: Any, scales: Any) -> tuple[BagQueries, Bags]:
    bags = arrays.ragged(docs, "docs")
    queries, offsets = arrays.bag_queries(q, "q", bags.tokens.shape[1] if len(bags) else None)
    if len(bags) == 0:  # of any dims, as an empty list is
        bags = arrays.Ragged(np.empty((0, queries.shape[1]), np.float32), bags.offsets)
    weights = arrays.token_scales(scales, len(bags.tokens))
    tokens, kind = arrays.readable_tokens(bags.tokens, "docs")
    wide = slices.converted(queries, np.float64)
    return BagQueries(wide, offsets), Bags(tokens, weights, SUFFIX[kind], bags.offsets)


def listed_candidates(candidates: Any, count: int, n: int) -> Array:
    """Numbers (c,) or (count, c) of documents to score, all n if there are none."""
    if candidates is None:
        return np.arange(n)
    listed = arrays.known_ids(candidates).astype(np.int64)
    if listed.ndim not in (1, 2) or (listed.ndim == 2 and len(listed) != count):
        raise ValueError(f"candidates must be (c,) or ({count}, c), a row for each query, got shape {listed.shape}")
    if listed.size and not 0 <= listed.min() <= listed.max() < n:
        wrong = listed.min() if listed.min() < 0 else listed.max()
        raise ValueError(f"candidate {wrong} does not exist; documents are numbered 0 to {n - 1}")
    return listed


def _rounded(scores: Array) -> Array:
    return slices.converted(scores.reshape(-1), np.float32).reshape(scores.shape)
