"""MaxSim of queries that are bags of vectors with documents that are: exact scores, and certified bounds from codes.

    ``maxsim(Q, D) = sum over q in Q of max over x in D of <q, x>``

(the Chamfer similarity; Khattab and Zaharia, SIGIR 2020, arXiv 2004.12832). Inner products are the float64 sums of
`nestvec.kernels.exact`, and so is the sum over query tokens, in their order. A document without tokens scores -inf.

Codes of tokens are rows of int8, with one scale each, ``x = s (c + e)``; of query tokens likewise, ``q = t (b + f)``:

    ``<q, x> <= t s <b, c> + (|q| + |t f|) |s e| + |t f| |x|``          (Cauchy-Schwarz)

With the largest |s e| and |x| of a document in place of its tokens', the last two terms do not depend on the token: a
document's bound is the MaxSim of the codes plus one term per query.

Cost: compiled kernels find the maxima in float32 or integers, and compute in float64 only what can be one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .exact import dot, load_bf16, load_f16, load_f32
from .lanes import GROW, LANES, fold, inline, njit, set_of

PANEL = 16  # query tokens side by side
BAG_TINY = 1e-30
FINITE = np.float32(1e37)


@inline
def load_i8(source: Any, target: Any) -> None:
    """int8 values."""
    for i in range(source.shape[0]):
        target[i] = np.float32(source[i])


@inline
def finite_f32(source: Any) -> bool:
    """Whether float32 values are all finite."""
    return bool(np.all(source.view(np.uint32) & np.uint32(0x7F800000) != np.uint32(0x7F800000)))


@inline
def finite_f16(source: Any) -> bool:
    """Whether float16 values, as bits, are all finite."""
    return bool(np.all(source & np.uint16(0x7C00) != np.uint16(0x7C00)))


@inline
def finite_bf16(source: Any) -> bool:
    """Whether bfloat16 values, as bits, are all finite."""
    return bool(np.all(source & np.uint16(0x7F80) != np.uint16(0x7F80)))


@inline
def finite_i8(source: Any) -> bool:
    """Integers are finite."""
    return source.shape[0] >= 0  # type: ignore[no-any-return]


def _maxsim(load: Callable[..., Any], finite: Callable[..., Any]) -> Callable[..., Any]:
    @njit
    def maxsim(
        q: Any, q_offsets: Any, tokens: Any, scales: Any, offsets: Any, docs: Any, scratch: Any, out: Any
    ) -> int:
        """Exact MaxSim of every query with the documents listed.

        Parameters
        ----------
        q : (m, d) float64
            Tokens of all queries, float32 values; query i has rows [``q_offsets[i]``, ``q_offsets[i + 1]``).
        q_offsets : (nq + 1,) int64
        tokens : (N, d), last axis contiguous
        scales : (N,) or (0,) float32
            What inner products with each token are multiplied by; empty: 1.
        offsets : (n + 1,) int64
            Document j has tokens [``offsets[j]``, ``offsets[j + 1]``).
        docs : (c,) int64
            Documents to score.
        scratch : (>= 4 d,) uint8
            Contents do not matter; compiled kernels need `nestvec.bags.scratch`.
        out : (nq, c) float64

        Returns
        -------
        int
            The place in `docs` of the first document that holds NaN or Inf, where the kernel stopped, or -1.
        """
        d = q.shape[1]
        buffer = scratch[: 4 * d].view(np.float32)
        acc = np.empty(LANES)
        best = np.empty(q.shape[0])
        for c in range(docs.shape[0]):
            first = offsets[docs[c]]
            last = offsets[docs[c] + 1]
            best[:] = -np.inf
            for t in range(first, last):
                if not finite(tokens[t]):
                    return c
                load(tokens[t], buffer)
                scale = np.float64(scales[t]) if scales.shape[0] > 0 else 1.0
                for i in range(q.shape[0]):
                    best[i] = max(best[i], dot(q[i], buffer, acc) * scale)
            for query in range(out.shape[0]):
                total = 0.0
                for i in range(q_offsets[query], q_offsets[query + 1]):
                    total += best[i]
                out[query, c] = total if first < last else -np.inf
        return -1

    return maxsim


maxsim_f32 = _maxsim(load_f32, finite_f32)
maxsim_f16 = _maxsim(load_f16, finite_f16)
maxsim_bf16 = _maxsim(load_bf16, finite_bf16)
maxsim_i8 = _maxsim(load_i8, finite_i8)


@njit
def pack_bags(x: Any, offsets: Any, codes: Any, scales: Any, sums: Any, bounds: Any) -> None:
    """int8 codes of tokens, and what a document's bound needs.

    Parameters
    ----------
    x : (N, d) float32
    offsets : (n + 1,) int64
        From 0 to N.
    codes : (N, W) int8
        W is d rounded up to a multiple of 4; zero beyond d.
    scales : (N,) float32
        The largest magnitude over 127.
    sums : (N,) int32
        Of each token's codes.
    bounds : (2, n) float32
        The largest |s e| and the largest |x| of each document's tokens, rounded up; inf where float32 does not reach.
    """
    d = x.shape[1]
    values = np.empty(LANES)
    squares = np.empty(LANES)
    for bag in range(offsets.shape[0] - 1):
        largest_error = 0.0
        largest_norm = 0.0
        for t in range(offsets[bag], offsets[bag + 1]):
            largest = np.float32(0)
            for j in range(d):
                largest = max(largest, abs(x[t, j]))
            scale = np.float32(largest / np.float32(127))
            inverse = 1.0 / np.float64(scale) if scale > np.float32(0) else 0.0
            scales[t] = scale
            values[:] = 0.0
            squares[:] = 0.0
            total = np.int32(0)
            for j in range(codes.shape[1]):
                value = np.float64(x[t, j]) if j < d else 0.0
                code = min(max(np.rint(value * inverse), -127.0), 127.0)
                error = value - code * np.float64(scale)
                codes[t, j] = np.int8(code)
                total += np.int32(code)
                values[j % LANES] += value * value
                squares[j % LANES] += error * error
            sums[t] = total
            largest_error = max(largest_error, np.sqrt(fold(squares)))
            largest_norm = max(largest_norm, np.sqrt(fold(values)))
        error = largest_error * GROW + BAG_TINY
        norm = largest_norm * GROW + BAG_TINY
        bounds[0, bag] = np.float32(error if error < 3e38 else np.inf)
        bounds[1, bag] = np.float32(norm if norm < 3e38 else np.inf)


@njit
def scan_bags(
    codes: Any,
    scales: Any,
    sums: Any,
    offsets: Any,
    bounds: Any,
    query_codes: Any,
    query_steps: Any,
    query_panels: Any,
    query_bounds: Any,
    first: int,
    last: int,
    allowed: Any,
    out: Any,
) -> None:
    """Upper bounds on the MaxSim of every query with the documents [`first`, `last`).

    Float32, one rounding per operation; `query_bounds` holds a margin for them.

    Parameters
    ----------
    codes, scales, sums, offsets, bounds
        As `pack_bags` leaves them, with 16 tokens and 64 bytes more behind the last one read.
    query_codes : (P, lines, 64) uint8
        Codes of 16 query tokens a panel, plus 128: W / 4 lines of 16 tokens x 4 dims, then zeros to a multiple of 16
        lines. A query begins with a panel.
    query_steps : (P, 16) float32
        Step t of each query token; 0 where there is none.
    query_panels : (nq + 1,) int64
        Query i has panels [``query_panels[i]``, ``query_panels[i + 1]``).
    query_bounds : (2, nq) float32
        What the largest error and the largest norm of a document are multiplied by.
    allowed : (m, documents) uint8
        Documents that may be found, a byte each, 0 or 1: m is 0 (all may), 1 (one set for all queries) or nq. Tokens of
        a document that no query may find are not read.
    out : (nq, last - first) float32
        -inf for documents without tokens or not allowed, inf where float32 does not reach.
    """
    best = np.empty((query_steps.shape[0], PANEL), np.float32)
    lanes = np.empty(PANEL, np.float32)
    for bag in range(first, last):
        if offsets[bag] == offsets[bag + 1] or _barred(allowed, bag):
            out[:, bag - first] = np.float32(-np.inf)
            continue
        best[:] = np.float32(-np.inf)
        for t in range(offsets[bag], offsets[bag + 1]):
            _bag_products(codes[t], scales[t], sums[t], query_codes, best)
        for query in range(out.shape[0]):
            some = set_of(allowed, query)
            if some.shape[0] > 0 and some[bag] == 0:
                out[query, bag - first] = np.float32(-np.inf)
                continue
            lanes[:] = np.float32(0)
            for panel in range(query_panels[query], query_panels[query + 1]):
                for i in range(PANEL):
                    lanes[i] = np.float32(lanes[i] + np.float32(query_steps[panel, i] * best[panel, i]))
            slack = np.float32(
                np.float32(query_bounds[0, query] * bounds[0, bag])
                + np.float32(query_bounds[1, query] * bounds[1, bag])
            )
            total = np.float32(np.float32(_fold32(lanes) + slack) + np.float32(1e-36))
            out[query, bag - first] = total if abs(total) <= FINITE else np.float32(np.inf)


@njit
def _barred(allowed: Any, bag: int) -> bool:
    """Whether no query may find a document."""
    return allowed.shape[0] > 0 and not np.any(allowed[:, bag])


@njit
def _bag_products(codes: Any, scale: Any, total: Any, query_codes: Any, best: Any) -> None:
    """Raise `best` to the scaled integer products of one token with all query tokens."""
    for panel in range(query_codes.shape[0]):
        for i in range(PANEL):
            product = np.int32(-128) * total
            for line in range(codes.shape[0] // 4):
                for j in range(4):
                    product += np.int32(query_codes[panel, line, i * 4 + j]) * np.int32(codes[line * 4 + j])
            best[panel, i] = max(best[panel, i], np.float32(np.float32(product) * scale))


@njit
def _fold32(lanes: Any) -> Any:
    """Sum sixteen float32 lanes in the order 16-8-4-2-1."""
    width = 8
    while width > 0:
        for i in range(width):
            lanes[i] = np.float32(lanes[i] + lanes[i + width])
        width //= 2
    return lanes[0]
