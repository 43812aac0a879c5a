"""Scans of int8 planes: which rows can still reach a threshold, by certified upper bounds.

For query codes b and row codes c the exact score is at most

    ``ub = (<b, c> + error_factor * err + norm_factor * norm) * unit - half * step_inverse``

in units of the query's step, where ``unit`` is the row's scale (``ip`` and ``l2``) or ``1 / norm`` (``cosine``), and
``half`` is half the squared norm for ``l2`` (which ranks by <q, x> - |x|^2 / 2) and 0 otherwise. The integer part is
exact on every backend; the rest is float32, one rounding per operation, in the order written here.

Cost: bytes of the plane, once per call for many queries (`scan_batch`) or once per query (`scan_query`). Inner loops
run over what lies side by side (64 bytes, 64 rows, the dims of one row) and sum in int32: only then does LLVM
vectorise them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .lanes import BLOCK, COSINE, HUGE, L2, LINE, TILE, ZERO, level_width, njit, query_width

UNIT, HALF, ERROR, NORM = range(4)  # what bounds need of each row of a block: the rows of ``terms``


@njit
def scan_query(
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
    checks: Any,
    first: int,
    last: int,
    rows: Any,
    upper: Any,
    counts: Any,
    visited: Any,
) -> int:
    """Append the rows of [`first`, `last`) whose upper bound reaches the threshold of one query.

    Parameters
    ----------
    codes, starts, stats, blocks
        A plane as `pack_rows` leaves it; `starts` tells the number of stored levels.
    bounds : (T,) int64
        Level ends up to the searched prefix, T <= L.
    query_codes, query_sums, query_stats
        As `pack_queries` leaves them; the first query is the one.
    thresholds : (>= 1,) float32
    checks : (T,) uint8
        Levels before the last at which rows are dropped, by the norms behind them (Cauchy-Schwarz).
    first, last : int
        `first` is a multiple of 64.
    rows : (1, room) int32;  upper : (1, room) float32;  counts : (1,) int64
        Where survivors go, in row order.
    visited : (T,) int64
        Incremented by the tiles read at each level.

    Returns
    -------
    int
        The first row not scanned: `last`, or the block for which there was no room left.
    """
    stored = starts.shape[0]
    levels = bounds.shape[0]
    step_inverse = query_stats[3 * levels, 0]
    lines = codes[: codes.shape[0] // LINE * LINE].reshape(-1, LINE)
    spread, offsets = _spread(query_codes[0], bounds)
    lanes = np.empty(LINE, np.int32)
    dots = np.empty(BLOCK, np.int32)
    alive = np.empty(BLOCK, np.bool_)
    terms = np.empty((4, BLOCK), np.float32)
    reach = np.empty(BLOCK, np.float32)
    for block in range(first, last, BLOCK):
        if counts[0] > rows.shape[1] - BLOCK:
            return block
        size = min(BLOCK, last - block)
        _load_terms(stats, stored, levels, metric, block, size, terms)
        dots[:] = 0
        alive[:size] = True
        alive[size:] = False
        line = 0
        for level in range(levels):
            height = level_width(bounds, level) // 4
            for tile in range(0, BLOCK, TILE):
                if not np.any(alive[tile : tile + TILE]):
                    continue
                visited[level] += 1
                at = starts[level] // LINE + (block + tile) // TILE * height
                some = slice(at, at + height)
                _tile_dots(lines[some], spread[line : line + height], offsets[level], lanes, dots[tile : tile + TILE])
            line += height
            if level < levels - 1 and checks[level]:
                slack = np.float32(
                    np.float32(query_stats[level, 0] * blocks[stored + level, block // BLOCK])
                    + np.float32(query_stats[levels + level, 0] * blocks[level, block // BLOCK])
                )
                behind = stats[1 + 2 * stored + level, block : block + size]
                _check(
                    dots, slack, behind, query_stats[2 * levels + level, 0], terms, step_inverse, thresholds[0], alive
                )
        _append(dots, alive, terms, block, size, levels, 0, query_stats, thresholds, reach, rows, upper, counts)
    return last


@njit
def scan_batch(
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
    first: int,
    last: int,
    rows: Any,
    upper: Any,
    counts: Any,
) -> int:
    """`scan_query` without checks for all queries at once: the plane is read once, a score matrix is never written.

    Stops before a block for which any query lacks room.
    """
    stored = starts.shape[0]
    levels = bounds.shape[0]
    width = 0
    for level in range(levels):
        width += query_width(bounds, level)
    lines = codes[: codes.shape[0] // LINE * LINE].reshape(-1, TILE, 4)
    query_wide = query_codes[:, :width].astype(np.int16)
    rows_wide = np.zeros((BLOCK, width), np.int16)
    dots = np.empty(BLOCK, np.int32)
    alive = np.ones(BLOCK, np.bool_)
    terms = np.empty((4, BLOCK), np.float32)
    reach = np.empty(BLOCK, np.float32)
    for block in range(first, last, BLOCK):
        if np.any(counts > rows.shape[1] - BLOCK):
            return block
        size = min(BLOCK, last - block)
        _load_terms(stats, stored, levels, metric, block, size, terms)
        at = 0
        for level in range(levels):
            width = level_width(bounds, level)
            for i in range(size):
                line = starts[level] // LINE + (block + i) // TILE * (width // 4)
                _widen_row(lines[line : line + width // 4], i % TILE, rows_wide[i, at : at + width])
            at += query_width(bounds, level)
        for query in range(counts.shape[0]):
            for i in range(size):
                dots[i] = _dot(query_wide[query], rows_wide[i]) - ZERO * query_sums[query]
            _append(dots, alive, terms, block, size, levels, query, query_stats, thresholds, reach, rows, upper, counts)
    return last


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
def _spread(query: Any, bounds: Any) -> Any:
    """A query's codes as they meet a tile's lines, and what storing bytes as ``code + 128`` adds to each level.

    Returns
    -------
    spread : (lines, 64) int8
        Four codes, repeated for sixteen rows.
    offsets : (T,) int32
        Taken off level by level, not once for the query: a check needs the dot products of a prefix.
    """
    height = 0
    for level in range(bounds.shape[0]):
        height += level_width(bounds, level) // 4
    spread = np.empty((height, LINE), np.int8)
    offsets = np.zeros(bounds.shape[0], np.int32)
    line = 0
    at = 0
    for level in range(bounds.shape[0]):
        for j in range(level_width(bounds, level)):
            offsets[level] += ZERO * np.int32(query[at + j])
        for j in range(0, level_width(bounds, level), 4):
            for lane in range(LINE):
                spread[line, lane] = query[at + j + lane % 4]
            line += 1
        at += query_width(bounds, level)
    return spread, offsets


@njit
def _tile_dots(lines: Any, spread: Any, offset: int, lanes: Any, dots: Any) -> None:
    """Add the dot products of one tile less `offset`: byte by byte into 64 int32 lanes, which meet in the end."""
    lanes[:] = 0
    for line in range(lines.shape[0]):
        for lane in range(LINE):
            lanes[lane] += np.int32(lines[line, lane]) * np.int32(spread[line, lane])
    for i in range(TILE):
        dots[i] += lanes[i * 4] + lanes[i * 4 + 1] + lanes[i * 4 + 2] + lanes[i * 4 + 3] - offset


@njit
def _check(
    dots: Any, slack: Any, behind: Any, query_behind: Any, terms: Any, step_inverse: Any, least: Any, alive: Any
) -> None:
    """Drop rows that stay below the threshold even if all that lies behind the prefix points the query's way."""
    for i in range(behind.shape[0]):
        bound = np.float32(np.float32(np.float32(dots[i]) + slack) + np.float32(query_behind * behind[i]))
        alive[i] &= in_units(bound, terms[UNIT, i], terms[HALF, i], step_inverse) >= least


@njit
def _widen_row(lines: Any, i: int, row: Any) -> None:
    """Row `i` of a tile ``(lines, 16, 4)`` as int16, once for all queries."""
    for line in range(lines.shape[0]):
        for j in range(4):
            row[line * 4 + j] = lines[line, i, j]


@njit
def _dot(a: Any, b: Any) -> Any:
    """Dot product of int16 vectors; 2^16 products of at most 127 * 255 fit int32."""
    total = np.int32(0)
    for j in range(a.shape[0]):
        total = np.int32(total + np.int32(a[j]) * np.int32(b[j]))
    return total


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
