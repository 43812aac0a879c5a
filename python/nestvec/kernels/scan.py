"""Scans of int8 planes: which rows can still reach a threshold, by certified upper bounds.

For query codes b and row codes c the exact score is at most

    ``ub = (<b, c> + error_factor * err + norm_factor * norm) * unit - half * step_inverse``

in units of the query's step, where ``unit`` is the row's scale (``ip`` and ``l2``) or ``1 / norm`` (``cosine``), and
``half`` is half the squared norm for ``l2`` (which ranks by <q, x> - |x|^2 / 2) and 0 otherwise. The integer part is
exact on every backend; the rest is float32, one rounding per operation, in the order written here.

Cost: the bytes of the plane, read once for all queries. Inner loops run over what lies side by side (64 bytes, 64 rows,
the dims of one row) and sum in int32: only then does LLVM vectorise them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .lanes import BLOCK, COSINE, HUGE, L2, LINE, TILE, ZERO, level_width, may_find, njit, query_width

UNIT, HALF, ERROR, NORM = range(4)  # what bounds need of each row of a block: the rows of ``terms``


@njit
def scan(
    codes: Any,
    starts: Any,
    bounds: Any,
    stats: Any,
    blocks: Any,
    query_codes: Any,
    query_sums: Any,
    query_stats: Any,
    thresholds: Any,
    metric: int,
    check: int,
    first: int,
    last: int,
    allowed: Any,
    rows: Any,
    upper: Any,
    counts: Any,
) -> int:
    """Append the rows of [`first`, `last`) whose upper bound reaches the threshold of a query.

    Parameters
    ----------
    codes, starts, stats, blocks
        A plane as `pack_rows` leaves it; `starts` tells the number of stored levels.
    bounds : (T,) int64
        Level ends up to the searched prefix, T <= L.
    query_codes, query_sums, query_stats
        As `pack_queries` leaves them.
    thresholds : (>= nq,) float32
        Inf for the padding.
    check : int
        From this level on, rows are dropped for a query after each level but the last if even all that lies behind it
        could not lift them to the threshold (Cauchy-Schwarz). T - 1 or more: never.
    first, last : int
        `first` is a multiple of 64.
    allowed : (m, words) uint64
        Which rows may be appended: row r by bit ``r % 64`` of word ``r // 64``. One set for each query, m = nq, one
        for all, m = 1, or m = 0: every row. Blocks that no query may find rows of are not read.
    rows : (nq, room) int32;  upper : (nq, room) float32;  counts : (nq,) int64
        Where survivors go, in row order.

    Returns
    -------
    int
        The first row not scanned: `last`, or the block for which some query lacked room.
    """
    stored = starts.shape[0]
    levels = bounds.shape[0]
    many = counts.shape[0] > 1
    lines = codes[: codes.shape[0] // LINE * LINE].reshape(-1, LINE)
    spread = _spread(query_codes[0])
    lanes = np.empty(LINE, np.int32)
    query_wide = query_codes.astype(np.int16)
    rows_wide = np.zeros((BLOCK, query_codes.shape[1]), np.int16)
    dots = np.empty(BLOCK, np.int32)
    alive = np.empty(BLOCK, np.bool_)
    terms = np.empty((4, BLOCK), np.float32)
    reach = np.empty(BLOCK, np.float32)
    for block in range(first, last, BLOCK):
        if counts.max() > rows.shape[1] - BLOCK:
            return block
        if not _wanted(allowed, block // BLOCK):
            continue
        size = min(BLOCK, last - block)
        _load_terms(stats, stored, levels, metric, block, size, terms)
        if many:
            _widen_block(lines, starts, bounds, block, size, rows_wide)
        for query in range(counts.shape[0]):
            dots[:] = 0
            alive[size:] = False
            for i in range(size):
                alive[i] = may_find(allowed, query, block + i)
            if not np.any(alive):
                continue
            at = 0
            for level in range(levels):
                width = level_width(bounds, level)
                if many:
                    _row_dots(rows_wide, query_wide[query], at, at + width, alive, dots)
                else:
                    line = (starts[level] + block * width) // LINE
                    _level_dots(lines[line:], spread[at // 4 : (at + width) // 4], lanes, alive, dots)
                below = query_sums[level - 1, query] if level > 0 else 0
                offset = np.int32(ZERO * (query_sums[level, query] - below))
                for i in range(size):
                    dots[i] -= offset
                at += query_width(bounds, level)
                if check <= level < levels - 1:
                    slack = np.float32(
                        np.float32(query_stats[level, query] * blocks[stored + level, block // BLOCK])
                        + np.float32(query_stats[levels + level, query] * blocks[level, block // BLOCK])
                    )
                    behind = stats[1 + 2 * stored + level, block : block + size]
                    query_behind = query_stats[2 * levels + level, query]
                    step_inverse = query_stats[3 * levels, query]
                    _check(dots, slack, behind, query_behind, terms, step_inverse, thresholds[query], alive)
            _append(dots, alive, terms, block, size, levels, query, query_stats, thresholds, reach, rows, upper, counts)
    return last


@njit
def _wanted(allowed: Any, word: int) -> bool:
    """Whether some query may find some row of a block."""
    for some in range(allowed.shape[0]):
        if allowed[some, word] != np.uint64(0):
            return True
    return allowed.shape[0] == 0  # type: ignore[no-any-return]


@njit
def _load_terms(stats: Any, stored: int, levels: int, metric: int, block: int, size: int, terms: Any) -> None:
    """Fill ``terms`` (4, 64) for the rows of a block."""
    scale = stats[0, block : block + size]
    norm = stats[levels, block : block + size]
    error = stats[stored + levels, block : block + size]
    for i in range(size):
        terms[UNIT, i] = scale[i]
        terms[HALF, i] = np.float32(0)
        terms[ERROR, i] = error[i]
        terms[NORM, i] = norm[i]
        if metric == COSINE:
            terms[UNIT, i] = np.float32(np.float32(1) / norm[i]) if norm[i] > np.float32(0) else np.float32(0)
        elif metric == L2:
            # below the true half norm: the stored norm is an upper bound, a denormal square may have been rounded up
            low = np.float32(scale[i] * max(np.float32(norm[i] - np.float32(2e-30)), np.float32(0)))
            half = np.float32(np.float32(np.float32(low * np.float32(0.49999)) * low) - np.float32(1e-44))
            terms[HALF, i] = min(max(half, np.float32(0)), HUGE)


@njit
def in_units(bound: Any, unit: Any, half: Any, step_inverse: Any) -> Any:
    """An upper bound on the integer dot product, in the units of the thresholds."""
    return np.float32(np.float32(bound * unit) - min(np.float32(half * step_inverse), HUGE))


@njit
def _spread(query: Any) -> Any:
    """A query's codes as they meet a tile's lines, ``(steps, 64)`` int8: four codes, repeated for sixteen rows."""
    spread = np.zeros((query.shape[0] // 4, LINE), np.int8)
    for line in range(spread.shape[0]):
        for lane in range(LINE):
            spread[line, lane] = query[line * 4 + lane % 4]
    return spread


@njit
def _level_dots(lines: Any, spread: Any, lanes: Any, alive: Any, dots: Any) -> None:
    """Dot products of one level, for the tiles of a block with a row alive."""
    height = spread.shape[0]
    for tile in range(BLOCK // TILE):
        if np.any(alive[tile * TILE : tile * TILE + TILE]):
            some = lines[tile * height : tile * height + height]
            _tile_dots(some, spread, lanes, dots[tile * TILE : tile * TILE + TILE])


@njit
def _tile_dots(lines: Any, spread: Any, lanes: Any, dots: Any) -> None:
    """Add the dot products of one tile: byte by byte into 64 int32 lanes, which meet in the end."""
    lanes[:] = 0
    for line in range(lines.shape[0]):
        for lane in range(LINE):
            lanes[lane] += np.int32(lines[line, lane]) * np.int32(spread[line, lane])
    for i in range(TILE):
        dots[i] += lanes[i * 4] + lanes[i * 4 + 1] + lanes[i * 4 + 2] + lanes[i * 4 + 3]


@njit
def _widen_block(lines: Any, starts: Any, bounds: Any, block: int, size: int, rows: Any) -> None:
    """The bytes of a block's rows, row-major and as int16, once for all queries."""
    at = 0
    for level in range(bounds.shape[0]):
        height = level_width(bounds, level) // 4
        for i in range(size):
            line = starts[level] // LINE + (block + i) // TILE * height
            for step in range(height):
                for j in range(4):
                    rows[i, at + step * 4 + j] = lines[line + step, i % TILE * 4 + j]
        at += query_width(bounds, level)


