"""Scans of int8 planes: which rows can still reach a threshold, by certified upper bounds.

For query codes b and row codes c the exact score is at most

    ``ub = (<b, c> + error_factor * err + norm_factor * norm) * unit``

in units of the query's step, where ``unit`` is the row's scale (``ip``), ``1 / norm`` (``cosine``), or the scale with half
the squared norm taken off (``l2``, which ranks by <q, x> - |x|^2 / 2). The integer part is exact on every backend; the rest is float32,
one rounding per operation, in the order written here.

Cost: bytes of the plane, once per call for many queries (`scan_batch`) or once per query (`scan_query`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .lanes import BLOCK, COSINE, HUGE, L2, LINE, TILE, ZERO, level_width, njit, query_width


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
    room = rows.shape[1]
    dots = np.empty(BLOCK, np.int64)
    alive = np.empty(BLOCK, np.bool_)
    for block in range(first, last, BLOCK):
        if counts[0] > room - BLOCK:
            return block
        size = min(BLOCK, last - block)
        dots[:] = 0
        alive[:] = False
        alive[:size] = True
        at = 0
        for level in range(levels):
            width = level_width(bounds, level)
            for tile in range(BLOCK // TILE):
                if not np.any(alive[tile * TILE : tile * TILE + TILE]):
                    continue
                visited[level] += 1
                start = starts[level] + (block + tile * TILE) * width
                _tile_dots(codes[start : start + TILE * width], query_codes[0, at:], dots[tile * TILE :])
            at += query_width(bounds, level)
            if level < levels - 1 and checks[level]:
                slack = np.float32(
                    np.float32(query_stats[level, 0] * blocks[stored + level, block // BLOCK])
                    + np.float32(query_stats[levels + level, 0] * blocks[level, block // BLOCK])
                )
                for i in range(size):
                    behind = query_stats[2 * levels + level, 0] * stats[1 + 2 * stored + level, block + i]
                    bound = np.float32(np.float32(np.float32(dots[i]) + slack) + np.float32(behind))
                    reach = in_units(bound, block + i, stored, levels, stats, 0, query_stats, metric)
                    alive[i] = alive[i] and reach >= thresholds[0]
        _append(
            dots, alive, block, size, stored, levels, stats, 0, query_stats, thresholds, metric, rows, upper, counts
        )
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
    room = rows.shape[1]
    dots = np.empty(BLOCK, np.int64)
    alive = np.empty(BLOCK, np.bool_)
    for block in range(first, last, BLOCK):
        if np.any(counts > room - BLOCK):
            return block
        size = min(BLOCK, last - block)
        alive[:] = False
        alive[:size] = True
        for query in range(counts.shape[0]):
            dots[:] = 0
            at = 0
            for level in range(levels):
                width = level_width(bounds, level)
                for tile in range(BLOCK // TILE):
                    start = starts[level] + (block + tile * TILE) * width
                    _tile_dots(codes[start : start + TILE * width], query_codes[query, at:], dots[tile * TILE :])
                at += query_width(bounds, level)
            _append(
                dots, alive, block, size, stored, levels, stats, query, query_stats, thresholds, metric, rows, upper,
                counts,
            )  # fmt: skip
    return last


@njit
def in_units(
    bound: Any, row: int, stored: int, levels: int, stats: Any, query: int, query_stats: Any, metric: int
) -> Any:
    """An upper bound on the integer dot product, in the units of the thresholds."""
    norm = stats[levels, row]
    if metric == COSINE:
        return np.float32(bound * np.float32(np.float32(1) / norm)) if norm > np.float32(0) else np.float32(0)
    value = np.float32(bound * stats[0, row])
    if metric == L2:
        # below the true half norm: the stored norm is an upper bound, and a denormal square may have been rounded up
        low = np.float32(stats[0, row] * max(np.float32(norm - np.float32(2e-30)), np.float32(0)))
        half = np.float32(np.float32(np.float32(low * np.float32(0.49999)) * low) - np.float32(1e-44))
        half = min(max(half, np.float32(0)), HUGE)
        value = np.float32(value - min(np.float32(half * query_stats[3 * levels, query]), HUGE))
    return value


@njit
def _tile_dots(tile: Any, query: Any, dots: Any) -> None:
    for line in range(tile.shape[0] // LINE):
        for i in range(TILE):
            total = 0
            for j in range(4):
                total += np.int32(query[line * 4 + j]) * (np.int32(tile[line * LINE + i * 4 + j]) - ZERO)
            dots[i] += total


@njit
def _append(
    dots: Any,
    alive: Any,
    block: int,
    size: int,
    stored: int,
    levels: int,
    stats: Any,
    query: int,
    query_stats: Any,
    thresholds: Any,
    metric: int,
    rows: Any,
    upper: Any,
    counts: Any,
) -> None:
    for i in range(size):
        if not alive[i]:
            continue
        slack = np.float32(
            np.float32(query_stats[levels - 1, query] * stats[stored + levels, block + i])
            + np.float32(query_stats[2 * levels - 1, query] * stats[levels, block + i])
        )
        bound = np.float32(np.float32(dots[i]) + slack)
        reach = in_units(bound, block + i, stored, levels, stats, query, query_stats, metric)
        if reach >= thresholds[query]:
            rows[query, counts[query]] = block + i
            upper[query, counts[query]] = reach
            counts[query] += 1
