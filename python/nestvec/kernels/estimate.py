"""Estimated scores of rows from coarse codes, and the best of them: the stages of a plan.

The score of a row is estimated as ``t F + G a``, in units of the query's step: t is an integer from the dot product
of the query's codes with the row's, F and G belong to the row (see `nestvec.kernels.codes`; for `i8` they are its
scale and half its squared norm), a to the query. Float32, one rounding per operation; what overflows becomes 3e38 or
-3e38, so that no row is ever lost. Sums of integers are kept with a row: the next stage adds only the levels this one
did not read.

Queries meet signs as digits: b = -2^(D-1) b_(D-1) + ... + 2 b_1 + b_0, so <b, signs> takes D popcounts a word. Scans
are bound by reading a plane (1/8, 1/2 or 1 byte a dim, and 2 to 8 for factors); lists by one or two cache misses a
word, which prefetching overlaps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .bits import popcount, word_width
from .codes import nibble_width
from .lanes import BLOCK, L2, LINE, TILE, allows, allows_none, level_width, njit, query_width
from .scan import HALF, UNIT, _load_terms, _spread
from .select import keep_best

HUGE = np.float32(3e38)


@njit
def scan_b1(
    words: Any,
    starts: Any,
    bounds: Any,
    levels: int,
    factors: Any,
    lifted: bool,
    query: Any,
    shift: int,
    a: float,
    threshold: float,
    keep: int,
    first: int,
    last: int,
    stride: int,
    slot: int,
    allowed: Any,
    rows: Any,
    sums: Any,
    values: Any,
    counts: Any,
) -> float:
    """List the rows of [`first`, `last`) whose estimates over the first `levels` levels may be among the `keep` best.

    Those are the rows that reach the threshold: whenever there is no room for 64 more, the list is cut to its `keep`
    best, whose least value becomes the threshold if it is larger.

    Parameters
    ----------
    words, starts, bounds, factors
        As `pack_signs` leaves them.
    lifted : bool
        Whether ``G a`` is part of the estimate.
    query : (D, W) uint64
        Digits of the query's codes, the lowest first, the last one negative; zero beyond the searched dims.
    shift : int
        ``t = 2 sum - shift``: the sum of the query's codes.
    a, threshold : float32
    keep : int
        At least 1; there is room for 64 rows more, or for all that may come and 64.
    first, last, stride : int
        Multiples of 64 but for `last`: blocks of 64 rows at `first`, `first` + `stride`, ...: all of them, or a sample.
    slot : int
        Added to the numbers of rows.
    allowed : (words,) uint64
        Rows that may be appended, row r by bit ``r % 64`` of word ``r // 64``; without a word all may.
    rows : (room,) int32;  sums : (room,) int32;  values : (room,) float32;  counts : (1,) int64
        Where they go, in row order, after those that are there.

    Returns
    -------
    float
        The threshold at the end.
    """
    some = np.empty(BLOCK, np.int32)
    threshold = np.float32(threshold)  # type: ignore[assignment]
    for block in range(first, last, stride):
        if counts[0] > rows.shape[0] - BLOCK:
            threshold = max(threshold, keep_best(rows, sums, values, counts, keep))
        if allows_none(allowed, block):
            continue
        some[:] = 0
        at = 0
        for level in range(levels):
            width = word_width(bounds, level)
            for word in range(width):
                line = starts[level] + block * width + word * BLOCK
                for digit in range(query.shape[0]):
                    weight = _weight(digit, query.shape[0])
                    _weigh_line(words[line : line + BLOCK], query[digit, at + word], weight, some)
            at += width
        size = min(BLOCK, last - block)
        f, g = factors[0, levels - 1, block : block + size], factors[1, levels - 1, block : block + size]
        for i in range(size):
            value = _estimate(2 * some[i] - shift, _widen(f[i]), _widen(g[i]), lifted, a)
            _append(block + i, slot, some[i], value, threshold, allowed, rows, sums, values, counts)
    return threshold


@njit
def list_b1(
    words: Any,
    starts: Any,
    bounds: Any,
    begin: int,
    levels: int,
    factors: Any,
    lifted: bool,
    query: Any,
    shift: int,
    a: float,
    rows: Any,
    sums: Any,
    values: Any,
) -> None:
    """Add levels [`begin`, `levels`) to the sums of the listed rows, and estimate them anew.

    Parameters
    ----------
    rows : (m,) int32;  sums : (m,) int32;  values : (m,) float32
        Sums over the levels below `begin`; both are updated.
    """
    for c in range(rows.shape[0]):
        at = 0
        for level in range(levels):
            width = word_width(bounds, level)
            base = starts[level] + rows[c] // BLOCK * BLOCK * width + rows[c] % BLOCK
            for word in range(width if level >= begin else 0):
                for digit in range(query.shape[0]):
                    ones = popcount(words[base + word * BLOCK] & query[digit, at + word])
                    sums[c] += _weight(digit, query.shape[0]) * np.int64(ones)
            at += width
        f, g = _widen(factors[0, levels - 1, rows[c]]), _widen(factors[1, levels - 1, rows[c]])
        values[c] = _estimate(2 * sums[c] - shift, f, g, lifted, a)


@njit
def scan_i4(
    nibbles: Any,
    starts: Any,
    bounds: Any,
    levels: int,
    factors: Any,
    lifted: bool,
    query: Any,
    shift: int,
    a: float,
    threshold: float,
    keep: int,
    first: int,
    last: int,
    stride: int,
    slot: int,
    allowed: Any,
    rows: Any,
    sums: Any,
    values: Any,
    counts: Any,
) -> float:
    """As `scan_b1`, for a plane of `pack_nibbles`; query (W,) int8, 64 dims a step; shift: 15.0625 times their sum."""
    lines = nibbles[: nibbles.shape[0] // LINE * LINE].reshape(-1, LINE)
    spread = _spread(query)
    lanes = np.empty(LINE, np.int32)
    some = np.empty(BLOCK, np.int32)
    threshold = np.float32(threshold)  # type: ignore[assignment]
    for block in range(first, last, stride):
        if counts[0] > rows.shape[0] - BLOCK:
            threshold = max(threshold, keep_best(rows, sums, values, counts, keep))
        if allows_none(allowed, block):
            continue
        some[:] = 0
        for tile in range(0, BLOCK, TILE):
            _nibble_tile(lines, starts, bounds, 0, levels, spread, block + tile, lanes, some[tile : tile + TILE])
        size = min(BLOCK, last - block)
        f, g = factors[0, levels - 1, block : block + size], factors[1, levels - 1, block : block + size]
        for i in range(size):
            value = _estimate(2 * some[i] - shift, _widen(f[i]), _widen(g[i]), lifted, a)
            _append(block + i, slot, some[i], value, threshold, allowed, rows, sums, values, counts)
    return threshold


@njit
def list_i4(
    nibbles: Any,
    starts: Any,
    bounds: Any,
    begin: int,
    levels: int,
    factors: Any,
    lifted: bool,
    query: Any,
    shift: int,
    a: float,
    rows: Any,
    sums: Any,
    values: Any,
) -> None:
    """As `list_b1`, for a plane of `pack_nibbles`."""
    lines = nibbles[: nibbles.shape[0] // LINE * LINE].reshape(-1, LINE)
    spread = _spread(query)
    lanes = np.empty(LINE, np.int32)
    some = np.empty(TILE, np.int32)
    for c in range(rows.shape[0]):
        some[:] = 0
        _nibble_tile(lines, starts, bounds, begin, levels, spread, rows[c] // TILE * TILE, lanes, some)
        sums[c] += some[rows[c] % TILE]
        f, g = _widen(factors[0, levels - 1, rows[c]]), _widen(factors[1, levels - 1, rows[c]])
        values[c] = _estimate(2 * sums[c] - shift, f, g, lifted, a)


@njit
def scan_i8(
    codes: Any,
    starts: Any,
    bounds: Any,
    levels: int,
    stats: Any,
    metric: int,
    query: Any,
    shift: int,
    a: float,
    threshold: float,
    keep: int,
    first: int,
    last: int,
    stride: int,
    slot: int,
    allowed: Any,
    rows: Any,
    sums: Any,
    values: Any,
    counts: Any,
) -> float:
    """As `scan_i4`, for a plane of `pack_rows`: ``t = sum - shift``, 128 times the sum of the query's codes."""
    lines = codes[: codes.shape[0] // LINE * LINE].reshape(-1, LINE)
    spread = _spread(query)
    lanes = np.empty(LINE, np.int32)
    some = np.empty(BLOCK, np.int32)
    terms = np.empty((4, BLOCK), np.float32)
    threshold = np.float32(threshold)  # type: ignore[assignment]
    for block in range(first, last, stride):
        if counts[0] > rows.shape[0] - BLOCK:
            threshold = max(threshold, keep_best(rows, sums, values, counts, keep))
        if allows_none(allowed, block):
            continue
        some[:] = 0
        for tile in range(0, BLOCK, TILE):
            _byte_tile(lines, starts, bounds, 0, levels, spread, block + tile, lanes, some[tile : tile + TILE])
        size = min(BLOCK, last - block)
        _load_terms(stats, starts.shape[0], levels, metric, block, size, terms)
        for i in range(size):
            value = _estimate(some[i] - shift, terms[UNIT, i], terms[HALF, i], metric == L2, a)
            _append(block + i, slot, some[i], value, threshold, allowed, rows, sums, values, counts)
    return threshold


@njit
def list_i8(
    codes: Any,
    starts: Any,
    bounds: Any,
    begin: int,
    levels: int,
    stats: Any,
    metric: int,
    query: Any,
    shift: int,
    a: float,
    rows: Any,
    sums: Any,
    values: Any,
) -> None:
    """As `list_i4`, for a plane of `pack_rows`."""
    lines = codes[: codes.shape[0] // LINE * LINE].reshape(-1, LINE)
    spread = _spread(query)
    lanes = np.empty(LINE, np.int32)
    some = np.empty(TILE, np.int32)
    terms = np.empty((4, BLOCK), np.float32)
    for c in range(rows.shape[0]):
        some[:] = 0
        _byte_tile(lines, starts, bounds, begin, levels, spread, rows[c] // TILE * TILE, lanes, some)
        sums[c] += some[rows[c] % TILE]
        _load_terms(stats, starts.shape[0], levels, metric, rows[c], 1, terms)
        values[c] = _estimate(sums[c] - shift, terms[UNIT, 0], terms[HALF, 0], metric == L2, a)


@njit
def _weight(digit: int, digits: int) -> int:
    """Of a digit in two's complement."""
    return -(1 << digit) if digit == digits - 1 else 1 << digit


@njit
def _weigh_line(line: Any, query: Any, weight: int, sums: Any) -> None:
    for i in range(line.shape[0]):
        sums[i] += np.int32(weight) * np.int32(popcount(line[i] & query))


@njit
def _widen(half: Any) -> Any:
    """bfloat16 bits to float32."""
    one = np.empty(1, np.uint32)
    one[0] = np.uint32(half) << np.uint32(16)
    return one.view(np.float32)[0]


@njit
def _estimate(t: Any, f: Any, g: Any, lifted: bool, a: Any) -> Any:
    value = np.float32(np.float32(t) * f)
    if lifted:
        value = np.float32(value + np.float32(g * np.float32(a)))
    if not value >= -HUGE:  # NaN, too
        value = -HUGE
    return min(value, HUGE)


@njit
def _append(
    row: int,
    slot: int,
    total: Any,
    value: Any,
    threshold: float,
    allowed: Any,
    rows: Any,
    sums: Any,
    values: Any,
    counts: Any,
) -> None:
    if value >= threshold and allows(allowed, row):
        rows[counts[0]] = slot + row
        sums[counts[0]] = total
        values[counts[0]] = value
        counts[0] += 1


@njit
def _nibble_tile(
    lines: Any, starts: Any, bounds: Any, begin: int, levels: int, spread: Any, row: int, lanes: Any, sums: Any
) -> None:
    """Add the dot products of 16 rows from `row` on, levels [`begin`, `levels`), byte by byte in 64 lanes."""
    lanes[:] = 0
    at = 0
    for level in range(levels):
        height = nibble_width(bounds, level) // 4 if level >= begin else 0
        base = (starts[level] + row * nibble_width(bounds, level)) // LINE
        for line in range(height):
            for lane in range(LINE):
                byte = np.int32(lines[base + line, lane])
                low, high = spread[at + 2 * line, lane], spread[at + 2 * line + 1, lane]
                lanes[lane] += (byte & np.int32(15)) * np.int32(low) + (byte >> np.int32(4)) * np.int32(high)
        at += query_width(bounds, level) // 4
    for i in range(TILE):
        sums[i] += lanes[i * 4] + lanes[i * 4 + 1] + lanes[i * 4 + 2] + lanes[i * 4 + 3]


@njit
def _byte_tile(
    lines: Any, starts: Any, bounds: Any, begin: int, levels: int, spread: Any, row: int, lanes: Any, sums: Any
) -> None:
    """As `_nibble_tile`, for bytes."""
    lanes[:] = 0
    at = 0
    for level in range(levels):
        height = level_width(bounds, level) // 4 if level >= begin else 0
        base = (starts[level] + row * level_width(bounds, level)) // LINE
        for line in range(height):
            for lane in range(LINE):
                lanes[lane] += np.int32(lines[base + line, lane]) * np.int32(spread[at + line, lane])
        at += query_width(bounds, level) // 4
    for i in range(TILE):
        sums[i] += lanes[i * 4] + lanes[i * 4 + 1] + lanes[i * 4 + 2] + lanes[i * 4 + 3]
