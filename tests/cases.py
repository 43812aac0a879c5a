"""Arguments for every kernel of the table, for a shape and a kind of values; always the same for the same ones."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from inputs import level_widths, levels_of, stored, values
from nestvec.kernels import TABLE
from nestvec.planes import BLOCK, Segment, padded

Arguments = dict[str, Any]


def arguments(kernel: str, n: int, d: int, kind: str) -> Arguments:
    """Arguments by name, in the order of the kernel's signature."""
    rng = np.random.default_rng([zlib.crc32(f"{kernel} {kind}".encode()), n, d])
    name, _, suffix = kernel.rpartition("_")
    if name in ("widen", "narrow"):
        return _convert(rng, kernel, values(rng, kind, n, d).ravel())
    if kernel == "sum_bytes":
        return {"values": rng.integers(0, 256, n * d, dtype=np.uint8)}
    if kernel == "first_nonfinite":
        return {"values": _with_nonfinite(rng, values(rng, kind, n, d).ravel())}
    if kernel == "pack_rows":
        return _pack_rows(rng, values(rng, kind, n, d))
    if kernel == "pack_queries":
        return _pack_queries(rng, values(rng, kind, int(rng.integers(1, 35)), d))
    if kernel == "scan":
        queries = values(rng, kind, int(rng.choice([1, 1, 1, 2, 7, 33, 41])), d)
        return _scan(rng, values(rng, kind, n, d), queries)
    queries = values(rng, kind, int(rng.integers(1, 4)), d)
    return _exact(rng, name, values(rng, kind, n, d, suffix), queries, suffix)


def plane(x: np.ndarray, bounds: np.ndarray, capacity: int = 0) -> Segment:
    """Rows packed into a plane; what is not written holds NaN and random codes."""
    none = np.empty(0, np.int64)
    result = Segment.allocate(x, max(capacity, padded(max(len(x), 1), BLOCK)), bounds, none, 0)
    result.codes[:] = np.random.default_rng(0).integers(0, 256, result.codes.size, dtype=np.uint8)
    result.stats[:] = np.nan
    TABLE["pack_rows"](x, bounds, result.starts, 0, result.codes, result.stats, result.blocks)
    return result


def no_queries(count: int, bounds: np.ndarray, spare: int = 0) -> Arguments:
    """Room for `count` packed queries, their codes `spare` bytes wider than needed."""
    size = padded(max(count, 1), 32)
    return {
        "codes": np.zeros((size, level_widths(bounds, 64).sum() + spare), np.int8),
        "sums": np.zeros((len(bounds), size), np.int32),
        "stats": np.zeros((3 * len(bounds) + 1, size), np.float32),
        "multiply": np.empty(count),
        "offset": np.empty(count),
    }


def packed_queries(q: np.ndarray, bounds: np.ndarray, metric: int) -> Arguments:
    """Queries packed over the prefix ``bounds[-1]``."""
    result = no_queries(len(q), bounds)
    TABLE["pack_queries"](q, bounds, metric, *result.values())
    return result


def scan_arguments(segment: Segment, bounds: np.ndarray, q: np.ndarray, metric: int, room: int) -> Arguments:
    """Arguments of `scan` over all rows, without checks, with thresholds that every row reaches."""
    packed = packed_queries(q, bounds, metric)
    thresholds = np.full(len(packed["codes"]), np.inf, np.float32)
    thresholds[: len(q)] = -np.inf
    return {
        "codes": segment.codes,
        "starts": segment.starts,
        "bounds": bounds,
        "stats": segment.stats,
        "blocks": segment.blocks,
        "query_codes": packed["codes"],
        "query_sums": packed["sums"],
        "query_stats": packed["stats"],
        "thresholds": thresholds,
        "metric": metric,
        "check": len(bounds) - 1,
        "first": 0,
        "last": len(segment.rows),
        "rows": np.full((len(q), room), -1, np.int32),
        "upper": np.full((len(q), room), np.nan, np.float32),
        "counts": np.zeros(len(q), np.int64),
    }


def upper_bounds(segment: Segment, bounds: np.ndarray, q: np.ndarray, metric: int) -> np.ndarray:
    """Upper bound (nq, n) of every row."""
    scan = scan_arguments(segment, bounds, q, metric, padded(len(segment.rows), BLOCK) + BLOCK)
    TABLE["scan"](*scan.values())
    return scan["upper"][:, : len(segment.rows)]


def exact_scores(q: np.ndarray, x: np.ndarray, metric: int) -> np.ndarray:
    """Scores (nq, n) float64 as the table computes them."""
    best, ids = np.full((len(q), len(x)), -np.inf), np.full((len(q), len(x)), -1, np.int64)
    TABLE["topk_f32"](q.astype(np.float64), x, x.shape[1], metric, ids[0, :0], 0, best, ids)
    return np.take_along_axis(best, np.argsort(ids, axis=1), 1)


def _convert(rng: np.random.Generator, kernel: str, x: np.ndarray) -> Arguments:
    if kernel.startswith("narrow"):
        return {"source": x, "target": np.empty(x.shape, np.uint16)}
    bits = rng.integers(0, 65536, x.shape, dtype=np.uint16)
    exponent = np.uint16(0x7C00 if kernel == "widen_f16" else 0x7F80)
    return {
        "source": np.where(bits & exponent == exponent, bits & 0x83FF, bits),
        "target": np.empty(x.shape, np.float32),
    }


