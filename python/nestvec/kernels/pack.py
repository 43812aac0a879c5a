"""int8 planes: one scale per row, codes in tiles of 16 rows, and upper bounds on everything the codes leave out.

A row x becomes codes c with x = s (c + e), s = max|x| / 127. All stored norms are in units of s, so they neither
overflow nor underflow and serve every prefix. ``stats`` is float32 ``(3 L, capacity)`` for L levels:

====================  ============================================================================
row of ``stats``      meaning for stored row i and the prefix of level l
====================  ============================================================================
0                     s, the value of one code step
1 + l                 norm of the prefix of x / s, rounded up; 0 only for an all-zero prefix
1 + L + l             norm of the prefix of e, rounded up
1 + 2 L + l, l < L-1  norm of what lies behind the prefix, rounded up
====================  ============================================================================

``blocks`` is float32 ``(2 L, capacity / 64)``: per block of 64 rows, the largest norm (row l) and error (row L + l).

Codes are level-major; inside a level, a tile of 16 rows is a run of 64-byte lines, each holding 4 dims of all 16 rows,
as ``code + 128``; codes that fill up the last line of a level are 0. One layout is a VNNI operand, an AMX B tile, and
truncatable at every fourth dim.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .lanes import (
    BLOCK,
    CODE_MAX,
    COSINE,
    GROW,
    L2,
    LANES,
    LINE,
    MARGIN,
    TILE,
    TINY,
    ZERO,
    fold,
    level_width,
    njit,
    query_width,
)


@njit
def pack_rows(x: Any, bounds: Any, starts: Any, first: int, codes: Any, stats: Any, blocks: Any) -> None:
    """Write rows ``x (n, d)`` float32, finite, into a plane at positions `first`, `first` + 1, ...

    Parameters
    ----------
    bounds, starts : (L,) int64
        Level ends in dims, and the byte in `codes` where each level starts.
    codes : (bytes,) uint8
    stats : (3 L, capacity) float32
    blocks : (2 L, capacity / 64) float32
        Updated by maximum, so they stay valid as a block fills.
    """
    levels = bounds.shape[0]
    total = np.zeros(LANES)
    error = np.zeros(LANES)
    squares = np.zeros(levels)
    errors = np.zeros(levels)
    for i in range(x.shape[0]):
        largest = np.float32(0)
        for j in range(x.shape[1]):
            largest = max(largest, np.float32(abs(x[i, j])))
        scale, lift, inverse = _row_scale(largest)
        stats[0, first + i] = scale
        below = 0
        for level in range(levels):
            total[:] = 0.0
            error[:] = 0.0
            width = level_width(bounds, level)
            base = starts[level] + (first + i) // TILE * TILE * width + (first + i) % TILE * 4
            for j in range(bounds[level] - below):
                value = np.float32(np.float32(x[i, below + j] * lift) * inverse)
                code = min(max(np.rint(value), np.float32(-CODE_MAX)), np.float32(CODE_MAX))
                left = np.float32(value - code)
                total[j % LANES] += np.float64(value) * np.float64(value)
                error[j % LANES] += np.float64(left) * np.float64(left)
                codes[base + j // 4 * LINE + j % 4] = np.uint8(np.int32(code) + ZERO)
            for j in range(bounds[level] - below, width):
                codes[base + j // 4 * LINE + j % 4] = np.uint8(ZERO)
            squares[level] = fold(total)
            errors[level] = fold(error)
            below = bounds[level]
        _row_stats(x[i], bounds, squares, errors, first + i, stats, blocks)


@njit
def _row_scale(largest: Any) -> Any:
    """Scale s of a row, a power of two that lifts tiny rows out of the subnormals, and 1 / (s * lift)."""
    if largest == np.float32(0):
        return np.float32(0), np.float32(1), np.float32(0)
    lift = np.float32(2.0**80) if largest < np.float32(2.0**-60) else np.float32(1)
    scale = max(np.float32(largest / np.float32(CODE_MAX)), np.float32(2.0**-149))
    return scale, lift, np.float32(np.float32(1) / np.float32(scale * lift))


@njit
def _row_stats(row: Any, bounds: Any, squares: Any, errors: Any, at: int, stats: Any, blocks: Any) -> None:
    levels = bounds.shape[0]
    square = 0.0
    error = 0.0
    nonzero = False
    below = 0
    for level in range(levels):
        square += squares[level]
        error += errors[level]
        for j in range(below, bounds[level]):
            nonzero = nonzero or row[j] != np.float32(0)
        below = bounds[level]
        norm = math.sqrt(square)
        # x / s itself carries two float32 roundings a dim: 2^-23 of the norm, doubled to be safe
        missing = math.sqrt(error) + norm * 2.0**-22
        stats[1 + level, at] = np.float32(norm * GROW + TINY) if nonzero else np.float32(0)
        stats[1 + levels + level, at] = np.float32(missing * GROW + TINY) if nonzero else np.float32(0)
        block = at // BLOCK
        blocks[level, block] = max(blocks[level, block], stats[1 + level, at])
        blocks[levels + level, block] = max(blocks[levels + level, block], stats[1 + levels + level, at])
    behind = 0.0
    for level in range(levels - 2, -1, -1):
        behind += squares[level + 1]
        stats[1 + 2 * levels + level, at] = np.float32(math.sqrt(behind) * GROW + TINY)


@njit
def pack_queries(
    q: Any, bounds: Any, metric: int, codes: Any, sums: Any, stats: Any, multiply: Any, offset: Any
) -> None:
    """Quantise queries ``q (nq, d)`` float32 to int8 codes over the prefix ``bounds[-1]``, with what bounds need.

    Parameters
    ----------
    bounds : (T,) int64
        Level ends up to the searched prefix.
    codes : (>= nq, sum of padded level widths) int8, zeroed
        Each level padded to whole steps of 64 dims.
    sums : (T, >= nq) int32, zeroed
        Sum of the codes of each prefix: a scan of bytes stored as ``code + 128`` has to take off 128 times that.
    stats : (3 T + 1, >= nq) float32, zeroed
        Per query, in units of its code step: factor of the rows' error (T), factor of the rows' norm (T), norm behind
        each level within the prefix (T), and the reciprocal of the step (for ``l2``).
    multiply, offset : (nq,) float64
        An exact score tau is ``tau * multiply + offset`` in the units of the scan's upper bounds.

    Notes
    -----
    With query q = t (b + f), |<q, x> / (s t) - <b, c>| <= |q/t| |e| + |f| |c| and |c| <= |x/s| + |e|: the error's
    factor is |q/t| + |f|, the norm's factor |f| plus a margin for rounding.
    """
    levels = bounds.shape[0]
    for i in range(q.shape[0]):
        largest = 0.0
        for j in range(bounds[levels - 1]):
            largest = max(largest, np.float64(abs(q[i, j])))
        step = largest / CODE_MAX if largest > 0.0 else 1.0
        square = 0.0
        error = 0.0
        total = np.int32(0)
        below = 0
        at = 0
        for level in range(levels):
            for j in range(below, bounds[level]):
                value = np.float64(q[i, j]) / step
                code = np.rint(value)
                square += value * value
                error += (value - code) * (value - code)
                codes[i, at + j - below] = np.int8(code)
                total += np.int32(code)
            at += query_width(bounds, level)
            sums[level, i] = total
            below = bounds[level]
            norm = math.sqrt(square)
            left = math.sqrt(error)
            stats[level, i] = np.float32((norm + left) * (1.0 + MARGIN))
            stats[levels + level, i] = np.float32(left * (1.0 + MARGIN) + norm * MARGIN)
        behind = 0.0
        for level in range(levels - 2, -1, -1):
            for j in range(bounds[level], bounds[level + 1]):
                value = np.float64(q[i, j]) / step
                behind += value * value
            stats[2 * levels + level, i] = np.float32(math.sqrt(behind) * (1.0 + MARGIN))
        stats[3 * levels, i] = np.float32(min(1.0 / step, 3e38))
        norm = math.sqrt(square)
        multiply[i] = norm if metric == COSINE else (0.5 / step if metric == L2 else 1.0 / step)
        offset[i] = 0.5 * norm * norm * step if metric == L2 else 0.0
