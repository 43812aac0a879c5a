"""Coarse codes of rows, `b1` (signs) and `i4` (high halves of int8 codes), with what makes their scores unbiased.

A row x over a prefix is stood for by F v, where v are its small integers (signs -1 and 1, or 2 h - 15.0625 for the high
half h of an int8 code's byte) and ``F = <r, r> / <r, v>``: then <r, F v> = <r, r>, and <q, F v> has no bias along r
(Gao and Long, "RaBitQ", SIGMOD 2024, arXiv 2405.12497). r is the row itself, or for `b1` what is left of it after the
mean was taken away. What F v has besides r is orthogonal to it, of norm ``sqrt(F^2 <v, v> - <r, r>)``; as if in a
random direction it contributes E = that / sqrt(dims - 1) per unit of the query's norm: the standard error of an
estimate, not a bound.

An estimate is ``F <q, v> + G a``, with a number a per query: G is half of <r, r> for ``l2``, and what the length of x
is of the length of its prefix for ``cosine``, by which F and E are multiplied, too. ``factors`` holds F, G and E as
bfloat16 bits, uint16 ``(3, L, capacity)``: 2^-9 is far less than the error of the estimate.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .bits import word_width
from .lanes import BLOCK, COSINE, L2, LANES, LINE, TILE, fold, level_width, njit

LARGEST = 3e38
MIDDLE = 15.0625  # the codes of high half h are 16 h - 128 to 16 h - 113, in the middle 8 (2 h - 15.0625)


@njit
def pack_signs(
    x: Any, center: Any, bounds: Any, starts: Any, metric: int, first: int, words: Any, factors: Any
) -> None:
    """Signs of ``x (n, d)`` float32 less `center` ``(d,)`` float64 into a plane of words, at positions from `first` on.

    For ``cosine`` the row is divided by its norm first. A bit is one where the rest is positive.
    """
    levels = bounds.shape[0]
    norms = np.zeros(LANES)
    sizes = np.zeros(LANES)
    squares = np.zeros(LANES)
    for i in range(x.shape[0]):
        at = first + i
        inverse = 1.0
        before = 0.0
        if metric == COSINE:
            norms[:] = 0.0
            for j in range(x.shape[1]):
                norms[j % LANES] += np.float64(x[i, j]) * np.float64(x[i, j])
            length = math.sqrt(fold(norms))
            inverse = 1.0 / length if length > 0.0 else 0.0
        total = 0.0
        size = 0.0
        for level in range(levels):
            begin = bounds[level - 1] if level > 0 else 0
            width = word_width(bounds, level)
            norms[:] = 0.0
            sizes[:] = 0.0
            squares[:] = 0.0
            for word in range(width):
                value = np.uint64(0)
                for j in range(begin + word * 64, min(begin + word * 64 + 64, bounds[level])):
                    lane = (j - begin) % LANES
                    scaled = np.float64(x[i, j]) * inverse
                    rest = scaled - center[j]
                    if rest > 0.0:
                        value |= np.uint64(1) << np.uint64(63 - (j - begin) % 64)
                    sizes[lane] += abs(rest)
                    squares[lane] += rest * rest
                    norms[lane] += scaled * scaled
                words[starts[level] + at // BLOCK * BLOCK * width + word * BLOCK + at % BLOCK] = value
            size += fold(sizes)
            total += fold(squares)
            before += fold(norms)
            _write_factors(total, size, float(bounds[level]), bounds[level], before, metric, at, level, factors)


@njit
def _write_factors(
    square: float, product: float, codes: float, dims: int, norm: float, metric: int, at: int, level: int, factors: Any
) -> None:
    """F, G and E from <r, r>, <r, v>, <v, v> and, for cosine, the squared norm of the prefix of a unit row."""
    factor = square / product if product > 0.0 else 0.0
    error = math.sqrt(max(factor * factor * codes - square, 0.0) / max(dims - 1, 1))
    lift = 0.0
    if metric == L2:
        lift = 0.5 * square
    elif metric == COSINE:
        lift = 1.0 / math.sqrt(norm) if norm > 0.0 else 0.0
        factor *= lift
        error *= lift
    factors[0, level, at] = bfloat16(factor)
    factors[1, level, at] = bfloat16(lift)
    factors[2, level, at] = bfloat16(error)


@njit
def bfloat16(value: float) -> Any:
    """The bits of a value that is not negative, to nearest even; finite."""
    one = np.empty(1, np.float32)
    one[0] = min(value, LARGEST)
    bits = one.view(np.uint32)[0]
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return np.uint16((np.uint64(bits) + np.uint64(0x7FFF) + np.uint64(odd)) >> np.uint64(16))


@njit
def nibble_width(bounds: Any, level: int) -> int:
    """Bytes of one row's `i4` codes in a level: two dims a byte, whole lines of eight dims."""
    below = bounds[level - 1] if level > 0 else 0
    return (bounds[level] - below + 7) // 8 * 4  # type: ignore[no-any-return]


@njit
def pack_nibbles(
    x: Any,
    bounds: Any,
    starts: Any,
    codes: Any,
    nibble_starts: Any,
    metric: int,
    first: int,
    nibbles: Any,
    factors: Any,
) -> None:
    """High halves of int8 codes into a plane of their own; rows x (n, d) float32 as `pack_rows` packed them.

    A line of 64 bytes is 16 rows x 8 dims: dims 0 to 3 of each row in the low halves of its four bytes, 4 to 7 in the
    high.
    """
    levels = bounds.shape[0]
    products = np.zeros(LANES)
    squares = np.zeros(LANES)
    for i in range(x.shape[0]):
        at = first + i
        tile, column = at // TILE * TILE, at % TILE * 4
        total = 0.0
        product = 0.0
        small = 0.0
        for level in range(levels):
            begin = bounds[level - 1] if level > 0 else 0
            width = level_width(bounds, level)
            base = starts[level] + tile * width + column
            target = nibble_starts[level] + tile * nibble_width(bounds, level) + column
            products[:] = 0.0
            squares[:] = 0.0
            for j in range(bounds[level] - begin):
                high = int(codes[base + j // 4 * LINE + j % 4]) >> 4
                if j % 8 < 4:
                    nibbles[target + j // 8 * LINE + j % 4] = high
                else:
                    nibbles[target + j // 8 * LINE + j % 4] |= np.uint8(high << 4)
                value = np.float64(x[i, begin + j])
                middle = np.float64(2 * high) - MIDDLE
                products[j % LANES] += value * middle
                squares[j % LANES] += value * value
                small += middle * middle  # exact, in any order
            for j in range(bounds[level] - begin, nibble_width(bounds, level) * 2):
                if j % 8 < 4:  # so that every byte is written
                    nibbles[target + j // 8 * LINE + j % 4] = 0
            product += fold(products)
            total += fold(squares)
            norm = total
            _write_factors(total, product, small, bounds[level], norm, metric, at, level, factors)