def _with_nonfinite(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    for _ in range(int(rng.integers(0, 3)) if x.size else 0):
        x[rng.integers(0, x.size)] = rng.choice([np.nan, np.inf, -np.inf])
    return x


def _pack_rows(rng: np.random.Generator, x: np.ndarray) -> Arguments:
    bounds, first = levels_of(rng, x.shape[1]), int(rng.integers(0, 70))
    room = Segment.allocate(x, padded(first + len(x) + 1, BLOCK), bounds, np.empty(0, np.int64), 0)
    room.codes[:] = rng.integers(0, 256, room.codes.size, dtype=np.uint8)
    room.stats[:] = np.nan
    room.blocks[:] = rng.uniform(0, 100, room.blocks.shape)
    return {
        "x": x,
        "bounds": bounds,
        "starts": room.starts,
        "first": first,
        "codes": room.codes,
        "stats": room.stats,
        "blocks": room.blocks,
    }


def _pack_queries(rng: np.random.Generator, q: np.ndarray) -> Arguments:
    bounds = levels_of(rng, q.shape[1])
    bounds = bounds[: int(rng.integers(1, len(bounds) + 1))]
    return {
        "q": q,
        "bounds": bounds,
        "metric": int(rng.integers(0, 3)),
        **no_queries(len(q), bounds, int(rng.choice([0, 64]))),
    }


def _scan(rng: np.random.Generator, x: np.ndarray, q: np.ndarray) -> Arguments:
    stored_bounds, metric = levels_of(rng, x.shape[1]), int(rng.integers(0, 3))
    segment = plane(x, stored_bounds, int(rng.choice([0, padded(len(x) + 100, BLOCK)])))
    bounds = stored_bounds[: int(rng.integers(1, len(stored_bounds) + 1))].copy()
    room = int(rng.choice([BLOCK, 2 * BLOCK, padded(len(x), BLOCK) + 2 * BLOCK]))
    scan = scan_arguments(segment, bounds, q, metric, room)
    scan["counts"][:] = rng.integers(0, room - BLOCK + 1, len(q))
    if len(x):
        share = rng.choice([0.0, 0.5, 0.95, 1.0], len(q))
        best = np.sort(upper_bounds(segment, bounds, q, metric), axis=1)
        scan["thresholds"][: len(q)] = best[np.arange(len(q)), (share * (len(x) - 1)).astype(int)]
    if len(x) > BLOCK:
        scan["first"] = int(rng.choice([0, BLOCK]))
    scan["check"] = int(rng.integers(0, len(bounds) + 1))
    return scan


def _exact(rng: np.random.Generator, name: str, x: np.ndarray, q: np.ndarray, suffix: str) -> Arguments:
    n, d = x.shape
    dims, metric = int(rng.integers(1, d + 1)), int(rng.integers(0, 3))
    some: Arguments = {
        "q": q.astype(np.float64),
        "rows": _laid_out(rng, stored(x, suffix)),
        "dims": dims,
        "metric": metric,
    }
    if name == "scores":
        return {**some, "out": np.empty((len(q), n), np.float32)}
    k = int(rng.choice([1, 3, max(n, 1), n + 5]))
    ids = rng.permutation(3 * n)[:n].astype(np.int64) if rng.random() < 0.5 else np.empty(0, np.int64)
    best = {"best_scores": np.full((len(q), k), -np.inf), "best_ids": np.full((len(q), k), -1, np.int64)}
    some |= {"ids": ids, "base": int(rng.integers(0, 1000))}
    return (
        {**some, **best} if name == "topk" else {**some, **_candidates(rng, x[:, :dims], q[:, :dims], metric), **best}
    )


def _laid_out(rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
    """The rows one after the other, apart from each other, or backwards in memory."""
    layout = rng.integers(0, 3)
    if layout == 0:
        return rows
    wide = np.zeros((len(rows), rows.shape[1] + 3), rows.dtype)
    wide = wide[::-1] if layout == 2 else wide
    wide[:, : rows.shape[1]] = rows
    return wide[:, : rows.shape[1]]


def _candidates(rng: np.random.Generator, x: np.ndarray, q: np.ndarray, metric: int) -> Arguments:
    """Some rows of each query, with bounds a little above their scores."""
    n, room = len(x), len(x) + 8
    packed = packed_queries(np.ascontiguousarray(q), np.asarray([x.shape[1]]), metric)
    listed = {
        "thresholds": np.full(len(q), -np.inf, np.float32),
        "candidates": np.zeros((len(q), room), np.int32),
        "upper": np.zeros((len(q), room), np.float32),
        "counts": rng.integers(0, n + 1, len(q)),
    }
    reach = exact_scores(q, x, metric) * packed["multiply"][:, None] + packed["offset"][:, None]
    with np.errstate(over="ignore"):
        reach = (reach + abs(reach) * rng.uniform(0, 0.2, reach.shape)).astype(np.float32)
    for i, count in enumerate(listed["counts"]):
        listed["candidates"][i, :count] = rng.permutation(n)[:count]
        listed["upper"][i, :count] = reach[i, listed["candidates"][i, :count]]
    take = int(rng.choice([1, 3, 20, 2**62]))
    return {"take": take, "multiply": packed["multiply"], "offset": packed["offset"], **listed}