@njit
def _row_dots(rows: Any, query: Any, first: int, last: int, alive: Any, dots: Any) -> None:
    """Dot products of one level, codes `first` to `last`, for the rows alive."""
    for i in range(BLOCK):
        if alive[i]:
            dots[i] += _dot(query[first:last], rows[i, first:last])


@njit
def _dot(a: Any, b: Any) -> Any:
    """Dot product of int16 vectors; 2^16 products of at most 127 * 255 fit int32."""
    total = np.int32(0)
    for j in range(a.shape[0]):
        total = np.int32(total + np.int32(a[j]) * np.int32(b[j]))
    return total


@njit
def _check(
    dots: Any, slack: Any, behind: Any, query_behind: Any, terms: Any, step_inverse: Any, least: Any, alive: Any
) -> None:
    """Drop rows that stay below the threshold even if all that lies behind the prefix points the query's way."""
    for i in range(behind.shape[0]):
        bound = np.float32(np.float32(np.float32(dots[i]) + slack) + np.float32(query_behind * behind[i]))
        alive[i] &= in_units(bound, terms[UNIT, i], terms[HALF, i], step_inverse) >= least


@njit
def _append(
    dots: Any,
    alive: Any,
    terms: Any,
    block: int,
    size: int,
    levels: int,
    query: int,
    query_stats: Any,
    thresholds: Any,
    reach: Any,
    rows: Any,
    upper: Any,
    counts: Any,
) -> None:
    """Append the rows of a block that reach the threshold; most blocks have none, which the first loop finds out."""
    error_factor = query_stats[levels - 1, query]
    norm_factor = query_stats[2 * levels - 1, query]
    step_inverse = query_stats[3 * levels, query]
    least = thresholds[query]
    found = 0
    for i in range(size):
        slack = np.float32(np.float32(error_factor * terms[ERROR, i]) + np.float32(norm_factor * terms[NORM, i]))
        bound = np.float32(np.float32(dots[i]) + slack)
        reach[i] = in_units(bound, terms[UNIT, i], terms[HALF, i], step_inverse)
        found += reach[i] >= least
    if found == 0:
        return
    for i in range(size):
        if alive[i] and reach[i] >= least:
            rows[query, counts[query]] = block + i
            upper[query, counts[query]] = reach[i]
            counts[query] += 1
