"""Arguments for every kernel of the table, for a shape and a kind of values; always the same for the same ones."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

import maxsim_cases
from inputs import level_widths, levels_of, stored, values
from nestvec.kernels import TABLE
from nestvec.planes import BLOCK, EVERY, NibblePlane, Segment, SignPlane, Words, padded
from token_cases import TOKENS

Arguments = dict[str, Any]


def arguments(kernel: str, n: int, d: int, kind: str) -> Arguments:
    """Arguments by name, in the order of the kernel's signature."""
    rng = np.random.default_rng([zlib.crc32(f"{kernel} {kind}".encode()), n, d])
    if kernel in CODED:
        return CODED[kernel](rng, n, d, kind)
    name, _, suffix = kernel.rpartition("_")
    if name == "maxsim":
        return maxsim_cases.maxsim(rng, kernel, n, d, kind)
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
    queries = values(rng, kind, 1 if name == "list" else int(rng.integers(1, 4)), d)
    return _exact(rng, name, values(rng, kind, n, d, suffix), queries, suffix)


def words(rng: np.random.Generator, n: int, bounds: np.ndarray) -> Arguments:
    """A plane of random words, zero only where a level says so."""
    room = Words.allocate(padded(max(n, 1), BLOCK), bounds)
    room.words[:] = rng.integers(0, 2**64, room.words.size, dtype=np.uint64)
    codes = rng.integers(0, 256, (n, -(-int(bounds[-1]) // 8)), dtype=np.uint8)
    codes[rng.random(n) < 0.3] = codes[:1] if n else 0
    TABLE["pack_words"](codes, bounds, room.starts, 0, room.words)
    return {"words": room.words, "starts": room.starts, "bounds": bounds}


def bit_queries(rng: np.random.Generator, count: int, bounds: np.ndarray, bits: int) -> np.ndarray:
    """Random queries in the order of the words read, zero from `bits` on."""
    parts, begin = [], 0
    for end in bounds:
        if begin < bits:
            some = rng.integers(0, 2**64, (count, -(-(end - begin) // 64)), dtype=np.uint64)
            left = np.clip(min(end, bits) - begin - 64 * np.arange(some.shape[1]), 0, 64).astype(int).tolist()
            parts.append(some & np.array([(2**64 - 1) ^ (2 ** (64 - m) - 1) for m in left], np.uint64))
        begin = end
    return np.concatenate(parts, axis=1)


def _crc32c(rng: np.random.Generator, n: int, d: int, kind: str) -> Arguments:
    del kind
    return {"data": rng.integers(0, 256, n * d, dtype=np.uint8), "seed": int(rng.choice([0, rng.integers(2**32)]))}


def _sign_bits(dtype: type) -> Callable[..., Arguments]:
    def make(rng: np.random.Generator, n: int, d: int, kind: str) -> Arguments:
        x = values(rng, kind, n, d).astype(dtype)
        thresholds = x[rng.integers(0, n)].copy() if n and rng.random() < 0.7 else np.zeros(d, dtype)
        return {"x": x, "thresholds": thresholds, "codes": np.empty((n, -(-d // 8)), np.uint8)}

    return make


def _pack_words(rng: np.random.Generator, n: int, d: int, kind: str) -> Arguments:
    del kind
    bounds, first = levels_of(rng, d), int(rng.integers(0, 70))
    room = Words.allocate(padded(first + n + 1, BLOCK), bounds)
    room.words[:] = rng.integers(0, 2**64, room.words.size, dtype=np.uint64)
    codes = rng.integers(0, 256, (n, -(-d // 8)), dtype=np.uint8)
    return {"codes": codes, "bounds": bounds, "starts": room.starts, "first": first, "words": room.words}


def _some_bits(rng: np.random.Generator, n: int, d: int) -> Arguments:
    plane, bits = words(rng, n, levels_of(rng, d)), int(rng.integers(1, d + 1))
    queries = bit_queries(rng, int(rng.choice([1, 2, 9])), plane["bounds"], bits)
    return {**plane, "bits": bits, "queries": queries}


def _count_bits(rng: np.random.Generator, n: int, d: int, kind: str) -> Arguments:
    del kind
    some, first = _some_bits(rng, n, d), BLOCK if n > BLOCK and rng.random() < 0.5 else 0
    out = np.empty((len(some["queries"]), n - first), np.int32)
    return {**some, "what": int(rng.integers(0, 3)), "first": first, "last": n, "out": out}


def no_nearest(count: int, bits: int, room: int) -> Arguments:
    """Nothing found yet."""
    return {
        "histograms": np.zeros((count, bits + 1), np.int32),
        "limits": np.full(count, bits, np.int32),
        "totals": np.zeros(count, np.int64),
        "rows": np.full((count, room), -1, np.int32),
        "distances": np.full((count, room), -1, np.int32),
        "counts": np.zeros(count, np.int64),
    }


def some_rows(rng: np.random.Generator, n: int, count: int) -> np.ndarray:
    """A set of rows for each of `count` queries, of any density, whole words empty; bits behind the last row, too."""
    bits = rng.random((count, padded(n, BLOCK) + BLOCK * int(rng.integers(0, 2)))) < rng.choice([0.02, 0.5, 1])
    sets = np.packbits(bits, axis=1, bitorder="little").view(np.uint64)
    return sets * (rng.random(sets.shape) < rng.choice([0.3, 1])).astype(np.uint64)


def _scan_bits(rng: np.random.Generator, n: int, d: int, kind: str) -> Arguments:
    del kind
    some = _some_bits(rng, n, d)
    room = int(rng.choice([BLOCK, 2 * BLOCK, padded(n, BLOCK) + 2 * BLOCK]))
    count = len(some["queries"])
    return {
        **some,
        "what": int(rng.integers(0, 2)),
        "k": int(rng.choice([1, 3, 20, n + 5])),
        "in_order": bool(rng.integers(0, 2)),
        "first": 0,
        "last": n,
        "allowed": some_rows(rng, n, int(rng.choice([0, 1, count]))),
        **no_nearest(count, some["bits"], room),
    }


def _list_bits(rng: np.random.Generator, n: int, d: int, kind: str) -> Arguments:
    del kind
    some = _some_bits(rng, n, d)
    query, bits = some.pop("queries")[0], some.pop("bits")
    rows = rng.integers(0, n, 3 * n if rng.random() < 0.5 else 5) if n else np.empty(0)
    begin = int(rng.choice([0, *some["bounds"], rng.integers(0, d + 1)]))
    return {
        **some,
        "begin": begin,
        "bits": bits,
        "query": query,
        "rows": rows.astype(np.int32),
        "distances": rng.integers(0, 9, len(rows)).astype(np.int32),
    }


def _order_bits(rng: np.random.Generator, n: int, d: int, kind: str) -> Arguments:
    found = _scan_bits(rng, n, d, kind)
    with np.errstate(over="ignore"):
        TABLE["scan_bits"](*found.values())
    best = np.full((len(found["counts"]), found["k"]), -2, np.int32)
    return {
        **{key: found[key] for key in ("limits", "rows", "distances", "counts")},
        "places": np.full(found["bits"] + 2, -1),
        "best_rows": best.copy(),
        "best": best,
    }


def signs(rng: np.random.Generator, x: np.ndarray, bounds: np.ndarray, metric: int, capacity: int) -> SignPlane:
    """Rows packed into a plane of signs; what is not written is random."""
    room = SignPlane.allocate(capacity, bounds)
    room.words.words[:] = rng.integers(0, 2**64, room.words.words.size, dtype=np.uint64)
    room.factors[:] = rng.integers(0, 2**16, room.factors.shape, dtype=np.uint16)
    center = rng.standard_normal(x.shape[1]) * (abs(x).max() if x.size else 1) * rng.choice([0, 0.1])
    pack = (x, center, bounds, room.words.starts, metric, 0, room.words.words, room.factors)
    TABLE["pack_signs"](*pack)
    return room


def nibbles(rng: np.random.Generator, x: np.ndarray, bounds: np.ndarray, metric: int, capacity: int) -> NibblePlane:
    """Rows packed into a plane of nibbles; what is not written is random."""
    segment, room = plane(x, bounds, capacity), NibblePlane.allocate(capacity, bounds)
    room.nibbles[:] = rng.integers(0, 256, room.nibbles.size, dtype=np.uint8)
    room.factors[:] = rng.integers(0, 2**16, room.factors.shape, dtype=np.uint16)
    codes = (bounds, segment.starts, segment.codes, room.starts)
    TABLE["pack_nibbles"](x, *codes, metric, 0, room.nibbles, room.factors)
    return room


def _pack_signs(rng: np.random.Generator, n: int, d: int, kind: str) -> Arguments:
    x, bounds, metric = values(rng, kind, n, d), levels_of(rng, d), int(rng.integers(0, 3))
    first = int(rng.integers(0, 70))
    room = signs(rng, x[:0], bounds, metric, padded(first + n + 1, BLOCK))
    center = values(rng, kind, 1, d)[0].astype(np.float64) * rng.choice([0, 0.3])
    return {
        "x": x,
        "center": center,
        "bounds": bounds,
        "starts": room.words.starts,
        "metric": metric,
        "first": first,
        "words": room.words.words,
        "factors": room.factors,
    }


def _pack_nibbles(rng: np.random.Generator, n: int, d: int, kind: str) -> Arguments:
    rows = _pack_rows(rng, values(rng, kind, n, d))
    TABLE["pack_rows"](*rows.values())
    metric = int(rng.integers(0, 3))
    room = nibbles(rng, rows["x"][:0], rows["bounds"], metric, rows["stats"].shape[1])
    return {
        **{key: rows[key] for key in ("x", "bounds", "starts", "codes")},
        "nibble_starts": room.starts,
        "metric": metric,
        "first": rows["first"],
        "nibbles": room.nibbles,
        "factors": room.factors,
    }


def _code_queries(rng: np.random.Generator, n: int, d: int, kind: str) -> Arguments:
    bounds, count = levels_of(rng, d), min(n, 40)
    dims = int(rng.integers(1, d + 1))
    width = int(level_widths(bounds[: np.searchsorted(bounds, dims) + 1], 64).sum())
    q = values(rng, kind, count, d).astype(np.float64)
    center = rng.standard_normal(d) * (abs(q).max() if q.size else 1) * rng.choice([0, 0.1])
    largest, shift, digits = ((15, 1.0, 5), (127, 15.0625, 0), (127, 128.0, 0))[rng.integers(0, 3)]
    return {
        "q": q,
        "center": center if digits else center[:0],
        "bounds": bounds,
        "dims": dims,
        "widest": int(rng.integers(dims, d + 1)),
        "metric": int(rng.integers(0, 3)),
        "largest": largest,
        "shift": shift,
        "codes": np.zeros((count, 0 if digits and rng.random() < 0.5 else width), np.int8),
        "digits": np.zeros((count, digits, width // 64), np.uint64),
        "shifts": np.empty(count, np.int64),
        "lifts": np.empty(count, np.float32),
        "units": np.empty(count),
        "offsets": np.empty(count),
    }


def _code_plane(rng: np.random.Generator, code: str, n: int, d: int, kind: str) -> Arguments:
    x, bounds, metric = values(rng, kind, n, d), levels_of(rng, d), int(rng.integers(0, 3))
    capacity = padded(max(n, 1), BLOCK)
    levels = int(rng.integers(1, len(bounds) + 1))
    if code == "i8":
        segment = plane(x, bounds)
        query = packed_query(rng, bounds[:levels])
        some: Arguments = {"codes": segment.codes, "starts": segment.starts, "bounds": bounds, "levels": levels}
        some |= {"stats": segment.stats, "metric": metric, "query": query}
    elif code == "i4":
        four = nibbles(rng, x, bounds, metric, capacity)
        query = packed_query(rng, bounds[:levels])
        some = {"nibbles": four.nibbles, "starts": four.starts, "bounds": bounds, "levels": levels}
        some |= {"factors": four.factors, "lifted": bool(metric), "query": query}
    else:
        one = signs(rng, x, bounds, metric, capacity)
        width = int(level_widths(bounds[:levels], 64).sum()) // 64
        digits = rng.integers(0, 2**64, (int(rng.choice([4, 5, 6, 8])), width), dtype=np.uint64)
        blank(rng, digits, 1)
        some = {"words": one.words.words, "starts": one.words.starts, "bounds": bounds, "levels": levels}
        some |= {"factors": one.factors, "lifted": bool(metric), "query": digits}
    if code != "b1":
        blank(rng, query, int(rng.choice([1, 4, 8, 16, 64])))
    return {**some, "shift": int(rng.integers(-5000, 5000)), "a": float(np.float32(rng.standard_normal()))}


def blank(rng: np.random.Generator, query: np.ndarray, width: int) -> None:
    """Zeros in some, all, or all but one of the runs of `width` values; often in none."""
    runs = query.reshape(*query.shape[:-1], -1, width).swapaxes(0, -2)  # runs first
    used = rng.random(len(runs)) < rng.choice([0, 0.1, 0.3, 0.7, 1, 1])
    if rng.random() < 0.3:
        used[:] = False
        used[rng.choice([0, -1, rng.integers(0, len(runs))])] = True
    runs[~used] = 0


def packed_query(rng: np.random.Generator, bounds: np.ndarray) -> np.ndarray:
    """Random int8 codes of a query, zero behind the dims of each level."""
    levels = zip(np.diff(bounds, prepend=0), level_widths(bounds, 64), strict=True)
    return np.concatenate([np.pad(rng.integers(-127, 128, n, dtype=np.int8), (0, size - n)) for n, size in levels])


def shortlist(room: int) -> Arguments:
    """Room for rows and what is known of them."""
    return {"rows": np.full(room, -1, np.int32), "sums": np.zeros(room, np.int32), "values": np.zeros(room, np.float32)}


def allowed_rows(rng: np.random.Generator, n: int, queries: int) -> np.ndarray:
    """No set of rows, one, or one for each query; some of them empty, whole, or of one row."""
    sets = some_rows(rng, n, int(rng.choice([1, queries])))
    for some in sets:
        case = rng.integers(0, 6)
        if case < 3:
            some[:] = np.uint64(2**64 - 1) if case == 0 else np.uint64(0)
        if case == 2 and n:
            row = int(rng.integers(0, n))
            some[row // BLOCK] = np.uint64(1 << row % BLOCK)
    return EVERY if rng.random() < 0.3 else sets


def _scan_code(code: str) -> Callable[..., Arguments]:
    def make(rng: np.random.Generator, n: int, d: int, kind: str) -> Arguments:
        some = _code_plane(rng, code, n, d, kind)
        keep, slot = int(rng.choice([1, 10, 70, n + 2])), int(rng.choice([0, 1000]))
        before = int(rng.choice([0, 0, 1, keep]))
        room = BLOCK + int(rng.choice([keep, 2 * keep + BLOCK, before + n]))
        least = float(np.float32(rng.choice([-np.inf, -3e38, 0, 1])))
        first = BLOCK if n > BLOCK and rng.random() < 0.5 else 0
        allowed = some_rows(rng, n, 1)[0] if rng.random() < 0.6 else EVERY.ravel()
        stride = int(rng.choice([BLOCK, BLOCK, 3 * BLOCK]))
        span = {"threshold": least, "keep": keep, "first": first, "last": n, "stride": stride, "slot": slot}
        return {**some, **span, "allowed": allowed, **shortlist(room), "counts": np.asarray([before])}

    return make


def _list_code(code: str) -> Callable[..., Arguments]:
    def make(rng: np.random.Generator, n: int, d: int, kind: str) -> Arguments:
        some = _code_plane(rng, code, n, d, kind)
        before = {key: some.pop(key) for key in list(some)[:3]}
        listed = shortlist(int(rng.integers(0, n + 1)))
        listed["rows"][:] = rng.permutation(n)[: len(listed["rows"])]
        listed["sums"][:] = rng.integers(-1000, 1000, len(listed["rows"]))
        return {**before, "begin": int(rng.integers(0, some["levels"] + 1)), **some, **listed}

    return make


def _keep_best(rng: np.random.Generator, n: int, d: int, kind: str) -> Arguments:
    listed = shortlist(n)
    listed["rows"][:] = rng.permutation(n)
    listed["values"][:] = values(rng, kind, n, d)[:, 0]
    count = int(rng.integers(0, n + 1))
    return {**listed, "counts": np.asarray([count]), "keep": int(rng.integers(1, n + 2))}


def _order_best(rng: np.random.Generator, n: int, d: int, kind: str) -> Arguments:
    scores = values(rng, kind, d, n + 1).astype(np.float64)
    scores[rng.random(scores.shape) < rng.choice([0, 0.3])] = -np.inf
    ids = rng.permuted(np.tile(np.arange(n + 1), (d, 1)), axis=1)
    ids[scores == -np.inf] = -1
    return {"scores": scores, "ids": ids, "sign": float(rng.choice([-1, 1])), "values": np.empty(ids.shape, np.float32)}


def _transform_rows(rng: np.random.Generator, n: int, d: int, kind: str) -> Arguments:
    panels = int(rng.choice([0, 1, 2, 3, 5])) if n * d > 2000 else 1
    columns = values(rng, kind if rng.random() < 0.5 else "normal", 16 * panels, d).reshape(panels, d, 16)
    x = values(rng, kind, n, d).astype(np.float64)
    return {"x": x, "panels": columns, "out": np.full((n, 16 * panels), np.nan, np.float32)}


CODED: dict[str, Callable[..., Arguments]] = {
    "crc32c": _crc32c,
    "sign_bits_f32": _sign_bits(np.float32),
    "sign_bits_f64": _sign_bits(np.float64),
    "pack_words": _pack_words,
    "count_bits": _count_bits,
    "scan_bits": _scan_bits,
    "list_bits": _list_bits,
    "order_bits": _order_bits,
    "pack_signs": _pack_signs,
    "pack_nibbles": _pack_nibbles,
    "code_queries": _code_queries,
    **{f"scan_{code}": _scan_code(code) for code in ("b1", "i4", "i8")},
    **{f"list_{code}": _list_code(code) for code in ("b1", "i4", "i8")},
    "keep_best": _keep_best,
    "order_best": _order_best,
    "transform_rows": _transform_rows,
    "pack_bags": maxsim_cases.pack_bags,
    "scan_bags": maxsim_cases.scan_bags,
    **TOKENS,
}


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
        "allowed": EVERY,
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
    TABLE["topk_f32"](q.astype(np.float64), x, x.shape[1], metric, ids[0, :0], 0, EVERY, best, ids)
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
    scan["allowed"] = allowed_rows(rng, len(x), len(q))
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
    if name == "topk":
        return {**some, "allowed": allowed_rows(rng, n, len(q)), **best}
    if name == "list":
        return {**some, "numbers": rng.permutation(n)[: rng.integers(0, n + 1)].astype(np.int32), **best}
    return {**some, **_candidates(rng, x[:, :dims], q[:, :dims], metric), **best}


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
